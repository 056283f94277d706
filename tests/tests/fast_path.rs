//! The fast path beside the long way: two logs live through the same, one of them by
//! `append_fast`, `append_fast_buffered` and `complete_fast` wherever they are given, and are the
//! same after every step.
//! `SEAWALL_SEED=n` and the name of the test run one life alone.

use seawall::WalConfig;
use seawall::blocking::Wal;
use seawall_core::command::{Command, Lane};
use seawall_core::config::{Config, FsyncPolicy, Level};
use seawall_core::id::{Lsn, Time};
use seawall_core::log::{Appended, Log, RolledBack};
use seawall_core::record::{Entry, Record};
use seawall_tests::disk::{Disk, Fault, Memory};
use seawall_tests::opening::{Go, recover, start};
use seawall_tests::random::{Hash, Random};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often the fast path was taken, and of how many steps.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    writes: u64,
    returns: u64,
    buffered: u64,
    steps: u64,
}

/// A log, its disk, and the commands that are on their way.
struct Side {
    disk: Disk,
    log: Log<Memory>,
    under_way: Vec<Command<Memory>>,
    is_fast: bool,
    taken: Taken,
}

impl Side {
    fn new(config: &Config, is_fast: bool) -> Self {
        let mut disk = Disk::with_sectors(512);
        let opened = recover(&mut disk, start(config, 7, 7), |_, _| Go::On(None));
        let (log, _) = opened.unwrap().unwrap();
        Self { disk, log, under_way: Vec::new(), is_fast, taken: Taken::default() }
    }

    /// Appends at `Os` or `Disk`, and takes the command that writes it, if one is due.
    fn append(&mut self, entry: &Entry<'_>, level: Level) -> Option<Appended> {
        if self.is_fast
            && level == Level::Os
            && let Some((appended, write)) = self.log.append_fast(entry)
        {
            self.taken.writes += 1;
            self.under_way.push(Command::Write(write));
            return Some(appended);
        }
        let appended = self.log.append(entry, level).ok();
        self.under_way.extend(self.log.poll_lane(Lane::Commit));
        appended
    }

    /// Appends at `Buffered` where nothing is due. On the fast path nothing is so afterwards.
    fn buffer(&mut self, entry: &Entry<'_>) -> Option<Appended> {
        while let Some(command) = self.log.poll_command() {
            self.under_way.push(command);
        }
        if self.is_fast
            && let Some(appended) = self.log.append_fast_buffered(entry)
        {
            self.taken.buffered += 1;
            let command = self.log.poll_command();
            assert!(command.is_none(), "{command:?} came due");
            return Some(appended);
        }
        self.log.append(entry, Level::Buffered).ok()
    }

    fn poll(&mut self) {
        let (is_anything_due, command) = (self.log.is_anything_due(), self.log.poll_command());
        assert!(is_anything_due || command.is_none(), "{command:?} was not due");
        self.under_way.extend(command);
        loop {
            let (is_anything_due, event) = (self.log.is_anything_due(), self.log.poll_event());
            assert!(is_anything_due || event.is_none(), "{event:?} waited");
            if event.is_none() {
                return;
            }
        }
    }

    /// Runs all that is due.
    fn settle(&mut self) {
        loop {
            self.poll();
            if self.under_way.is_empty() {
                return;
            }
            self.complete(0, None);
        }
    }

    fn complete(&mut self, at: usize, fault: Option<Fault>) -> Option<RolledBack> {
        let mut done = self.disk.execute(self.under_way.swap_remove(at), fault);
        if self.is_fast {
            done = match self.log.complete_fast(done) {
                Ok(()) => {
                    self.taken.returns += 1;
                    return None;
                }
                Err(done) => done,
            };
        }
        self.log.complete(done)
    }

    fn shown(&self) -> String {
        let under_way: Vec<_> = self.under_way.iter().map(told).collect();
        format!("{under_way:#?}\n{:#?}", self.log)
    }
}

/// A command in short, its bytes as a hash.
fn told(command: &Command<Memory>) -> String {
    let Command::Write(write) = command else { return format!("{command:?}") };
    let mut hash = Hash::default();
    hash.bytes(write.data.as_ref());
    format!("write {} {} {} {:x}", write.name, write.offset, write.sync, hash.value())
}

fn config(random: &mut Random) -> Config {
    let window = FsyncPolicy::Batch(Duration::from_micros(500));
    let policies = [FsyncPolicy::Os, FsyncPolicy::Always, window];
    let config = Config {
        segment_bytes_max: if random.chance(1, 2) { 4 << 20 } else { 16 << 10 },
        segment_age_max: random.chance(1, 4).then_some(Duration::from_millis(3)),
        reserve_bytes: if random.chance(1, 2) { 1 << 20 } else { 4 << 10 },
        batch_bytes: 8 << 10,
        record_bytes_max: 4 << 10,
        preallocate: random.chance(3, 4),
        recycle_max: random.index(3),
        reserve_past_end: random.chance(1, 2),
        write_back_bytes: random.chance(1, 2).then_some(8 << 10),
        fsync_policy: policies[random.index(3)],
        crc: seawall_tests::crc(),
        ..Config::default()
    };
    config.checked().unwrap()
}

fn fault(random: &mut Random) -> Option<Fault> {
    let fault = [Fault::Fails, Fault::NoSpace][usize::from(random.chance(19, 20))];
    random.chance(1, 60).then_some(fault)
}

/// Takes one step with both.
fn step(sides: &mut [Side; 2], random: &mut Random, now: &mut u64) {
    let value = vec![random.number().to_le_bytes()[0]; random.index(3) * random.index(2_200)];
    let record = match random.below(30) {
        0 => Record::put_with_ttl(b"key", &value, Duration::from_secs(1)),
        _ => Record::put(b"key", &value),
    };
    let entry = Entry::from(&record);
    let lsn = Lsn::new(random.below(sides[0].log.appended().lsn.get() + 2));
    let level = if random.chance(1, 5) { Level::Disk } else { Level::Os };
    let what = random.below(200);
    let (commands, at, fault) = (sides[0].under_way.len(), random.number(), fault(random));
    let comes_back = random.chance(2, 3);
    *now += random.below(20);
    let results = sides.each_mut().map(|side| {
        let log = &mut side.log;
        match what {
            0..70 => {
                let appended = side.append(&entry, level);
                let last = side.under_way.len().checked_sub(1).filter(|_| comes_back);
                return (appended, last.and_then(|last| side.complete(last, fault)));
            }
            70..150 if commands > 0 => {
                let at = usize::try_from(at % commands as u64).unwrap();
                return (None, side.complete(at, fault));
            }
            70..175 => side.poll(),
            175..185 => side.settle(),
            185..190 => {
                for _ in 0..3 {
                    side.buffer(&entry);
                }
            }
            190..192 => drop(log.append_batch(&[entry, entry], level)),
            192..195 => drop(log.tick(Time::from_micros(*now))),
            195 => drop(log.rotate()),
            196 => drop(log.delete_before(lsn)),
            197 => drop(log.truncate_after(lsn)),
            198 if at % 8 == 0 => drop(log.close()),
            198 => {
                let (is_anything_due, result) = (log.is_anything_due(), log.take_request_result());
                assert!(is_anything_due || result.is_none(), "{result:?} waited");
            }
            _ => drop(log.flush(level)),
        }
        (None, None)
    });
    assert_eq!(results[0], results[1]);
    let [long, fast] = sides.each_ref().map(Side::shown);
    if long != fast {
        let differs = std::iter::zip(long.lines(), fast.lines()).find(|(long, fast)| long != fast);
        panic!("by the long way and by the fast path: {differs:?}");
    }
}

fn live(taken: Taken, seed: u64) -> Taken {
    eprintln!("SEAWALL_SEED={seed}");
    let mut random = Random::new(seed);
    let config = config(&mut random);
    let mut sides = [Side::new(&config, false), Side::new(&config, true)];
    let (mut now, mut steps) = (1_000, 0);
    sides[1].taken = taken;
    let mut last = 400;
    while steps < last {
        step(&mut sides, &mut random, &mut now);
        steps += 1;
        if sides[0].log.poison().is_some() || sides[0].log.is_closed() {
            last = last.min(steps + 20);
        }
    }
    Taken { steps: taken.steps + steps, ..sides[1].taken }
}

#[test]
fn the_fast_path_leaves_the_log_as_the_long_way_does() {
    let named = std::env::var("SEAWALL_SEED").ok().map(|seed| seed.parse().unwrap());
    let seeds = named.map_or(0..100, |seed: u64| seed..seed + 1);
    let taken = seeds.fold(Taken::default(), live);
    eprintln!("{taken:?}");
    let Taken { writes, returns, buffered, steps } = taken;
    let is_taken = writes > steps / 50 && returns > steps / 50 && buffered > steps / 50;
    assert!(named.is_some() || is_taken, "{taken:?}");
}

/// Records without one need no look at the clock.
#[test]
fn a_record_with_a_ttl_has_the_time_of_its_append() {
    let temp = tempfile::tempdir().unwrap();
    let config = WalConfig { fsync_policy: FsyncPolicy::Os, ..WalConfig::in_dir(temp.path()) };
    let (wal, _) = Wal::open(config).unwrap();
    let mut reader = wal.iter().unwrap();
    let millis = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    for level in [Level::Os, Level::Buffered] {
        for _ in 0..3 {
            wal.append_with(&Record::put(b"key", b"value"), level).unwrap();
        }
        // Until what the log knew of the time is old.
        let known = millis();
        while millis() < known + 5 {
            std::thread::yield_now();
        }
        let before = millis();
        let record = Record::put_with_ttl(b"key", b"value", Duration::from_secs(1));
        let lsn = wal.append_with(&record, level).unwrap().last;
        wal.sync().unwrap();
        reader.seek(lsn).unwrap();
        let (entry, _) = reader.next_record().unwrap().unwrap();
        let written_at = entry.written_at.unwrap().as_millis();
        // The log's clock began with the system's and may lag behind it by its last digit.
        assert!(u128::from(written_at) + 1 >= before, "{level:?}: {written_at}, after {before}");
    }
}

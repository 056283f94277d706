//! The fast path beside the long way: two logs live through the same, one of them by
//! `append_fast` and `complete_fast` wherever they are given, and are the same after every step.
//! `SEAWALL_SEED=n` and the name of the test run one life alone.

use seawall_core::command::{Command, Lane};
use seawall_core::config::{Config, FsyncPolicy, Level};
use seawall_core::id::{Lsn, Time};
use seawall_core::log::{Appended, Log, RolledBack};
use seawall_core::record::{Entry, Record};
use seawall_tests::disk::{Disk, Fault, Memory};
use seawall_tests::opening::{Go, recover, start};
use seawall_tests::random::{Hash, Random};
use std::time::Duration;

/// A log, its disk, and the commands that are on their way.
struct Side {
    disk: Disk,
    log: Log<Memory>,
    under_way: Vec<Command<Memory>>,
    is_fast: bool,
    /// How often the fast path was taken: out, and back.
    taken: (u64, u64),
}

impl Side {
    fn new(config: &Config, is_fast: bool) -> Self {
        let mut disk = Disk::with_sectors(512);
        let opened = recover(&mut disk, start(config, 7, 7), |_, _| Go::On(None));
        let (log, _) = opened.unwrap().unwrap();
        Self { disk, log, under_way: Vec::new(), is_fast, taken: (0, 0) }
    }

    /// Appends at `Os`, and takes the command that writes it, if one is due.
    fn append(&mut self, entry: &Entry<'_>) -> Option<Appended> {
        if self.is_fast
            && let Some((appended, write)) = self.log.append_fast(entry)
        {
            self.taken.0 += 1;
            self.under_way.push(Command::Write(write));
            return Some(appended);
        }
        let appended = self.log.append(entry, Level::Os).ok();
        self.under_way.extend(self.log.poll_lane(Lane::Commit));
        appended
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
                    self.taken.1 += 1;
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
        segment_bytes_max: if random.chance(1, 2) { 4 << 20 } else { 8 << 10 },
        segment_age_max: random.chance(1, 4).then_some(Duration::from_millis(3)),
        batch_bytes: 4 << 10,
        record_bytes_max: 2 << 10,
        preallocate: random.chance(3, 4),
        recycle_max: random.index(3),
        fsync_policy: policies[random.index(3)],
        crc: seawall_tests::crc(),
        ..Config::default()
    };
    config.checked().unwrap()
}

fn fault(random: &mut Random) -> Option<Fault> {
    let fault = [Fault::Fails, Fault::NoSpace][usize::from(random.chance(9, 10))];
    random.chance(1, 200).then_some(fault)
}

/// Takes one step with both.
fn step(sides: &mut [Side; 2], random: &mut Random, now: &mut u64) {
    let value = vec![random.number().to_le_bytes()[0]; random.index(3) * random.index(1_100)];
    let record = match random.below(30) {
        0 => Record::put_with_ttl(b"key", &value, Duration::from_secs(1)),
        _ => Record::put(b"key", &value),
    };
    let entry = Entry::from(&record);
    let lsn = Lsn::new(random.below(sides[0].log.appended().lsn.get() + 2));
    let level = [Level::Buffered, Level::Os, Level::Disk][random.index(3)];
    let what = random.below(200);
    let (commands, at, fault) = (sides[0].under_way.len(), random.number(), fault(random));
    let comes_back = random.chance(2, 3);
    *now += random.below(20);
    let results = sides.each_mut().map(|side| {
        let log = &mut side.log;
        match what {
            0..70 => {
                let appended = side.append(&entry);
                let last = side.under_way.len().checked_sub(1).filter(|_| comes_back);
                return (appended, last.and_then(|last| side.complete(last, fault)));
            }
            70..150 if commands > 0 => {
                let at = usize::try_from(at % commands as u64).unwrap();
                return (None, side.complete(at, fault));
            }
            70..175 => side.poll(),
            175..185 => side.settle(),
            185..190 => drop(log.append(&entry, level)),
            190..192 => drop(log.append_batch(&[entry, entry], level)),
            192..195 => drop(log.tick(Time::from_micros(*now))),
            195 => drop(log.rotate()),
            196 => drop(log.delete_before(lsn)),
            197 => drop(log.truncate_after(lsn)),
            198 => drop(log.take_request_result()),
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

/// How often the fast path was taken, and of how many steps.
fn live(seed: u64) -> [u64; 3] {
    eprintln!("SEAWALL_SEED={seed}");
    let mut random = Random::new(seed);
    let config = config(&mut random);
    let mut sides = [Side::new(&config, false), Side::new(&config, true)];
    let (mut now, mut steps) = (1_000, 0);
    while steps < 400 && sides[0].log.poison().is_none() {
        step(&mut sides, &mut random, &mut now);
        steps += 1;
    }
    let (out, back) = sides[1].taken;
    [out, back, steps]
}

#[test]
fn the_fast_path_leaves_the_log_as_the_long_way_does() {
    let named = std::env::var("SEAWALL_SEED").ok().map(|seed| seed.parse().unwrap());
    let seeds = named.map_or(0..100, |seed: u64| seed..seed + 1);
    let [out, back, steps] = seeds
        .map(live)
        .fold([0; 3], |[a, b, c], [out, back, steps]| [a + out, b + back, c + steps]);
    eprintln!("fast {out} out, {back} back, of {steps} steps");
    assert!(named.is_some() || (out > steps / 20 && back > steps / 20));
}

//! Recovery's reading, a few pieces ahead on a second thread: while the core looks at one piece of
//! a segment, the next are fetched.
//!
//! Space that is reserved and not written reads as zeros, and the page cache makes a page for each
//! of them. So behind a piece of zeros the next are read past it: that takes a fifth of the time,
//! and what was only reserved takes no memory. Which bytes there are, the file system is asked all
//! the same.

use crate::config::WalConfig;
use crate::execute::{Executor, io_error};
use crate::sys;
use seawall_core::command::{Command, Done, Read};
use seawall_core::error::IoError;
use seawall_core::id::SegmentId;
use seawall_core::recover::Recovery;
use seawall_core::wire::frame::HEAD_BYTES_MAX;
use seawall_core::wire::is_zero;
use seawall_core::wire::name::FileId;
use std::fs::File;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Builder, Scope, scope};

/// So many pieces are read before they are asked for.
const PIECES_AHEAD: usize = 3;
/// For shorter ones another thread does not pay; longer ones would take too much memory.
const PIECE_BYTES: RangeInclusive<usize> = 64 << 10..=4 << 20;
/// The core may want the head of a frame again that a piece's end had cut.
const OVERLAP_BYTES: usize = HEAD_BYTES_MAX;

/// Runs the commands of a recovery until there are no more.
pub(crate) fn run(recovery: &mut Recovery<Vec<u8>>, executor: &Executor, config: &WalConfig) {
    let piece_bytes = usize::try_from(config.batch_size).unwrap_or(usize::MAX);
    // Who interposes is asked before each read, so nothing is read there that was not asked for.
    let goes_ahead = PIECE_BYTES.contains(&piece_bytes) && config.interpose.is_none();
    scope(|threads| {
        let mut ahead = Ahead { threads, executor, piece_bytes, last_end: None, stream: None };
        while let Some(command) = recovery.poll_command() {
            let done = match command {
                Command::Read(read) if goes_ahead => ahead.fetch(read),
                command => {
                    // It may change what has been read ahead.
                    ahead.rest();
                    executor.execute(command)
                }
            };
            recovery.complete(done);
        }
    });
}

/// Reads on behind two reads of a segment of which the second began where the first had ended.
struct Ahead<'scope, 'env> {
    threads: &'scope Scope<'scope, 'env>,
    executor: &'env Executor,
    piece_bytes: usize,
    last_end: Option<(FileId, u64)>,
    stream: Option<Stream>,
}

impl Ahead<'_, '_> {
    fn rest(&mut self) {
        self.stream = None;
        self.last_end = None;
    }

    fn fetch(&mut self, mut read: Read<Vec<u8>>) -> Done<Vec<u8>> {
        let (file, offset, wanted) = (read.name.file, read.offset, read.buffer.len());
        if let Some(stream) = &mut self.stream
            && let Some(result) = stream.take(file, offset, &mut read.buffer)
        {
            return read.done(result);
        }
        let goes_on = self.last_end == Some((file, offset));
        self.rest();
        let result = self.executor.read(read.name, &mut read.buffer, offset);
        if result == Ok(wanted) {
            let end = offset + wanted as u64;
            self.last_end = Some((file, end));
            if goes_on && wanted >= OVERLAP_BYTES {
                self.stream = self.begin(file, end, &read.buffer);
            }
        }
        read.done(result)
    }

    /// Begins to read at `next`, behind `last`.
    fn begin(&self, file: FileId, next: u64, last: &[u8]) -> Option<Stream> {
        let FileId::Segment(segment) = file else { return None };
        let (to_us, ready) = sync_channel(PIECES_AHEAD);
        let (give_back, used) = channel();
        let fetcher = Fetcher {
            executor: self.executor,
            segment,
            file: self.executor.open_for_reading(segment).ok()?,
            piece_bytes: self.piece_bytes,
            is_blank: is_zero(last),
            blank: Blank::Unopened,
        };
        Builder::new()
            .name("seawall-recovery".to_owned())
            .spawn_scoped(self.threads, move || fetcher.run(next, &to_us, &used))
            .ok()?;
        let (piece_bytes, tail) = (self.piece_bytes, tail_of(last));
        Some(Stream { file, next, piece_bytes, tail, ready, give_back })
    }
}

/// A piece of a file.
enum Piece {
    /// Its memory and how much of it was read.
    Bytes(Vec<u8>, usize),
    /// So many zeros.
    Zeros(usize),
    Failed(IoError),
}

/// The last bytes of a piece.
type Tail = [u8; OVERLAP_BYTES];

/// Pieces of a segment that are on their way. The thread that reads them ends when this is dropped.
struct Stream {
    file: FileId,
    /// Where the next piece begins.
    next: u64,
    piece_bytes: usize,
    /// The bytes before it.
    tail: Tail,
    ready: Receiver<Piece>,
    give_back: Sender<Vec<u8>>,
}

impl Stream {
    /// Fills `buffer` with the next piece, if that is what is wanted, and the little before it from
    /// which the core may want it.
    fn take(
        &mut self,
        file: FileId,
        offset: u64,
        buffer: &mut Vec<u8>,
    ) -> Option<Result<usize, IoError>> {
        let before = usize::try_from(self.next.checked_sub(offset)?).ok()?;
        let wanted = buffer.len();
        if file != self.file || before > OVERLAP_BYTES || wanted > before + self.piece_bytes {
            return None;
        }
        let piece = self.ready.recv().ok()?;
        let tail = std::mem::replace(&mut self.tail, [0; OVERLAP_BYTES]);
        self.next += self.piece_bytes as u64;
        let tail = &tail[OVERLAP_BYTES - before..];
        let got = match piece {
            Piece::Failed(error) => return Some(Err(error)),
            Piece::Zeros(zeros) => {
                buffer.fill(0);
                buffer[..before].copy_from_slice(tail);
                zeros
            }
            Piece::Bytes(mut piece, got) => {
                self.tail = tail_of(&piece);
                if before > 0 {
                    piece.splice(..0, tail.iter().copied());
                }
                piece.truncate(wanted);
                // Nobody takes it if the file has ended.
                self.give_back.send(std::mem::replace(buffer, piece)).ok();
                got
            }
        };
        Some(Ok((before + got).min(wanted)))
    }
}

fn tail_of(piece: &[u8]) -> Tail {
    piece.last_chunk().copied().unwrap_or([0; OVERLAP_BYTES])
}

/// Reads pieces of a segment for a [`Stream`].
struct Fetcher<'a> {
    executor: &'a Executor,
    segment: SegmentId,
    file: Arc<File>,
    piece_bytes: usize,
    /// The last piece was zeros.
    is_blank: bool,
    blank: Blank,
}

/// How zeros are read.
enum Blank {
    Unopened,
    Open(File, sys::Aligned),
    /// Like everything else: the file system has no other way, or other bytes came.
    Plain,
}

impl Fetcher<'_> {
    /// Reads piece after piece, until the file ends or nobody wants more.
    fn run(mut self, mut offset: u64, ready: &SyncSender<Piece>, used: &Receiver<Vec<u8>>) {
        loop {
            let piece = match self.zeros(offset) {
                Some(zeros) => Piece::Zeros(zeros),
                None => self.bytes(offset, used.try_recv().unwrap_or_default()),
            };
            let got = match &piece {
                Piece::Bytes(_, got) | Piece::Zeros(got) => *got,
                Piece::Failed(_) => 0,
            };
            if ready.send(piece).is_err() || got < self.piece_bytes {
                return;
            }
            offset += self.piece_bytes as u64;
        }
    }

    fn bytes(&mut self, offset: u64, mut piece: Vec<u8>) -> Piece {
        piece.resize(self.piece_bytes, 0);
        match sys::read_at(&self.file, &mut piece, offset) {
            Ok(got) => {
                self.is_blank = is_zero(&piece[..got]);
                Piece::Bytes(piece, got)
            }
            Err(error) => Piece::Failed(io_error(error)),
        }
    }

    /// How many zeros there are, if nothing else is.
    fn zeros(&mut self, offset: u64) -> Option<usize> {
        if !self.is_blank {
            return None;
        }
        if let Blank::Unopened = self.blank {
            let opened = self.executor.open_direct(self.segment);
            self.blank = opened.map_or(Blank::Plain, |file| {
                Blank::Open(file, sys::Aligned::new(self.piece_bytes))
            });
        }
        let Blank::Open(file, memory) = &mut self.blank else { return None };
        let memory = memory.bytes();
        match sys::read_at(file, memory, offset) {
            Ok(got) if is_zero(&memory[..got]) => Some(got),
            Ok(_) | Err(_) => {
                self.blank = Blank::Plain;
                None
            }
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use crate::blocking::Wal;
    use crate::execute::{Call, Fault, Interpose};
    use crate::{Level, Record, WalConfig, inspect};
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;

    /// Lets everything be; whoever is asked has nothing read ahead.
    struct Nothing;

    impl Interpose for Nothing {
        fn before(&self, _call: &Call) -> Option<Fault> {
            None
        }
    }

    #[test]
    fn recovery_finds_the_same_whether_it_reads_ahead_or_not() {
        let temp = tempfile::tempdir().unwrap();
        let config = |reserve_size| WalConfig {
            batch_size: 64 << 10,
            max_segment_size: 16 << 20,
            reserve_size: Some(reserve_size),
            ..WalConfig::in_dir(temp.path())
        };
        // Frames of all lengths, so that pieces end anywhere in them, heads included.
        let (wal, _) = Wal::open(config(2 << 20)).unwrap();
        for number in 0_usize..2_000 {
            let value = vec![7; number * 7_919 % 1_500 + usize::from(number == 900) * 300_000];
            wal.append_with(&Record::put(b"key", &value), Level::Os).unwrap();
        }
        wal.sync().unwrap();
        // It says that those before it are durable.
        wal.append_with(&Record::put(b"key", b"last"), Level::Disk).unwrap();
        let end = wal.stats().end.offset;
        drop(wal);
        let look = || {
            let ahead = inspect::check(&config(512)).unwrap();
            let config = WalConfig { interpose: Some(Arc::new(Nothing)), ..config(512) };
            assert_eq!(ahead, inspect::check(&config).unwrap());
            ahead
        };
        assert_eq!(look().valid_records, 2_001);
        let path = temp.path().join("00000000000000000001.wal");
        let file = File::options().write(true).open(path).unwrap();
        // Zeros that end in something: those behind the end, and some where records were.
        file.set_len(end + (3 << 20)).unwrap();
        file.write_all_at(b"something", end + (2 << 20) + 77).unwrap();
        assert_eq!(look().valid_records, 2_001);
        file.write_all_at(&vec![0; 700_000], 100_000).unwrap();
        let damaged = look();
        assert!(damaged.corruption_detected && damaged.valid_records < 200, "{damaged:?}");
        file.set_len(end / 2).unwrap();
        look();
    }
}

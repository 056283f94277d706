//! Recovery's reading, a few pieces ahead on a second thread: while the core looks at one piece of
//! a segment, the next are fetched.
//!
//! Space that is reserved and not written reads as zeros, and the page cache makes a page for each
//! of them. What the page cache does not have is read past it, as long as it is zeros: that takes
//! a tenth of the time, and what was only reserved takes no memory. Which bytes there are, the file
//! system is asked all the same. Bytes that have to come from the disk the kernel fetches better.

use crate::config::WalConfig;
use crate::dir::Access;
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
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Builder, Scope, scope};

/// So many pieces are read before they are asked for.
const PIECES_AHEAD: usize = 3;
/// For shorter ones another thread does not pay; longer ones would take too much memory.
const PIECE_BYTES: RangeInclusive<usize> = 64 << 10..=4 << 20;
/// After so many bytes in a row that are not zeros the thread reads on: to begin it, and to touch
/// the memory that it reads to, takes as long as several pieces, and by then the core asks for
/// whole ones, as it reads them.
const IN_A_ROW_BYTES: usize = 4 << 20;
/// The core may want the head of a frame again that a piece's end had cut.
const OVERLAP_BYTES: usize = HEAD_BYTES_MAX;

/// Runs the commands of a recovery until there are no more.
pub(crate) fn run(recovery: &mut Recovery<Vec<u8>>, executor: &Executor, config: &WalConfig) {
    let piece_bytes = usize::try_from(config.batch_size).unwrap_or(usize::MAX);
    // Who interposes is asked before each read, so nothing is read there that was not asked for.
    let goes_ahead = PIECE_BYTES.contains(&piece_bytes) && config.interpose.is_none();
    scope(|threads| {
        let mut ahead = Ahead { threads, executor, piece_bytes, course: None };
        while let Some(command) = recovery.poll_command() {
            let done = match command {
                Command::Read(read) if goes_ahead => ahead.fetch(read),
                command => {
                    // It may change what has been read ahead.
                    ahead.course = None;
                    executor.execute(command)
                }
            };
            recovery.complete(done);
        }
    });
}

/// Reads segments from front to back.
struct Ahead<'scope, 'env> {
    threads: &'scope Scope<'scope, 'env>,
    executor: &'env Executor,
    piece_bytes: usize,
    course: Option<Course<'env>>,
}

/// A segment that is being read.
struct Course<'a> {
    /// Where the last read ended.
    end: u64,
    /// So many bytes in a row were not zeros.
    in_a_row: usize,
    /// What came of having the segment written back.
    begun: Result<(), IoError>,
    pieces: Pieces<'a>,
    stream: Option<Stream>,
}

impl<'env> Ahead<'_, 'env> {
    fn fetch(&mut self, mut read: Read<Vec<u8>>) -> Done<Vec<u8>> {
        let Some(mut course) = self.course_of(&read) else {
            let result = self.executor.read_alone(read.name, &mut read.buffer, read.offset);
            return read.done(result);
        };
        let (offset, wanted) = (read.offset, read.buffer.len());
        let result = course.begun.and_then(|()| course.read(&mut read.buffer, offset));
        if result == Ok(wanted) {
            course.end = offset + wanted as u64;
            let is_long = course.in_a_row >= IN_A_ROW_BYTES;
            if course.stream.is_none() && is_long && wanted >= OVERLAP_BYTES {
                course.in_a_row = 0;
                course.stream = self.begin(&course, &read.buffer);
            }
            self.course = Some(course);
        }
        read.done(result)
    }

    /// The course that a read is on, or begins. `None`: it is of a header or a footer.
    fn course_of(&mut self, read: &Read<Vec<u8>>) -> Option<Course<'env>> {
        let FileId::Segment(segment) = read.name.file else { return None };
        let mut memory = sys::Aligned::new(0);
        if let Some(course) = self.course.take() {
            let before = course.end.checked_sub(read.offset);
            let is_near = before.is_some_and(|bytes| bytes <= OVERLAP_BYTES as u64);
            if course.pieces.segment == segment && is_near {
                return Some(course);
            }
            memory = course.pieces.memory;
        }
        if read.buffer.len() < *PIECE_BYTES.start() / 2 {
            return None;
        }
        let pieces = Pieces::new(self.executor, segment, memory)?;
        let begun = self.executor.begin_write_back(&pieces.file);
        Some(Course { end: read.offset, in_a_row: 0, begun, pieces, stream: None })
    }

    /// Begins to read on behind `last`. `None`: there is no thread to be had.
    fn begin(&self, course: &Course<'env>, last: &[u8]) -> Option<Stream> {
        let (next, piece_bytes) = (course.end, self.piece_bytes);
        let Pieces { executor, segment, .. } = course.pieces;
        let pieces = Pieces::new(executor, segment, sys::Aligned::new(0))?;
        let (to_us, ready) = sync_channel(PIECES_AHEAD);
        let (give_back, used) = channel();
        Builder::new()
            .name("seawall-recovery".to_owned())
            .spawn_scoped(self.threads, move || pieces.run(next, piece_bytes, &to_us, &used))
            .ok()?;
        Some(Stream { next, piece_bytes, tail: tail_of(last), ready, give_back })
    }
}

impl Course<'_> {
    fn read(&mut self, buffer: &mut Vec<u8>, offset: u64) -> Result<usize, IoError> {
        if let Some(stream) = &mut self.stream {
            let taken = stream.take(offset, buffer);
            if !matches!(taken, Some((Ok(_), false))) {
                self.stream = None;
            }
            if let Some((result, _)) = taken {
                self.pieces.is_blank = result.is_ok_and(|got| is_zero(&buffer[..got]));
                return result;
            }
        }
        let result = self.pieces.read(buffer, offset);
        self.in_a_row = if self.pieces.is_blank { 0 } else { self.in_a_row + buffer.len() };
        result
    }
}

/// A piece of a segment.
struct Piece {
    /// Its memory.
    bytes: Vec<u8>,
    /// How much of it was read.
    got: Result<usize, IoError>,
    /// The thread has come to the end of the file, or to zeros, and reads no more.
    is_last: bool,
}

/// The last bytes of a piece.
type Tail = [u8; OVERLAP_BYTES];

/// Pieces of a segment that are on their way. The thread that reads them ends when this is dropped.
struct Stream {
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
    /// which the core may want it; and says whether it is the last.
    fn take(
        &mut self,
        offset: u64,
        buffer: &mut Vec<u8>,
    ) -> Option<(Result<usize, IoError>, bool)> {
        let before = usize::try_from(self.next.checked_sub(offset)?).ok()?;
        let wanted = buffer.len();
        if before > OVERLAP_BYTES || wanted > before + self.piece_bytes {
            return None;
        }
        let Piece { mut bytes, got, is_last } = self.ready.recv().ok()?;
        let got = match got {
            Ok(got) => got,
            Err(error) => return Some((Err(error), is_last)),
        };
        let tail = std::mem::replace(&mut self.tail, tail_of(&bytes));
        self.next += self.piece_bytes as u64;
        if before > 0 {
            bytes.splice(..0, tail[OVERLAP_BYTES - before..].iter().copied());
        }
        bytes.truncate(wanted);
        // Nobody takes it if the file has ended.
        self.give_back.send(std::mem::replace(buffer, bytes)).ok();
        Some((Ok((before + got).min(wanted)), is_last))
    }
}

fn tail_of(piece: &[u8]) -> Tail {
    piece.last_chunk().copied().unwrap_or([0; OVERLAP_BYTES])
}

/// Reads a segment, zeros past the page cache.
struct Pieces<'a> {
    executor: &'a Executor,
    segment: SegmentId,
    /// It brings nothing into the page cache that is not asked for, unless that is cold.
    file: File,
    /// What was read last was zeros.
    is_blank: bool,
    /// It was not, and the page cache did not have it.
    is_cold: bool,
    past: Past,
    /// What is read past the page cache goes here first.
    memory: sys::Aligned,
}

/// The way past the page cache.
enum Past {
    Unopened,
    Open(File),
    /// The file system has none.
    None,
}

/// What the page cache has in part is read in parts, which begin at multiples of this: no page is
/// of two.
const PART_BYTES: u64 = 64 << 10;

fn to_next_part(offset: u64) -> usize {
    usize::try_from(PART_BYTES - offset % PART_BYTES).unwrap_or(usize::MAX)
}

impl<'a> Pieces<'a> {
    /// `None`: there is no such file to be read.
    fn new(executor: &'a Executor, segment: SegmentId, memory: sys::Aligned) -> Option<Self> {
        let file = executor.open_anew(segment, Access::Read).ok()?;
        sys::advise(&file, sys::Readahead::Nothing);
        let (is_blank, is_cold, past) = (false, false, Past::Unopened);
        Some(Self { executor, segment, file, is_blank, is_cold, past, memory })
    }

    /// Reads piece after piece, until the file ends, zeros come or nobody wants more.
    fn run(
        mut self,
        mut offset: u64,
        piece_bytes: usize,
        ready: &SyncSender<Piece>,
        used: &Receiver<Vec<u8>>,
    ) {
        loop {
            let mut bytes = used.try_recv().unwrap_or_default();
            bytes.resize(piece_bytes, 0);
            let got = self.read(&mut bytes, offset);
            let is_last = self.is_blank || got != Ok(piece_bytes);
            if ready.send(Piece { bytes, got, is_last }).is_err() || is_last {
                return;
            }
            offset += piece_bytes as u64;
        }
    }

    /// Fills `buffer` from `offset` on, up to the end of the file.
    fn read(&mut self, buffer: &mut [u8], offset: u64) -> Result<usize, IoError> {
        let cached = sys::cached(&self.file, offset, buffer.len() as u64);
        let in_parts = cached == Some(sys::Cached::Part);
        let (mut done, mut is_blank) = (0, true);
        while done < buffer.len() {
            let (at, left) = (offset + done as u64, buffer.len() - done);
            let part = if in_parts { left.min(to_next_part(at)) } else { left };
            let cached = if in_parts { sys::cached(&self.file, at, part as u64) } else { cached };
            let got = self.read_part(&mut buffer[done..done + part], at, cached)?;
            is_blank &= self.is_blank;
            done += got;
            if got < part {
                break;
            }
        }
        self.is_blank = is_blank;
        self.set_cold(self.is_cold && !is_blank);
        Ok(done)
    }

    fn read_part(
        &mut self,
        buffer: &mut [u8],
        offset: u64,
        cached: Option<sys::Cached>,
    ) -> Result<usize, IoError> {
        let goes_past = match cached {
            Some(cached) => cached == sys::Cached::Nothing && !self.is_cold,
            None => self.is_blank,
        };
        if goes_past && let Some(got) = self.read_past(buffer, offset) {
            self.set_cold(!self.is_blank);
            return Ok(got);
        }
        let got = sys::read_at(&self.file, buffer, offset).map_err(io_error)?;
        self.is_blank = is_zero(&buffer[..got]);
        Ok(got)
    }

    fn set_cold(&mut self, is_cold: bool) {
        if self.is_cold != is_cold {
            self.is_cold = is_cold;
            let readahead = if is_cold { sys::Readahead::Most } else { sys::Readahead::Nothing };
            sys::advise(&self.file, readahead);
        }
    }

    /// Reads the blocks that hold what is wanted, past the page cache.
    fn read_past(&mut self, buffer: &mut [u8], offset: u64) -> Option<usize> {
        if let Past::Unopened = self.past {
            let opened = self.executor.open_anew(self.segment, Access::ReadDirect);
            self.past = opened.map_or(Past::None, Past::Open);
        }
        let Past::Open(file) = &self.past else { return None };
        let before = usize::try_from(offset % sys::BLOCK_BYTES as u64).unwrap_or(0);
        let length = (before + buffer.len()).next_multiple_of(sys::BLOCK_BYTES);
        if self.memory.bytes().len() < length {
            self.memory = sys::Aligned::new(length);
        }
        let memory = &mut self.memory.bytes()[..length];
        let Ok(got) = sys::read_at(file, memory, offset - before as u64) else {
            self.past = Past::None;
            return None;
        };
        let got = got.saturating_sub(before).min(buffer.len());
        let (memory, buffer) = (&memory[before..before + got], &mut buffer[..got]);
        self.is_blank = is_zero(memory);
        if self.is_blank {
            buffer.fill(0);
        } else {
            buffer.copy_from_slice(memory);
        }
        Some(got)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::blocking::Wal;
    use crate::dir::Dir;
    use crate::execute::{Call, Fault, Interpose};
    use crate::{Level, Record, inspect};
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
    fn what_is_not_in_memory_is_read_as_it_is() {
        // Beside this program: where temporary files go may be memory, which cannot be evicted.
        let program = std::env::current_exe().unwrap();
        let temp = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
        let path = temp.path().join(FileId::Segment(SegmentId::FIRST).to_string());
        let mut content: Vec<u8> = (0..600_000_u32).map(|byte| byte.to_le_bytes()[1] | 1).collect();
        content[200_000..400_000].fill(0);
        std::fs::write(&path, &content).unwrap();
        let config = WalConfig::in_dir(temp.path());
        let dir = Dir::open_path(temp.path(), false).unwrap();
        let executor = Executor::new(dir, true, &config);
        let file = File::open(&path).unwrap();
        for piece_bytes in [4_096, 50_001, 65_536, 1 << 20] {
            file.sync_all().unwrap();
            sys::let_go(&file);
            let memory = sys::Aligned::new(0);
            let mut pieces = Pieces::new(&executor, SegmentId::FIRST, memory).unwrap();
            let (mut buffer, mut offset) = (vec![1; piece_bytes], 128);
            while offset < content.len() {
                let got = pieces.read(&mut buffer, offset as u64).unwrap();
                assert!(buffer[..got] == content[offset..][..got], "{piece_bytes} at {offset}");
                assert!(got == piece_bytes || offset + got == content.len());
                offset += got;
            }
        }
    }

    #[test]
    fn recovery_finds_the_same_whether_it_reads_ahead_or_not() {
        // Beside this program: where temporary files go may be memory, which cannot be evicted.
        let program = std::env::current_exe().unwrap();
        let temp = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
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
        let path = temp.path().join("00000000000000000001.wal");
        let file = File::options().write(true).open(path).unwrap();
        let look = || {
            let ahead = inspect::check(&config(512)).unwrap();
            // Now the disk has it all, and the page cache nothing.
            file.sync_all().unwrap();
            sys::let_go(&file);
            assert_eq!(ahead, inspect::check(&config(512)).unwrap());
            let config = WalConfig { interpose: Some(Arc::new(Nothing)), ..config(512) };
            assert_eq!(ahead, inspect::check(&config).unwrap());
            ahead
        };
        assert_eq!(look().valid_records, 2_001);
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

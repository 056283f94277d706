//! A reader's reading, some chunks ahead on a second thread once it has read a few in a row: while
//! the records of one are shown, the next are fetched.
//!
//! Nothing is fetched that could not be shown when the thread began: what may be shown is written,
//! and is not written again.

use crate::error::Error;
use crate::reader::{ReadDone, ReadJob, unread};
use crate::sys;
use bytes::Bytes;
use seawall_core::id::SegmentId;
use seawall_core::wire::header::FRAMES_OFFSET;
use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;

/// So many chunks are fetched before they are asked for.
const CHUNKS_AHEAD: usize = 2;
/// Who has read so many chunks in a row reads on.
const IN_A_ROW: u32 = 3;
/// For less another thread does not pay, in bytes.
const LEFT_BYTES_MIN: u64 = 1 << 20;
/// Chunks that are longer would take too much memory.
const CHUNK_BYTES_MAX: usize = 4 << 20;

/// Runs the reads of a reader, and looks what they have in common.
pub(crate) struct Prefetch {
    is_on: bool,
    /// Where the last read began and ended.
    last: Option<(SegmentId, u64, u64)>,
    in_a_row: u32,
    stream: Option<Stream>,
}

impl Prefetch {
    /// `is_on`: whether anything is ever fetched ahead.
    pub(crate) const fn new(is_on: bool) -> Self {
        Self { is_on, last: None, in_a_row: 0, stream: None }
    }

    /// Lets go of what has been fetched.
    pub(crate) fn rest(&mut self) {
        self.stream = None;
    }

    /// Takes it to another thread; what is left begins anew.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::new(self.is_on))
    }

    /// Runs a read, or hands out what was fetched of it; that may be more than was asked for.
    pub(crate) fn run(&mut self, job: ReadJob) -> Result<ReadDone, Error> {
        let (segment, offset, limit) = (job.segment, job.offset, job.limit);
        if let Some(stream) = &mut self.stream {
            if let Some(result) = stream.take(&job) {
                let done = result.map_err(|error| unread(segment, offset, error))?;
                self.last = Some((segment, offset, done.end()));
                return Ok(done);
            }
            self.stream = None;
        }
        let goes_on = self.last.is_some_and(|(last, begin, end)| {
            let is_next = last < segment && offset == FRAMES_OFFSET;
            is_next || (last == segment && begin < offset && offset <= end)
        });
        self.in_a_row = if goes_on { self.in_a_row.saturating_add(1) } else { 0 };
        let (file, bytes) = (job.file.clone(), job.bytes);
        let done = job.run()?;
        let end = done.end();
        self.last = Some((segment, offset, end));
        let pays = self.in_a_row >= IN_A_ROW && limit.saturating_sub(end) >= LEFT_BYTES_MIN;
        if self.is_on && pays && bytes <= CHUNK_BYTES_MAX {
            let tail = done.bytes.clone();
            let (fetched, ready) = sync_channel(CHUNKS_AHEAD);
            let (give_back, used) = channel();
            let fetcher = Fetcher { file, chunk_bytes: bytes, limit, fetched, used, give_back };
            let thread = Builder::new()
                .name("seawall-reader".to_owned())
                .spawn(move || fetcher.run(end))
                .ok();
            let ready = Mutex::new(ready);
            self.stream = thread.map(|_| Stream { segment, next: end, tail, ready });
        }
        Ok(done)
    }
}

/// Chunks of a segment that are on their way. The thread that fetches them ends when this is
/// dropped.
struct Stream {
    segment: SegmentId,
    /// Where the next chunk begins.
    next: u64,
    /// What was handed out last, which ends there.
    tail: Bytes,
    /// Nobody locks it: it makes that a reader may be looked at from several threads.
    ready: Mutex<Receiver<io::Result<Chunk>>>,
}

impl Stream {
    /// The next chunk with what is wanted before it, if it begins with that.
    fn take(&mut self, job: &ReadJob) -> Option<io::Result<ReadDone>> {
        let before = usize::try_from(self.next.checked_sub(job.offset)?).ok()?;
        let from = self.tail.len().checked_sub(before)?;
        if job.segment != self.segment {
            return None;
        }
        let ready = self.ready.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut chunk = match ready.recv().ok()? {
            Ok(chunk) => chunk,
            Err(error) => return Some(Err(error)),
        };
        self.next += (chunk.end - chunk.start) as u64;
        chunk.put_before(&self.tail[from..])?;
        let is_short = chunk.is_short;
        let bytes = Bytes::from_owner(chunk);
        self.tail = bytes.clone();
        Some(Ok(ReadDone { offset: job.offset, bytes, is_short }))
    }
}

/// A part of a file, with room before it.
struct Chunk {
    memory: Vec<u8>,
    start: usize,
    end: usize,
    /// The file ended in it.
    is_short: bool,
    give_back: Sender<Vec<u8>>,
}

impl Chunk {
    /// Puts bytes before the others. `None`: there is no room.
    fn put_before(&mut self, bytes: &[u8]) -> Option<()> {
        let start = self.start.checked_sub(bytes.len())?;
        self.memory[start..self.start].copy_from_slice(bytes);
        self.start = start;
        Some(())
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // Nobody takes it if all has been fetched.
        self.give_back.send(std::mem::take(&mut self.memory)).ok();
    }
}

/// Fetches chunks for a [`Stream`].
struct Fetcher {
    file: Arc<File>,
    chunk_bytes: usize,
    /// Up to here.
    limit: u64,
    fetched: SyncSender<io::Result<Chunk>>,
    used: Receiver<Vec<u8>>,
    give_back: Sender<Vec<u8>>,
}

impl Fetcher {
    fn run(self, mut offset: u64) {
        // A frame that goes on in the next chunk is handed out with that.
        let start = self.chunk_bytes;
        while offset < self.limit {
            let left = usize::try_from(self.limit - offset).unwrap_or(usize::MAX);
            let wanted = left.min(self.chunk_bytes);
            let mut memory =
                self.used.try_recv().unwrap_or_else(|_| vec![0; start + self.chunk_bytes]);
            let read = sys::read_at(&self.file, &mut memory[start..start + wanted], offset);
            let chunk = read.map(|got| Chunk {
                memory,
                start,
                end: start + got,
                is_short: got < wanted,
                give_back: self.give_back.clone(),
            });
            let goes_on = chunk.as_ref().is_ok_and(|chunk| !chunk.is_short);
            if self.fetched.send(chunk).is_err() || !goes_on {
                return;
            }
            offset += wanted as u64;
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::blocking::Wal;
    use crate::reader::{Advance, Entry, Reading, Source, Visibility};
    use crate::{Level, Record, WalConfig};
    use seawall_core::cursor::Start;
    use std::ops::Range;
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    fn config(dir: &Path) -> WalConfig {
        WalConfig {
            max_segment_size: 8 << 20,
            batch_size: 1 << 20,
            read_size: 64 << 10,
            ..WalConfig::in_dir(dir)
        }
    }

    /// Records of all lengths, so that chunks end anywhere in them; below 8,000 also some longer
    /// than a chunk.
    fn fill(wal: &Wal, numbers: Range<usize>) {
        for number in numbers {
            let is_long = number < 8_000 && number % 500 == 499;
            let value = vec![7; number * 7_919 % 5_000 + usize::from(is_long) * 300_000];
            wal.append_with(&Record::put(number.to_string().as_bytes(), &value), Level::Buffered)
                .unwrap();
        }
        wal.sync().unwrap();
    }

    /// A reader's records, up to what it cannot read, and how often a second thread was at it.
    #[derive(Debug)]
    struct Shown {
        entries: Vec<Entry>,
        error: Option<Error>,
        streams: usize,
    }

    fn read(wal: &Wal, is_on: bool) -> Shown {
        let source = Source::Live(wal.engine().clone());
        let mut reading = Reading::new(source, Start::First, Visibility::Written).unwrap();
        let mut prefetch = Prefetch::new(is_on);
        let mut shown = Shown { entries: Vec::new(), error: None, streams: 0 };
        loop {
            let had_stream = prefetch.stream.is_some();
            let done = match reading.advance() {
                Ok(Advance::Record(entry, _)) => {
                    shown.entries.push(entry);
                    continue;
                }
                Ok(Advance::End) => return shown,
                Ok(Advance::Read(job)) => prefetch.run(job),
                Err(error) => Err(error),
            };
            shown.streams += usize::from(!had_stream && prefetch.stream.is_some());
            match done {
                Ok(done) => reading.provide(done),
                Err(error) => {
                    shown.error = Some(error);
                    return shown;
                }
            }
        }
    }

    #[test]
    fn a_reader_is_shown_the_same_whether_it_is_fetched_ahead_or_not() {
        let temp = tempfile::tempdir().unwrap();
        let (wal, _) = Wal::open(config(temp.path())).unwrap();
        fill(&wal, 0..8_000);
        let (plain, ahead) = (read(&wal, false), read(&wal, true));
        assert!(plain.error.is_none() && ahead.error.is_none());
        assert_eq!((plain.entries.len(), plain.streams), (8_000, 0));
        assert!(plain.entries == ahead.entries);
        assert!(ahead.streams >= 2, "in each long segment");
        let runtime = ::tokio::runtime::Builder::new_current_thread().build().unwrap();
        let entries = runtime.block_on(async {
            let mut reader = crate::Wal::from(wal.clone()).iter().await.unwrap();
            let mut entries = Vec::new();
            while let Some((entry, _)) = reader.next_record().await.unwrap() {
                entries.push(entry);
            }
            entries
        });
        assert!(entries == plain.entries);
        // Damage in the middle of a segment, and a file that ends too early.
        let path = temp.path().join("00000000000000000002.wal");
        let file = File::options().write(true).open(path).unwrap();
        let damages: [&dyn Fn() -> io::Result<()>; 2] =
            [&|| file.write_all_at(&[0xaa; 9], 5 << 20), &|| file.set_len(3 << 20)];
        let mut shown = ahead.entries.len();
        for damage in damages {
            damage().unwrap();
            let (plain, ahead) = (read(&wal, false), read(&wal, true));
            let told = |shown: &Shown| shown.error.as_ref().map(ToString::to_string);
            assert!(told(&plain).is_some_and(|text| text.contains("0002.wal")), "{plain:?}");
            assert_eq!(told(&plain), told(&ahead));
            assert!(plain.entries == ahead.entries && plain.entries.len() < shown);
            shown = plain.entries.len();
        }
    }

    #[test]
    fn nothing_is_fetched_that_is_not_there_yet() {
        let temp = tempfile::tempdir().unwrap();
        let (wal, _) = Wal::open(config(temp.path())).unwrap();
        fill(&wal, 8_000..9_000);
        let source = Source::Live(wal.engine().clone());
        let mut reading = Reading::new(source, Start::First, Visibility::Written).unwrap();
        let mut prefetch = Prefetch::new(true);
        let (mut seen, mut ends) = (0, 0);
        while seen < 4_000 {
            match reading.advance().unwrap() {
                Advance::Record(entry, _) => {
                    seen += 1;
                    assert_eq!(entry.lsn.get(), seen);
                }
                // What comes now goes on where reserved space was.
                Advance::End => {
                    ends += usize::from(prefetch.stream.is_some());
                    fill(&wal, 8_000..9_000);
                }
                Advance::Read(job) => reading.provide(prefetch.run(job).unwrap()),
            }
        }
        assert!(ends > 0, "the second thread was at it");
    }
}

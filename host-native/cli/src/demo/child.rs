//! The process that is killed: it appends for ever, and reports each acknowledgement on its
//! standard output, one write each, so that a report is whole or absent.

use super::config;
use super::content::Content;
use crate::output::Failure;
use clap::Args;
use seawall::blocking::Wal;
use seawall::{Level, Record};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child as Process, ChildStdout, Command, Stdio};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

/// Append for ever and report each acknowledgement.
#[derive(Args)]
pub(crate) struct Child {
    dir: PathBuf,
    round: u64,
    threads: u64,
    #[arg(long)]
    input: Option<PathBuf>,
}

/// An acknowledged append.
#[derive(Clone, Copy)]
pub(crate) struct Ack {
    pub(crate) lsn: u64,
    pub(crate) thread: u64,
    pub(crate) counter: u64,
}

const ACK_BYTES: usize = 24;

impl Ack {
    fn encode(self) -> [u8; ACK_BYTES] {
        let mut bytes = [0; ACK_BYTES];
        let numbers = [self.lsn, self.thread, self.counter];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Self {
        let number = |at: usize| {
            let mut eight = [0; 8];
            eight.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(eight)
        };
        Self { lsn: number(0), thread: number(8), counter: number(16) }
    }
}

impl Child {
    pub(crate) fn run(self) -> Result<u8, Failure> {
        let content = Content::new(self.input.as_deref())?;
        let (wal, _) = Wal::open(config(&self.dir))?;
        let acks = Mutex::new(std::io::stdout());
        let append = |thread| -> Result<(), Failure> {
            for counter in 0.. {
                let (key, value) = content.record(self.round, thread, counter);
                let appended = wal.append_with(&Record::put(&key, &value), Level::Disk)?;
                let ack = Ack { lsn: appended.first.get(), thread, counter };
                let mut acks = acks.lock().map_err(|_| Failure::Other("a thread died".into()))?;
                let written = acks.write_all(&ack.encode()).and_then(|()| acks.flush());
                written.map_err(Failure::io("report an acknowledgement"))?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let append = &append;
            let threads: Vec<_> =
                (0..self.threads).map(|thread| scope.spawn(move || append(thread))).collect();
            threads.into_iter().try_for_each(|thread| match thread.join() {
                Ok(result) => result,
                Err(_) => Err(Failure::Other("a thread died".into())),
            })
        })?;
        Ok(0)
    }
}

/// A child that acknowledges slowly is killed after this long, so that a demo ends on any disk.
const PATIENCE: Duration = Duration::from_secs(10);

/// The child, as its parent sees it.
pub(crate) struct ChildProcess {
    process: Process,
    pipe: ChildStdout,
}

impl ChildProcess {
    pub(crate) fn start(
        dir: &Path,
        round: u64,
        threads: u64,
        input: Option<&Path>,
    ) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(Failure::io("find this program"))?;
        let mut command = Command::new(program);
        command.arg("demo-child").arg(dir).arg(round.to_string()).arg(threads.to_string());
        if let Some(input) = input {
            command.arg("--input").arg(input);
        }
        let started = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut process = started.map_err(Failure::io("start the child"))?;
        match process.stdout.take() {
            Some(pipe) => Ok(Self { process, pipe }),
            None => Err(Failure::Other("the child has no pipe".into())),
        }
    }

    /// Waits for so many acknowledgements, or until patience ends, kills the child (SIGKILL), and
    /// reads what it had still sent.
    pub(crate) fn kill_after(self, acks: u64) -> Result<Vec<Ack>, Failure> {
        let Self { mut process, mut pipe } = self;
        let (seen, enough) = mpsc::channel();
        let reader = thread::spawn(move || -> io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            (&mut pipe).take(acks * ACK_BYTES as u64).read_to_end(&mut bytes)?;
            // Nobody waits any more once patience has ended.
            let _ = seen.send(());
            pipe.read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        let is_late = enough.recv_timeout(PATIENCE).is_err();
        let ended = process.try_wait().map_err(Failure::io("look at the child"))?;
        process.kill().map_err(Failure::io("kill the child"))?;
        process.wait().map_err(Failure::io("wait for the child"))?;
        let read = reader.join().map_err(|_| Failure::Other("a thread died".into()))?;
        let bytes = read.map_err(Failure::io("read from the child"))?;
        if let Some(status) = ended {
            let text = format!("the child ended before it was killed: {status}");
            return Err(Failure::Other(text));
        }
        if is_late && bytes.len() < ACK_BYTES {
            let text = format!("the child acknowledged nothing within {PATIENCE:?}");
            return Err(Failure::Other(text));
        }
        Ok(bytes.chunks_exact(ACK_BYTES).map(Ack::decode).collect())
    }
}

//! Runs what may wait for the disk where it keeps no task waiting: on a blocking thread of tokio's
//! runtime, or, for tasks of another executor, on a thread of its own.

use crate::error::Error;
use crate::sync::thread;
use ::tokio::runtime::Handle;
use ::tokio::sync::oneshot;
use ::tokio::task::spawn_blocking;
use std::io;

/// Runs `work` elsewhere.
///
/// # Errors
/// What it returns, and that no thread is to be had, or that it panicked.
pub(crate) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let failed = |error| Error::Io { what: "run on a blocking thread".to_owned(), error };
    if Handle::try_current().is_ok() {
        return spawn_blocking(work).await.map_err(|error| failed(io::Error::other(error)))?;
    }
    let (reply, answer) = oneshot::channel();
    let run = move || {
        // Whoever asked may have gone away.
        reply.send(work()).ok();
    };
    thread::Builder::new().name("seawall-task".to_owned()).spawn(run).map_err(failed)?;
    answer.await.map_err(|_| failed(io::Error::other("it panicked")))?
}

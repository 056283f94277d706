//! Runs what may wait for the disk where it keeps no task waiting: on a blocking thread of tokio's
//! runtime, or, for tasks of another executor, on a thread of its own.

use crate::error::Error;
use crate::sync::{Mutex, MutexGuard, thread};
use ::tokio::runtime::Handle;
use ::tokio::task::spawn_blocking;
use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

/// Runs `work` elsewhere.
///
/// # Errors
/// What it returns, and that no thread is to be had.
pub(crate) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    if Handle::try_current().is_ok() {
        return spawn_blocking(work).await.map_err(|error| failed(io::Error::other(error)))?;
    }
    let shared = Arc::new(Shared::default());
    let theirs = shared.clone();
    let run = move || {
        let result = catch_unwind(AssertUnwindSafe(work));
        theirs.give(result.unwrap_or_else(|_| Err(failed(io::Error::other("it panicked")))));
    };
    thread::Builder::new().name("seawall-task".to_owned()).spawn(run).map_err(failed)?;
    poll_fn(|context| shared.poll(context)).await
}

fn failed(error: io::Error) -> Error {
    Error::Io { what: "run on a blocking thread".to_owned(), error }
}

/// What a thread has to say to a task, once it has.
struct Answer<T> {
    result: Option<Result<T, Error>>,
    waker: Option<Waker>,
}

/// Between the two.
struct Shared<T>(Mutex<Answer<T>>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(Mutex::new(Answer { result: None, waker: None }))
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Answer<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give(&self, result: Result<T, Error>) {
        let waker = {
            let mut answer = self.lock();
            answer.result = Some(result);
            answer.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn poll(&self, context: &Context<'_>) -> Poll<Result<T, Error>> {
        let mut answer = self.lock();
        if let Some(result) = answer.result.take() {
            return Poll::Ready(result);
        }
        answer.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

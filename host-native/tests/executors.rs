//! The log for tasks of an executor that is not tokio's.
#![cfg(not(shuttle))]

use seawall::{Lsn, Record, Wal, WalConfig};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The least that an executor can be.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(result) => return result,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn tasks_of_any_executor_use_the_log() {
    let temp = tempfile::tempdir().unwrap();
    let config = WalConfig { max_segment_size: 256 << 10, ..WalConfig::in_dir(temp.path()) };
    block_on(async {
        let (wal, _) = Wal::open(config.clone()).await.unwrap();
        for number in 0_u64..2_000 {
            let value = [7; 700];
            wal.append(&Record::put(&number.to_le_bytes(), &value)).await.unwrap();
        }
        wal.sync().await.unwrap();
        // Long reads, of several segments.
        let mut reader = wal.iter().await.unwrap();
        for number in 1..=2_000 {
            let (entry, _) = reader.next_record().await.unwrap().unwrap();
            assert_eq!(entry.lsn, Lsn::new(number));
        }
        reader.seek(Lsn::new(3)).await.unwrap();
        assert_eq!(reader.next_record().await.unwrap().unwrap().0.lsn, Lsn::new(3));
        assert!(wal.delete_segments_before(Lsn::new(1_000)).await.unwrap() > 0);
        wal.truncate_after(Lsn::new(1_999)).await.unwrap();
        // A failure arrives as well as a success.
        assert!(matches!(Wal::open(config).await, Err(seawall::Error::Locked { .. })));
        wal.close().await.unwrap();
    });
}

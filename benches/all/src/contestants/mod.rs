//! Who takes part.

#[cfg(feature = "component")]
mod component;
mod seawall;

#[cfg(feature = "peers")]
mod commitlog;
#[cfg(feature = "peers")]
mod nano_wal;
#[cfg(feature = "peers")]
mod okaywal;
#[cfg(feature = "peers")]
mod raft_engine;
#[cfg(feature = "peers")]
mod simple_wal;
#[cfg(feature = "peers")]
mod wal_db;
#[cfg(feature = "peers")]
mod walrus;

use crate::contestant::Contestant;

/// All built-in contestants, in the order of the table.
pub(crate) fn all() -> Vec<Box<dyn Contestant>> {
    vec![
        Box::new(seawall::Native::Plain),
        Box::new(seawall::Native::Mapped),
        Box::new(seawall::Native::Uring),
        Box::new(seawall::Native::Recycled),
        Box::new(seawall::Native::RecycledUring),
        #[cfg(feature = "component")]
        Box::new(component::Component::default()),
        #[cfg(feature = "peers")]
        Box::new(okaywal::Okaywal),
        #[cfg(feature = "peers")]
        Box::new(raft_engine::RaftEngine),
        #[cfg(feature = "peers")]
        Box::new(wal_db::WalDb),
        #[cfg(feature = "peers")]
        Box::new(walrus::Walrus { maps: false }),
        #[cfg(feature = "peers")]
        Box::new(walrus::Walrus { maps: true }),
        #[cfg(feature = "peers")]
        Box::new(nano_wal::NanoWal),
        #[cfg(feature = "peers")]
        Box::new(commitlog::CommitLog),
        #[cfg(feature = "peers")]
        Box::new(simple_wal::SimpleWal),
    ]
}

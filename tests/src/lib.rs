//! What the tests of several packages share: a simulated [disk], the [oracle], and the [world] in
//! which a log lives through crashes and faults that a seed decides.

#![expect(clippy::missing_panics_doc, reason = "what checks here does so by panicking")]

pub mod disk;
pub mod golden;
pub mod interpose;
pub mod oracle;
pub mod random;
pub mod records;
pub mod small;
pub mod world;

//! What the tests of several packages share: a simulated [disk], the [oracle], and the [world] in which
//! a log lives through crashes and faults that a seed decides.

pub mod disk;
pub mod interpose;
pub mod oracle;
pub mod random;
pub mod records;
pub mod world;

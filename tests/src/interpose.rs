//! Watching the calls that a log makes, and making them fail.

use seawall::{Call, Fault, FileId, Interpose, Operation};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};

/// The kernel's numbers for what goes wrong with disks.
pub const EIO: i32 = 5;
/// No space left on device.
pub const ENOSPC: i32 = 28;

/// What a rule does to the calls that it is for.
type Rule = Box<dyn FnMut(&Call) -> Option<Fault> + Send>;

/// Watches all calls and asks a rule about each.
#[derive(Default)]
pub struct Watch {
    calls: Mutex<Vec<Call>>,
    rule: Mutex<Option<Rule>>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Watch {
    /// From now on this rule decides.
    pub fn set(&self, rule: impl FnMut(&Call) -> Option<Fault> + Send + 'static) {
        *self.rule.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(rule));
    }

    /// From now on nothing fails.
    pub fn clear(&self) {
        *self.rule.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The files that were written to and not synced since.
    pub fn unsynced(&self) -> Vec<FileId> {
        let mut dirty = BTreeMap::new();
        for call in self.calls() {
            let Some(file) = call.file else { continue };
            match call.operation {
                Operation::Write => dirty.insert(file, !call.sync),
                Operation::Sync | Operation::Remove => dirty.insert(file, false),
                _ => None,
            };
        }
        dirty.into_iter().filter(|(_, is_dirty)| *is_dirty).map(|(file, _)| file).collect()
    }
}

impl Interpose for Watch {
    fn before(&self, call: &Call) -> Option<Fault> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(*call);
        let mut rule = self.rule.lock().unwrap_or_else(PoisonError::into_inner);
        rule.as_mut().and_then(|rule| rule(call))
    }
}

/// An error of the operating system.
pub fn os_error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

/// Whether a call writes frames to a segment.
pub fn writes_frames(call: &Call) -> bool {
    call.operation == Operation::Write
        && matches!(call.file, Some(FileId::Segment(_)))
        && call.offset > 0
}

//! Those who wait: a slot for each, and how it is woken.
//!
//! A slot keeps a failure until who waits comes for it. Threads that wait for their records sleep
//! at a **gate**, all who wait for one command at the same: one call wakes them, and if what they
//! waited for has come about, they take no lock to learn it. A waiter that goes away leaves a slot
//! of an older generation behind, which is passed over.

use crate::error::Error;
use crate::sync::{AtomicBool, Gate, Ordering, Thread, park_timeout, thread, thread_local};
use seawall_core::config::Level;
use seawall_core::error::{AppendError, RequestError};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

/// How a wait ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    Reached,
    Append(AppendError),
    Request(RequestError),
}

impl Outcome {
    pub(crate) fn into_result(self) -> Result<(), Error> {
        let error = match self {
            Self::Reached => return Ok(()),
            Self::Append(error) => Error::from_append(error),
            Self::Request(error) => Error::from_request(error),
        };
        error.map_or(Ok(()), Err)
    }
}

/// Where a thread sleeps that waits for something of its own.
#[derive(Debug)]
pub(crate) struct Parker {
    thread: Thread,
    is_told: AtomicBool,
}

thread_local! {
    static PARKER: Arc<Parker> = Arc::new(Parker::new());
}

impl Parker {
    fn new() -> Self {
        Self { thread: thread::current(), is_told: AtomicBool::new(false) }
    }

    /// The calling thread's. Nothing else may be waited for with it until [`Parker::park`] returns.
    fn of_this_thread() -> Arc<Self> {
        // A thread that is ending has none any more.
        let parker = PARKER.try_with(Arc::clone).unwrap_or_else(|_| Arc::new(Self::new()));
        parker.is_told.store(false, Ordering::Relaxed);
        parker
    }

    /// Sleeps until it is to look, or until the deadline: `false`.
    pub(crate) fn park(&self, deadline: Option<Instant>) -> bool {
        while !self.is_told.load(Ordering::Acquire) {
            match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => thread::park(),
                Some(left) if left.is_zero() => return false,
                Some(left) => park_timeout(left),
            }
            if cfg!(shuttle) && deadline.is_some() {
                return self.is_told.load(Ordering::Acquire);
            }
        }
        true
    }

    fn unpark(&self) {
        self.is_told.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Which gate: threads that wait for the same command sleep at the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct GateId(u8);

/// Two gates for each level: one for those whose records are on their way, one for those whose
/// records go with the next command. Who sleeps at the wrong one is woken once too often, no more.
#[derive(Debug, Default)]
pub(crate) struct Gates([Gate; 4]);

impl Gates {
    pub(crate) fn gate(&self, id: GateId) -> &Gate {
        &self.0[usize::from(id.0)]
    }

    fn open(&self, wanted: u8) {
        for (at, gate) in self.0.iter().enumerate() {
            if wanted & (1 << at) != 0 {
                gate.open();
            }
        }
    }
}

/// At which gate the next to wait for a level is to sleep.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Turns {
    written: u8,
    durable: u8,
}

impl Turns {
    pub(crate) fn gate(self, level: Level) -> GateId {
        GateId(if level == Level::Disk { 2 + self.durable } else { self.written })
    }

    /// A write or a sync has set out with all that wait so far.
    pub(crate) fn pass(&mut self, is_write: bool, is_sync: bool) {
        self.written ^= u8::from(is_write);
        self.durable ^= u8::from(is_sync);
    }
}

/// How one who waits is woken.
#[derive(Debug)]
enum Wake {
    Nobody,
    Gate(GateId),
    Thread(Arc<Parker>),
    Task(Waker),
}

/// What will wake nobody any more. To drop a waker may be to drop a task, with all that it holds.
#[derive(Debug)]
pub(crate) struct Unused(
    #[expect(dead_code, reason = "it is kept until the lock is released")] Wake,
);

/// All who are to be woken.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    gates: u8,
    threads: Vec<Arc<Parker>>,
    tasks: Vec<Waker>,
}

impl Wakes {
    fn add(&mut self, wake: Wake) {
        match wake {
            Wake::Nobody => {}
            Wake::Gate(id) => self.gates |= 1 << id.0,
            Wake::Thread(parker) => self.threads.push(parker),
            Wake::Task(waker) => self.tasks.push(waker),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.gates == 0 && self.threads.is_empty() && self.tasks.is_empty()
    }

    /// Wakes them. Wakers are code of the user's.
    pub(crate) fn wake(self, gates: &Gates) {
        gates.open(self.gates);
        for parker in self.threads {
            parker.unpark();
        }
        for waker in self.tasks {
            waker.wake();
        }
    }
}

/// A waiter's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SlotId {
    index: usize,
    generation: u64,
}

#[derive(Debug)]
struct Slot {
    generation: u64,
    wake: Wake,
    outcome: Option<Outcome>,
}

/// All slots.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    all: Vec<Slot>,
    free: Vec<usize>,
}

impl Slots {
    pub(crate) fn take(&mut self) -> SlotId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.all.push(Slot { generation: 0, wake: Wake::Nobody, outcome: None });
            self.all.len() - 1
        });
        SlotId { index, generation: self.all[index].generation }
    }

    fn get(&mut self, id: SlotId) -> Option<&mut Slot> {
        self.all.get_mut(id.index).filter(|slot| slot.generation == id.generation)
    }

    /// The outcome, if there is one; the slot is free then. Whoever has got what it waited for has
    /// lost its slot already.
    pub(crate) fn outcome(&mut self, id: SlotId) -> Option<Outcome> {
        let Some(slot) = self.get(id) else { return Some(Outcome::Reached) };
        if !matches!(slot.wake, Wake::Task(_)) {
            // The thread is awake: it is the one who asks.
            slot.wake = Wake::Nobody;
        }
        let outcome = slot.outcome?;
        // Whoever ended the wait has taken what wakes it.
        drop(self.release(id));
        Some(outcome)
    }

    /// Frees a slot. What would have woken its waiter is to be dropped without the lock.
    #[must_use = "it may be code of the user's"]
    pub(crate) fn release(&mut self, id: SlotId) -> Unused {
        let Some(slot) = self.get(id) else { return Unused(Wake::Nobody) };
        slot.generation += 1;
        slot.outcome = None;
        let wake = std::mem::replace(&mut slot.wake, Wake::Nobody);
        self.free.push(id.index);
        Unused(wake)
    }

    /// The slot, while its wait goes on.
    fn waiting(&mut self, id: SlotId) -> Option<&mut Slot> {
        self.get(id).filter(|slot| slot.outcome.is_none())
    }

    /// Whether it has no outcome yet.
    pub(crate) fn is_waiting(&mut self, id: SlotId) -> bool {
        self.waiting(id).is_some()
    }

    /// Makes room for one more in a queue of waiters: before it grows, those who gave up leave it.
    /// What they waited for may be long in coming.
    pub(crate) fn make_room<T>(&mut self, queue: &mut VecDeque<T>, slot: impl Fn(&T) -> SlotId) {
        if queue.len() < queue.capacity() {
            return;
        }
        queue.retain(|waiter| self.is_waiting(slot(waiter)));
        // Where most still wait, not to be back here with the next.
        queue.reserve(queue.len().max(1));
    }

    /// The calling thread, which has no outcome yet, is about to sleep at a gate.
    pub(crate) fn wake_at(&mut self, id: SlotId, gate: GateId) {
        drop(self.set_wake(id, Wake::Gate(gate)));
    }

    /// The calling thread, which has no outcome yet, is about to park.
    pub(crate) fn wake_thread(&mut self, id: SlotId) -> Arc<Parker> {
        let parker = Parker::of_this_thread();
        drop(self.set_wake(id, Wake::Thread(parker.clone())));
        parker
    }

    /// A task, which has no outcome yet, is about to wait. The waker that it had before is to be
    /// dropped without the lock.
    #[must_use = "it may be code of the user's"]
    pub(crate) fn wake_task(&mut self, id: SlotId, waker: Waker) -> Unused {
        self.set_wake(id, Wake::Task(waker))
    }

    fn set_wake(&mut self, id: SlotId, wake: Wake) -> Unused {
        match self.waiting(id) {
            Some(slot) => Unused(std::mem::replace(&mut slot.wake, wake)),
            None => Unused(wake),
        }
    }

    /// Ends a wait. Who waited is told once the lock is released.
    pub(crate) fn finish(&mut self, id: SlotId, outcome: Outcome, wakes: &mut Wakes) {
        let Some(slot) = self.get(id) else { return };
        wakes.add(std::mem::replace(&mut slot.wake, Wake::Nobody));
        match outcome {
            // Many see by the log's watermarks that they are done, and need not come for it.
            Outcome::Reached => drop(self.release(id)),
            outcome => slot.outcome = Some(outcome),
        }
    }

    /// Has a thread that sleeps look at the log, to run what is due. `false`: it is none.
    pub(crate) fn has_lead(&mut self, id: SlotId, wakes: &mut Wakes) -> bool {
        match self.waiting(id).map(|slot| &slot.wake) {
            Some(Wake::Gate(gate)) => wakes.add(Wake::Gate(*gate)),
            Some(Wake::Thread(parker)) => wakes.add(Wake::Thread(parker.clone())),
            _ => return false,
        }
        true
    }
}

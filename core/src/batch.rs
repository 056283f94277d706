//! The buffers that frames are encoded into, and their way to the disk and back.
//!
//! ```text
//! free ──► filling ──► queued ──► on its way (in a Write) ──► free
//! ```
//!
//! A batch is one contiguous piece of memory and becomes one write.

use crate::id::{Lsn, SegmentId};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// The host's memory for batches and reads: a vector that the host may align as its I/O needs.
pub trait Buffer: AsRef<[u8]> + AsMut<[u8]> {
    /// Appends `bytes`.
    fn extend(&mut self, bytes: &[u8]);
    /// Makes it `length` bytes long; bytes that are new are zero.
    fn resize(&mut self, length: usize);
    /// Makes it empty and gives memory over `keep_bytes` back.
    fn reset(&mut self, keep_bytes: usize);
}

impl Buffer for Vec<u8> {
    #[inline]
    fn extend(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    #[inline]
    fn resize(&mut self, length: usize) {
        Self::resize(self, length, 0);
    }

    #[inline]
    fn reset(&mut self, keep_bytes: usize) {
        self.clear();
        self.shrink_to(keep_bytes);
    }
}

/// One batch: whole frames that follow each other in one segment.
#[derive(Debug)]
pub(crate) struct Batch<B> {
    pub(crate) buffer: B,
    pub(crate) segment: SegmentId,
    /// Where in the segment its first byte goes.
    pub(crate) offset: u64,
    /// The last record before it.
    pub(crate) before: Lsn,
    /// The last record in it; equal to `before` when it holds no record.
    pub(crate) last: Lsn,
}

impl<B: Buffer> Batch<B> {
    pub(crate) fn bytes(&self) -> u64 {
        self.buffer.as_ref().len() as u64
    }

    pub(crate) fn end(&self) -> u64 {
        self.offset + self.bytes()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.as_ref().is_empty()
    }
}

/// All batches that are not on their way.
#[derive(Debug)]
pub(crate) struct Batches<B> {
    free: Vec<B>,
    pub(crate) filling: Option<Batch<B>>,
    pub(crate) queued: VecDeque<Batch<B>>,
    keep_bytes: usize,
}

impl<B: Buffer> Batches<B> {
    pub(crate) fn new(buffers: Vec<B>, keep_bytes: usize) -> Self {
        let queued = VecDeque::with_capacity(buffers.len());
        Self { free: buffers, filling: None, queued, keep_bytes }
    }

    pub(crate) fn take_free(&mut self) -> Option<B> {
        self.free.pop()
    }

    pub(crate) fn give_back(&mut self, mut buffer: B) {
        buffer.reset(self.keep_bytes);
        self.free.push(buffer);
    }

    pub(crate) fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    pub(crate) fn has_two_free(&self) -> bool {
        self.free.len() >= 2
    }

    /// Whether nothing is being filled or waits to set out.
    pub(crate) fn are_idle(&self) -> bool {
        self.filling.is_none() && self.queued.is_empty()
    }

    /// Ends the batch being filled, so that the next frame begins another.
    pub(crate) fn seal_filling(&mut self) {
        if let Some(batch) = self.filling.take() {
            self.queued.push_back(batch);
        }
    }

    /// Takes back every batch that has not set out.
    pub(crate) fn discard_unsent(&mut self) {
        self.seal_filling();
        while let Some(batch) = self.queued.pop_front() {
            self.give_back(batch.buffer);
        }
    }
}

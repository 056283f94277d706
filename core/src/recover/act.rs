//! Carrying a verdict out, one command at a time.

use super::{Recovery, Stage};
use crate::batch::Buffer;
use crate::command::{
    Command, Create, Data, Folder, Operation, Read, Remove, Rename, Sync, SyncDir, Truncate, Write,
};
use crate::id::SegmentId;
use crate::wire::manifest::{MANIFEST_BYTES, Manifest, SLOT_STRIDE};
use crate::wire::name::{FileId, FileName};
use alloc::collections::VecDeque;

/// One thing to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Act {
    /// Make a manifest where there is none.
    CreateManifest,
    /// Reserve the manifest's second slot.
    WidenManifest,
    /// Write the manifest's slot, durably, under this name.
    WriteManifest(Manifest, FileName),
    /// Copy bytes of a segment to a file in quarantine.
    Copy {
        /// The segment.
        from: SegmentId,
        /// The first byte.
        start: u64,
        /// The byte past the last.
        end: u64,
        /// The file.
        to: FileName,
    },
    /// Make an empty file.
    Create(FileName),
    /// Make a file's content durable.
    Sync(FileName),
    /// Make a folder's names durable.
    SyncDir(Folder),
    /// Give a file another name.
    Rename(FileName, FileName),
    /// Cut a segment.
    Truncate(SegmentId, u64),
    /// Remove a file.
    Remove(FileName),
}

/// What is still to be done.
#[derive(Debug)]
pub(super) struct Acts<B> {
    left: VecDeque<Act>,
    /// How much of the first, if it is a copy, has been copied.
    copied: u64,
    /// Its file ended early, and so does the copy.
    has_ended: bool,
    /// Bytes that have been read and are to be written to a copy.
    read: Option<B>,
}

impl<B: Buffer> Acts<B> {
    pub(super) fn new(acts: alloc::vec::Vec<Act>) -> Self {
        Self { left: acts.into(), copied: 0, has_ended: false, read: None }
    }

    /// Takes bytes that are to be copied.
    pub(super) fn have_read(&mut self, mut buffer: B, bytes: usize) {
        self.has_ended = bytes < buffer.as_ref().len();
        buffer.resize(bytes);
        self.read = Some(buffer);
    }

    fn end_first(&mut self) {
        self.left.pop_front();
        self.copied = 0;
        self.has_ended = false;
    }
}

impl<B: Buffer> Recovery<B> {
    /// Begins to carry out what was decided.
    pub(super) fn begin_acts(&mut self, acts: alloc::vec::Vec<Act>) {
        self.acts = Acts::new(acts);
        self.go_on();
    }

    fn go_on(&mut self) {
        self.stage = if self.acts.left.is_empty() { Stage::Done } else { Stage::Act };
    }

    pub(super) fn poll_act(&mut self) -> Option<Command<B>> {
        let act = self.acts.left.front().copied()?;
        let command = match act {
            Act::Copy { from, start, end, to } => return self.poll_copy(from, start, end, to),
            Act::CreateManifest => {
                let name = FileId::Manifest.new_name();
                Command::Create(Create { id: self.issue(Operation::Create, Some(name)), name })
            }
            Act::WidenManifest => {
                let name = FileId::Manifest.new_name();
                let id = self.issue(Operation::Write, Some(name));
                // The last byte of the file: both pages are there before the first change.
                let (data, offset) = (Data::small(&[0]), MANIFEST_BYTES - 1);
                Command::Write(Write { id, name, offset, data, sync: false })
            }
            Act::WriteManifest(manifest, name) => {
                let id = self.issue(Operation::Write, Some(name));
                let data = Data::small(&manifest.encode(self.config.crc));
                let offset = manifest.slot_offset();
                debug_assert!(offset <= SLOT_STRIDE);
                Command::Write(Write { id, name, offset, data, sync: true })
            }
            Act::Create(name) => {
                Command::Create(Create { id: self.issue(Operation::Create, Some(name)), name })
            }
            Act::Sync(name) => {
                Command::Sync(Sync { id: self.issue(Operation::Sync, Some(name)), name })
            }
            Act::SyncDir(folder) => {
                Command::SyncDir(SyncDir { id: self.issue(Operation::SyncDir, None), folder })
            }
            Act::Rename(from, to) => {
                let id = self.issue(Operation::Rename, Some(from));
                Command::Rename(Rename { id, from, to })
            }
            Act::Truncate(segment, bytes) => {
                let name = FileId::Segment(segment).name();
                let id = self.issue(Operation::Truncate, Some(name));
                Command::Truncate(Truncate { id, name, bytes })
            }
            Act::Remove(name) => {
                Command::Remove(Remove { id: self.issue(Operation::Remove, Some(name)), name })
            }
        };
        Some(command)
    }

    /// Reads and writes in turn until all is copied.
    fn poll_copy(
        &mut self,
        from: SegmentId,
        start: u64,
        end: u64,
        to: FileName,
    ) -> Option<Command<B>> {
        let at = start + self.acts.copied;
        if let Some(buffer) = self.acts.read.take() {
            self.acts.copied += buffer.as_ref().len() as u64;
            let origin = match to.file {
                FileId::Quarantined(quarantined) => quarantined.offset.unwrap_or(0),
                FileId::Manifest | FileId::Segment(_) => 0,
            };
            let id = self.issue(Operation::Write, Some(to));
            let (data, offset) = (Data::Buffer(buffer), at - origin);
            return Some(Command::Write(Write { id, name: to, offset, data, sync: false }));
        }
        if at >= end || self.acts.has_ended {
            self.acts.end_first();
            self.go_on();
            return self.poll_act();
        }
        let mut buffer = self.buffers.pop()?;
        let bytes = (end - at).min(self.config.batch_bytes);
        buffer.resize(usize::try_from(bytes).unwrap_or(0));
        let name = FileId::Segment(from).name();
        let id = self.issue(Operation::Read, Some(name));
        Some(Command::Read(Read { id, name, offset: at, buffer }))
    }

    /// An act's command has been done.
    pub(super) fn acted(&mut self, data: Option<Data<B>>) {
        let is_copying = matches!(self.acts.left.front(), Some(Act::Copy { .. }));
        if !is_copying {
            self.acts.end_first();
        }
        if let Some(Data::Buffer(buffer)) = data {
            self.buffers.push(buffer);
        }
        self.go_on();
    }
}

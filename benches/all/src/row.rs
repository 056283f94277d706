//! The rows: which work is measured, what it needs, and what Seawall has set itself.

use crate::contestant::{Ability, Segments, Setup};
use crate::measure::Scale;
use seawall::Level;

/// How values are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Pack {
    /// As they are.
    #[default]
    Plain,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Work {
    /// One thread appends records, one by one.
    Append { bytes: usize, level: Level },
    /// One task appends records, one by one, to the kernel.
    AppendTask { bytes: usize },
    /// One thread appends records that compress well.
    AppendText { bytes: usize, pack: Pack },
    /// One thread appends batches.
    Batch { records: usize, bytes: usize, level: Level },
    /// One thread appends batches to the device, and deletes what is older than a few segments.
    Deleting { records: usize, bytes: usize },
    /// One thread appends records to the kernel, at a pace, and now and then one to the device,
    /// which is what is measured.
    Behind { bytes: usize },
    /// Threads append, each waiting for the device.
    Threads { bytes: usize, count: usize },
    /// Tasks append, each waiting for the device.
    Tasks { bytes: usize, count: usize },
    /// A log that a process left without closing is opened.
    OpenCrashed(Left),
    /// A closed log is opened.
    OpenSealed { segments: u64 },
    /// All records are read.
    ReadAll,
    /// Single records are read, in random order, of a log in so many segments.
    Seek { segments: u64 },
}

/// How the process left it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Left {
    /// Full, written record by record.
    Records,
    /// Full, written in batches.
    Batches,
    /// With little in it, and the rest of its segment reserved.
    Little,
}

/// A kind of work, with its names.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Row {
    /// For `--only` and for programs.
    pub(crate) id: String,
    /// For people.
    pub(crate) title: String,
    pub(crate) work: Work,
    /// The part of the floor's speed that Seawall has set itself.
    pub(crate) reach: Option<f64>,
}

impl Work {
    /// What a log must be able to do.
    pub(crate) fn needs(self) -> Vec<Ability> {
        let of_level = |level| match level {
            Level::Buffered => Ability::Buffered,
            Level::Os => Ability::Os,
            Level::Disk => Ability::Disk,
        };
        match self {
            Self::Append { level, .. } => vec![of_level(level)],
            Self::AppendTask { .. } | Self::AppendText { pack: Pack::Plain, .. } => {
                vec![Ability::Os]
            }
            Self::AppendText { .. } => vec![Ability::Os, Ability::Compress],
            Self::Batch { level, .. } => vec![of_level(level), Ability::Batch],
            Self::Deleting { .. } => vec![Ability::Delete],
            Self::Behind { .. } => vec![Ability::Mixed],
            Self::Threads { .. } | Self::Tasks { .. } => vec![Ability::Disk],
            Self::OpenCrashed(Left::Batches) => vec![Ability::Reopen, Ability::Batch],
            // Synced one by one, a million records take minutes.
            Self::OpenCrashed(_) => vec![Ability::Reopen, Ability::Os],
            Self::OpenSealed { .. } => vec![Ability::Reopen, Ability::Segments, Ability::Os],
            Self::ReadAll => vec![Ability::Reopen, Ability::Read, Ability::Os],
            Self::Seek { segments: 1 } => vec![Ability::Reopen, Ability::Seek, Ability::Os],
            Self::Seek { .. } => {
                vec![Ability::Reopen, Ability::Seek, Ability::Segments, Ability::Os]
            }
        }
    }

    /// How long a record is.
    pub(crate) fn record_bytes(self) -> usize {
        match self {
            Self::Append { bytes, .. }
            | Self::AppendTask { bytes }
            | Self::AppendText { bytes, .. }
            | Self::Batch { bytes, .. }
            | Self::Deleting { bytes, .. }
            | Self::Behind { bytes }
            | Self::Threads { bytes, .. }
            | Self::Tasks { bytes, .. } => bytes,
            Self::OpenCrashed(_) | Self::OpenSealed { .. } | Self::ReadAll | Self::Seek { .. } => {
                1 << 10
            }
        }
    }

    /// Whether a log is written first, once, and then measured in every round.
    pub(crate) fn is_prepared(self) -> bool {
        matches!(
            self,
            Self::OpenCrashed(_) | Self::OpenSealed { .. } | Self::ReadAll | Self::Seek { .. }
        )
    }

    /// Whether what counts is how long it takes as a whole.
    pub(crate) fn is_opening(self) -> bool {
        matches!(self, Self::OpenCrashed(_) | Self::OpenSealed { .. })
    }

    /// What its appends ask for.
    pub(crate) fn level(self) -> Level {
        match self {
            Self::Append { level, .. } | Self::Batch { level, .. } => level,
            Self::Deleting { .. } | Self::Threads { .. } | Self::Tasks { .. } => Level::Disk,
            _ => Level::Os,
        }
    }

    /// How a log is opened for it.
    pub(crate) fn setup(self, reads: bool, scale: &Scale) -> Setup {
        Setup {
            writers: match self {
                Self::Threads { count, .. } | Self::Tasks { count, .. } => count,
                _ => 1,
            },
            segments: match self {
                Self::OpenCrashed(Left::Little) => Segments::Default,
                Self::OpenCrashed(_) => Segments::One(scale.crashed_bytes),
                Self::OpenSealed { .. } => Segments::Bytes(SEALED_SEGMENT_BYTES),
                Self::Deleting { .. } => Segments::Bytes(DELETED_SEGMENT_BYTES),
                Self::Seek { segments: segments @ 2.. } => {
                    Segments::Bytes(scale.read_bytes / segments)
                }
                _ => Segments::Default,
            },
            pack: match self {
                Self::AppendText { pack, .. } => pack,
                _ => Pack::Plain,
            },
            tasks: matches!(self, Self::AppendTask { .. } | Self::Tasks { .. }),
            level: self.level(),
            deletes: matches!(self, Self::Deleting { .. }),
            reads,
        }
    }
}

/// Segments of the row that deletes.
pub(crate) const DELETED_SEGMENT_BYTES: u64 = 16 << 20;
/// Segments of the rows about opening many.
pub(crate) const SEALED_SEGMENT_BYTES: u64 = 1 << 20;

fn name_of(bytes: usize) -> String {
    if bytes < 1 << 10 { format!("{bytes} B") } else { format!("{} KiB", bytes >> 10) }
}

/// All rows, in the order of the table.
pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |id: String, title: String, work, reach| {
        rows.push(Row { id, title, work, reach });
    };
    for (level, word) in [(Level::Buffered, "buffered"), (Level::Os, "os")] {
        for bytes in [128, 1 << 10, 16 << 10] {
            let reach = (level == Level::Os && bytes <= 1 << 10).then_some(1.2);
            let title = format!("append {}, 1 thread, to {level:?}", name_of(bytes));
            add(format!("append-{bytes}-{word}"), title, Work::Append { bytes, level }, reach);
        }
    }
    add(
        "append-task".into(),
        "append 128 B, 1 task, to Os".into(),
        Work::AppendTask { bytes: 128 },
        None,
    );
    for (level, bytes, reach) in [(Level::Disk, 1 << 10, Some(0.8)), (Level::Buffered, 128, None)] {
        let title = format!("batches of 1,000 x {}, each to {level:?}", name_of(bytes));
        let id = format!("batch-{}", if reach.is_some() { "disk" } else { "buffered" });
        add(id, title, Work::Batch { records: 1_000, bytes, level }, reach);
    }
    let work = Work::Deleting { records: 1_000, bytes: 1 << 10 };
    let title = "batches of 1,000 x 1 KiB, each to Disk, older segments deleted";
    add("batch-deleting".into(), title.into(), work, Some(0.8));
    let title = "durable append 1 KiB, behind 10 MB in 0.1 s to Os";
    add("durable-behind".into(), title.into(), Work::Behind { bytes: 1 << 10 }, None);
    for bytes in [1 << 10, 128] {
        for count in [1, 2, 8, 64, 256] {
            let reach = match count {
                1 => Some(0.95),
                2 => None,
                _ => Some(0.5),
            };
            let title = format!("durable append {}, threads: {count}", name_of(bytes));
            add(format!("durable-{bytes}-{count}"), title, Work::Threads { bytes, count }, reach);
        }
    }
    for count in [1, 64, 256, 1_000] {
        let reach = (count > 1).then_some(0.8);
        let title = format!("durable append 1 KiB, tasks: {count}");
        add(format!("tasks-{count}"), title, Work::Tasks { bytes: 1 << 10, count }, reach);
    }
    for (left, id, words) in [
        (Left::Records, "records", "written record by record"),
        (Left::Batches, "batches", "written in batches of 500"),
        (Left::Little, "little", "1 MiB in a new segment"),
    ] {
        let title = format!("open after a crash, {words}");
        add(format!("open-crashed-{id}"), title, Work::OpenCrashed(left), Some(0.9));
    }
    for segments in [2, 100] {
        let title = format!("open, sealed segments: {segments}");
        add(format!("open-sealed-{segments}"), title, Work::OpenSealed { segments }, None);
    }
    add("read-all".into(), "read all, 1 KiB records".into(), Work::ReadAll, Some(1.0));
    for segments in [1, 24] {
        let among = if segments > 1 { format!(", {segments} segments") } else { String::new() };
        let id = if segments > 1 { format!("seek-{segments}") } else { "seek".to_owned() };
        add(id, format!("read one record by its number{among}"), Work::Seek { segments }, None);
    }
    for (pack, word) in [(Pack::Plain, "plain"), (Pack::Lz4, "lz4"), (Pack::Zstd, "zstd")] {
        let title = format!("append 4 KiB of text, {word}, 1 thread, to Os");
        add(format!("text-{word}"), title, Work::AppendText { bytes: 4 << 10, pack }, None);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ids_are_unique() {
        let rows = rows();
        let ids: BTreeSet<_> = rows.iter().map(|row| &row.id).collect();
        assert_eq!(ids.len(), rows.len());
    }
}

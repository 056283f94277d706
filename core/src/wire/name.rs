//! File names: what the log calls its files, and what a name found in the folder means.
//!
//! ```text
//! MANIFEST                                         the log's small facts, two slots
//! 00000000000000000007.wal                         a segment
//! 00000000000000000008.wal.new                     a segment not ready yet
//! quarantine/000001-00000000000000000007-4711.cut  bytes that recovery cut from segment 7 at 4711
//! quarantine/000001-00000000000000000008.wal       a whole segment that recovery took out
//! ```

use crate::id::SegmentId;
use core::fmt;

/// The folder, inside the log's, that recovery moves damaged bytes to.
pub const QUARANTINE: &str = "quarantine";

/// The file in which a host may keep what it has found of sealed segments. It is no part of the
/// log.
pub const CATALOG: &str = "CATALOG";

/// A file of the log, whatever it is called at the moment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FileId {
    /// The manifest.
    Manifest,
    /// A segment.
    Segment(SegmentId),
    /// Something in quarantine.
    Quarantined(Quarantined),
}

/// A file in quarantine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Quarantined {
    /// Counts the recoveries that have put something there, so that no name comes twice.
    pub generation: u64,
    /// The segment that the bytes are from.
    pub segment: SegmentId,
    /// Where in that segment they began; `None` when the file is the whole segment.
    pub offset: Option<u64>,
}

/// The name of a file: final, or the one it has until it is ready.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileName {
    /// The file.
    pub file: FileId,
    /// Whether it still has its `.new` name.
    pub is_new: bool,
}

impl FileId {
    /// Its final name.
    pub const fn name(self) -> FileName {
        FileName { file: self, is_new: false }
    }

    /// The name it has until it is ready.
    pub const fn new_name(self) -> FileName {
        FileName { file: self, is_new: true }
    }
}

impl FileName {
    /// What a name in the log's folder (`quarantined` false) or in `quarantine/` means, if
    /// anything.
    pub fn parse(name: &str, quarantined: bool) -> Option<Self> {
        let (stem, is_new) = match name.strip_suffix(".new") {
            Some(stem) => (stem, true),
            None => (name, false),
        };
        let file = if quarantined {
            FileId::Quarantined(parse_quarantined(stem)?)
        } else if stem == "MANIFEST" {
            FileId::Manifest
        } else {
            FileId::Segment(SegmentId::new(number(stem.strip_suffix(".wal")?, 20)?))
        };
        Some(Self { file, is_new })
    }

    /// Whether it is the final name of a segment.
    pub const fn is_segment(self) -> bool {
        matches!(self.file, FileId::Segment(_)) && !self.is_new
    }
}

fn parse_quarantined(stem: &str) -> Option<Quarantined> {
    let (generation, rest) = stem.split_once('-')?;
    let generation = number(generation, 6)?;
    if let Some(segment) = rest.strip_suffix(".wal") {
        let segment = SegmentId::new(number(segment, 20)?);
        return Some(Quarantined { generation, segment, offset: None });
    }
    let (segment, offset) = rest.strip_suffix(".cut")?.split_once('-')?;
    let segment = SegmentId::new(number(segment, 20)?);
    Some(Quarantined { generation, segment, offset: Some(number(offset, 1)?) })
}

/// A decimal number of at least `digits` digits, with no zeros in front beyond them.
fn number(text: &str, digits: usize) -> Option<u64> {
    let is_shortest = text.len() == digits || (text.len() > digits && !text.starts_with('0'));
    let add = |value: u64, byte: u8| {
        let digit = char::from(byte).to_digit(10)?;
        value.checked_mul(10)?.checked_add(digit.into())
    };
    if is_shortest { text.bytes().try_fold(0, add) } else { None }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.file {
            FileId::Manifest => f.write_str("MANIFEST")?,
            FileId::Segment(segment) => write!(f, "{:020}.wal", segment.get())?,
            FileId::Quarantined(Quarantined { generation, segment, offset }) => {
                write!(f, "{QUARANTINE}/{generation:06}-{:020}", segment.get())?;
                match offset {
                    Some(offset) => write!(f, "-{offset}.cut")?,
                    None => f.write_str(".wal")?,
                }
            }
        }
        if self.is_new { f.write_str(".new") } else { Ok(()) }
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn names_round_trip_and_strays_are_strays() {
        let segment = SegmentId::new(7);
        let files = [
            FileId::Manifest,
            FileId::Segment(segment),
            FileId::Segment(SegmentId::new(u64::MAX)),
            FileId::Quarantined(Quarantined { generation: 1, segment, offset: None }),
            FileId::Quarantined(Quarantined { generation: 1_234_567, segment, offset: Some(0) }),
        ];
        for file in files {
            for name in [file.name(), file.new_name()] {
                let text = name.to_string();
                let inside = text.strip_prefix("quarantine/");
                assert_eq!(FileName::parse(inside.unwrap_or(&text), inside.is_some()), Some(name));
            }
        }
        for stray in [
            "",
            "7.wal",
            "notes.txt",
            "MANIFEST.old",
            "00000000000000000007.wal.new.new",
            "+0000000000000000007.wal",
            "99999999999999999999.wal",
            "LOCK",
            CATALOG,
        ] {
            assert_eq!(FileName::parse(stray, false), None, "{stray}");
        }
    }
}

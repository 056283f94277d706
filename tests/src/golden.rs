//! What a golden log must yield: `records.txt` beside its files, a line for each record.

use seawall::{Entry, RecordKind};
use std::fmt::Write as _;
use std::io;
use std::path::Path;

/// The records as lines of LSN, kind, key and value in hexadecimal, time of writing and TTL.
pub fn expected(entries: &[Entry]) -> String {
    let mut text = String::new();
    for entry in entries {
        let kind = if entry.kind == RecordKind::Put { "put" } else { "delete" };
        let times = match (entry.written_at, entry.ttl) {
            (Some(written_at), Some(ttl)) => {
                format!("{} {}", written_at.as_millis(), ttl.as_millis())
            }
            _ => "-".to_owned(),
        };
        let (key, value) = (hex(&entry.key), hex(&entry.value));
        writeln!(text, "{} {kind} {key} {value} {times}", entry.lsn).expect("memory is writable");
    }
    text
}

/// Bytes in hexadecimal; `-` for none.
fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "-".to_owned();
    }
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("memory is writable");
        text
    })
}

/// Writes `records.txt` into a folder.
///
/// # Errors
/// When it cannot be written.
pub fn write_expected(dir: &Path, entries: &[Entry]) -> io::Result<()> {
    std::fs::write(dir.join("records.txt"), expected(entries))
}

/// Copies the files of a folder, the manifest first: it may not speak of what came later.
///
/// # Errors
/// When a file cannot be copied.
pub fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    let mut names: Vec<_> = std::fs::read_dir(from)?
        .filter_map(|entry| entry.ok().map(|entry| entry.file_name()))
        .collect();
    names.sort();
    for name in names.iter().rev() {
        let path = from.join(name);
        if path.is_file() {
            std::fs::copy(path, to.join(name))?;
        }
    }
    Ok(())
}

//! A planted bug: a file of data.
//!
//! ```text
//!   what: Acknowledges before the sync, as logs do that trust the page cache.
//!   breaks: 1, 7
//!
//!   --- file core/src/log/commit.rs
//!   --- find
//!           let wanted = 1;
//!   --- put
//!           let wanted = 0;
//!   --- end
//! ```
//!
//! The text to find must stand in the file exactly once. A bug may have several edits, of one file
//! or more. The numbers are those of the invariants listed in docs/PROOF.md.

use std::collections::BTreeMap;
use std::path::Path;

/// A bug.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bug {
    pub(super) name: String,
    /// What it is, in one line.
    pub(super) what: String,
    /// The invariants that it breaks.
    breaks: Vec<u8>,
    edits: Vec<Edit>,
}

#[derive(Debug, PartialEq, Eq, Default)]
struct Edit {
    file: String,
    find: String,
    put: String,
}

/// There are no more invariants.
pub(super) const INVARIANT_LAST: u8 = 21;

/// All bugs, by name.
pub(super) fn all(root: &Path) -> Result<Vec<Bug>, String> {
    let folder = root.join("tests/kills");
    let failed = |error| format!("{}: {error}", folder.display());
    let mut bugs = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).map_err(failed)?;
        bugs.push(
            Bug::parse(&name, &text).map_err(|why| format!("tests/kills/{name}.txt: {why}"))?,
        );
    }
    bugs.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(bugs)
}

impl Bug {
    fn parse(name: &str, text: &str) -> Result<Self, String> {
        let (mut what, mut breaks, mut edits) = (String::new(), Vec::new(), Vec::new());
        let mut file = String::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(rest) = line.strip_prefix("what: ") {
                what = rest.trim().to_string();
            } else if let Some(rest) = line.strip_prefix("breaks: ") {
                for number in rest.split(',') {
                    let number = number.trim().parse().ok();
                    let number = number.filter(|number| (1..=INVARIANT_LAST).contains(number));
                    breaks.push(number.ok_or_else(|| format!("`{rest}`: no such invariant"))?);
                }
            } else if let Some(rest) = line.strip_prefix("--- file ") {
                file = rest.trim().to_string();
            } else if line == "--- find" {
                let find = until(&mut lines, "--- put")?;
                let put = until(&mut lines, "--- end")?;
                edits.push(Edit { file: file.clone(), find, put });
            } else if !line.trim().is_empty() {
                return Err(format!("`{line}` means nothing"));
            }
        }
        if what.is_empty() || what.contains('|') || breaks.is_empty() || edits.is_empty() {
            return Err("needs `what: ` without a bar, `breaks: ` and an edit".to_string());
        }
        Ok(Self { name: name.to_string(), what, breaks, edits })
    }

    /// The numbers of the invariants that it breaks.
    pub(super) fn breaks(&self) -> String {
        self.breaks.iter().map(u8::to_string).collect::<Vec<_>>().join(", ")
    }

    /// The files with the bug in them, by path.
    pub(super) fn planted(&self, root: &Path) -> Result<BTreeMap<String, String>, String> {
        let mut files: BTreeMap<String, String> = BTreeMap::new();
        for Edit { file, find, put } in &self.edits {
            let text = match files.remove(file) {
                Some(text) => text,
                None => std::fs::read_to_string(root.join(file))
                    .map_err(|error| format!("{}: {file}: {error}", self.name))?,
            };
            let found = text.matches(find.as_str()).count();
            if found != 1 || find.trim().is_empty() || find == put {
                return Err(format!(
                    "{}: the text to find stands in {file} {found} times, not once, or is not \
                     changed: rewrite tests/kills/{}.txt",
                    self.name, self.name
                ));
            }
            files.insert(file.clone(), text.replacen(find.as_str(), put, 1));
        }
        Ok(files)
    }
}

/// The lines up to one that ends them.
fn until<'a>(lines: &mut impl Iterator<Item = &'a str>, end: &str) -> Result<String, String> {
    let mut text = Vec::new();
    for line in lines {
        if line == end {
            return Ok(text.join("\n"));
        }
        text.push(line);
    }
    Err(format!("no `{end}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "what: It is wrong.\nbreaks: 1, 21\n\n--- file a.rs\n--- find\n  one\n\n\
                        two\n--- put\n--- end\n--- find\nx\n--- put\ny\n--- end\n";

    #[test]
    fn a_bug_is_read() {
        let bug = Bug::parse("name", TEXT).unwrap();
        assert_eq!((bug.what.as_str(), bug.breaks().as_str()), ("It is wrong.", "1, 21"));
        assert_eq!(bug.edits[0].find, "  one\n\ntwo");
        assert_eq!(bug.edits[0].put, "");
        assert_eq!((bug.edits[1].file.as_str(), bug.edits[1].put.as_str()), ("a.rs", "y"));
        for broken in
            [TEXT.replace("21", "22"), TEXT.replace("what", "why"), TEXT.replace("--- end", "")]
        {
            assert!(Bug::parse("name", &broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn every_bug_can_be_planted() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let bugs = all(root).unwrap();
        assert!(bugs.len() >= 36, "{} bugs", bugs.len());
        for bug in bugs {
            assert!(!bug.planted(root).unwrap().is_empty());
        }
        let twice = TEXT.replace("a.rs", "xtask/src/kills/bug.rs");
        assert!(Bug::parse("name", &twice).unwrap().planted(root).is_err());
    }
}

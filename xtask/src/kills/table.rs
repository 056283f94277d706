//! The table in docs/PROOF.md: a row for each bug, a column for each layer.

use super::bug::Bug;
use super::layers::{LAYERS, Layer};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const PAGE: &str = "docs/PROOF.md";
const BEGIN: &str = "<!-- kills: begin -->";
const END: &str = "<!-- kills: end -->";

/// What a layer did with a bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Caught,
    Hangs,
    Missed,
    /// The layer came after the row was made.
    Untried,
}

impl Mark {
    const fn text(self) -> &'static str {
        match self {
            Self::Caught => "x",
            Self::Hangs => "t",
            Self::Missed => "-",
            Self::Untried => "?",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let all = [Self::Caught, Self::Hangs, Self::Missed, Self::Untried];
        all.into_iter().find(|mark| mark.text() == text)
    }
}

/// What became of one bug.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) bug: String,
    pub(super) what: String,
    pub(super) breaks: String,
    pub(super) marks: Vec<Mark>,
    /// The first test that failed, in the cheapest layer.
    pub(super) test: String,
}

impl Row {
    pub(super) fn is_caught(&self) -> bool {
        self.marks.iter().any(|mark| matches!(mark, Mark::Caught | Mark::Hangs))
    }

    /// Whether the test that is named is there, or none is because nothing failed.
    fn is_by_one_of(&self, functions: &BTreeSet<String>) -> bool {
        let name = self.test.rsplit("::").next().unwrap_or_default();
        match name {
            "" => !self.marks.contains(&Mark::Caught),
            name => functions.contains(name) || self.test.starts_with("the program: "),
        }
    }

    /// The layers that have not been tried, by their numbers.
    pub(super) fn untried(&self) -> impl Iterator<Item = usize> {
        let marks = self.marks.iter().enumerate();
        marks.filter(|(_, mark)| **mark == Mark::Untried).map(|(at, _)| at)
    }

    /// The marks in one word.
    pub(super) fn summary(&self) -> String {
        self.marks.iter().map(|mark| mark.text()).collect()
    }

    fn line(&self) -> String {
        let mut cells = vec![format!("`{}`", self.bug), self.what.clone(), self.breaks.clone()];
        cells.extend(self.marks.iter().map(|mark| mark.text().to_string()));
        cells.push(format!("`{}`", self.test.replace('|', "/")));
        format!("| {} |", cells.join(" | "))
    }

    fn parse(line: &str) -> Option<Self> {
        let inner = line.strip_prefix("| ")?.strip_suffix(" |")?;
        let cells: Vec<&str> = inner.split(" | ").collect();
        let plain = |cell: &str| cell.trim_matches('`').to_string();
        let marks: Option<Vec<Mark>> =
            cells.get(3..3 + LAYERS.len())?.iter().map(|cell| Mark::parse(cell)).collect();
        Some(Self {
            bug: plain(cells[0]),
            what: cells[1].to_string(),
            breaks: cells[2].to_string(),
            marks: marks?,
            test: plain(cells.get(3 + LAYERS.len())?),
        })
    }
}

/// All rows, by the bug's name.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: BTreeMap<String, Row>,
}

impl Table {
    /// Reads the table from the page.
    pub(super) fn read(root: &Path) -> Result<Self, String> {
        let page = read_page(root)?;
        let (_, table, _) = split(&page)?;
        let rows = table.lines().filter_map(Row::parse);
        Ok(Self { rows: rows.map(|row| (row.bug.clone(), row)).collect() })
    }

    /// A bug's row before anything is run: what is known of it, if that is to be kept.
    pub(super) fn begin_row(&self, bug: &Bug, keeps: bool) -> Row {
        let known = self.rows.get(&bug.name).filter(|_| keeps).cloned();
        known.unwrap_or_else(|| Row {
            bug: bug.name.clone(),
            what: bug.what.clone(),
            breaks: bug.breaks(),
            marks: vec![Mark::Untried; LAYERS.len()],
            test: String::new(),
        })
    }

    pub(super) fn put(&mut self, row: Row) {
        self.rows.insert(row.bug.clone(), row);
    }

    /// Writes the table into the page, without rows of bugs that are no more.
    pub(super) fn write(&mut self, root: &Path, bugs: &[Bug]) -> Result<(), String> {
        self.rows.retain(|name, _| bugs.iter().any(|bug| bug.name == *name));
        let page = read_page(root)?;
        let (before, _, after) = split(&page)?;
        let mut heads = vec!["bug", "what it is", "breaks"];
        heads.extend(LAYERS.iter().map(|layer| layer.name));
        heads.push("first caught by");
        let rule = vec!["---"; heads.len()];
        let mut lines = vec![
            String::new(),
            format!("| {} |", heads.join(" | ")),
            format!("| {} |", rule.join(" | ")),
        ];
        lines.extend(self.rows.values().map(Row::line));
        let text = format!("{before}{BEGIN}\n{}\n\n{END}{after}", lines.join("\n"));
        std::fs::write(root.join(PAGE), text).map_err(|why| format!("{PAGE}: {why}"))
    }

    /// Whether the table names exactly these bugs, and says that each is caught, by tests that are
    /// there.
    pub(super) fn check(&self, root: &Path, bugs: &[Bug]) -> Result<(), String> {
        let functions = functions(root)?;
        let again = "run `cargo xtask kills --bug NAME` for it";
        for bug in bugs {
            match self.rows.get(&bug.name) {
                None => return Err(format!("{PAGE} does not name {}: {again}", bug.name)),
                Some(row) if !row.is_caught() => {
                    return Err(format!("{PAGE} says that no layer catches {}", bug.name));
                }
                Some(row) if row.what != bug.what || row.breaks != bug.breaks() => {
                    return Err(format!("{PAGE} describes {} otherwise: {again}", bug.name));
                }
                Some(row) if !row.is_by_one_of(&functions) => {
                    let test = &row.test;
                    return Err(format!("{PAGE}: {}: there is no test {test}: {again}", bug.name));
                }
                Some(_) => {}
            }
        }
        match self.rows.keys().find(|name| !bugs.iter().any(|bug| bug.name == **name)) {
            None => Ok(()),
            Some(name) => Err(format!("{PAGE} names {name}, which does not stand in tests/kills")),
        }
    }

    /// The cheapest layer that catches a bug, and how; one that it makes hang only if there is no
    /// other.
    pub(super) fn cheapest(&self, bug: &str) -> Result<(&'static Layer, Mark), String> {
        let row = self.rows.get(bug).ok_or_else(|| format!("{PAGE} does not name {bug}"))?;
        let find = |wanted| row.marks.iter().position(|mark| *mark == wanted);
        let at = find(Mark::Caught).or_else(|| find(Mark::Hangs));
        at.map(|at| (&LAYERS[at], row.marks[at]))
            .ok_or_else(|| format!("{PAGE}: no layer catches {bug}"))
    }
}

/// The names of all functions in the sources.
fn functions(root: &Path) -> Result<BTreeSet<String>, String> {
    let mut names = BTreeSet::new();
    for file in crate::tidy::files(root)? {
        let path = root.join(file);
        if path.extension().is_some_and(|extension| extension == "rs")
            // What was deleted and not committed has none.
            && let Ok(text) = std::fs::read_to_string(&path)
        {
            let rests = text.split("fn ").skip(1);
            names.extend(rests.filter_map(|rest| Some(rest.split_once('(')?.0.to_string())));
        }
    }
    Ok(names)
}

fn read_page(root: &Path) -> Result<String, String> {
    std::fs::read_to_string(root.join(PAGE)).map_err(|why| format!("{PAGE}: {why}"))
}

/// What stands before the table, the table, and what stands after.
fn split(page: &str) -> Result<(&str, &str, &str), String> {
    let parts = page.split_once(BEGIN).and_then(|(before, rest)| {
        rest.split_once(END).map(|(table, after)| (before, table, after))
    });
    parts.ok_or_else(|| format!("{PAGE} lacks `{BEGIN}` or `{END}`"))
}

#[cfg(test)]
mod tests {
    use super::super::bug::INVARIANT_LAST;
    use super::*;

    #[test]
    fn a_row_reads_as_it_was_written() {
        let mut marks = vec![Mark::Missed; LAYERS.len()];
        let mut row = Row {
            bug: "name".to_string(),
            what: "It is wrong.".to_string(),
            breaks: "1, 2".to_string(),
            marks: marks.clone(),
            test: String::new(),
        };
        assert!(!row.is_caught());
        assert_eq!(Row::parse(&row.line()), Some(row.clone()));
        marks[2] = Mark::Hangs;
        row.marks.clone_from(&marks);
        let mut table = Table::default();
        table.put(row.clone());
        assert_eq!(table.cheapest("name").unwrap(), (&LAYERS[2], Mark::Hangs));
        row.marks[5] = Mark::Caught;
        table.put(row.clone());
        assert_eq!(Row::parse(&row.line()), Some(row));
        assert_eq!(table.cheapest("name").unwrap(), (&LAYERS[5], Mark::Caught));
        assert_eq!(Row::parse("| bug | what it is | breaks |"), None);
    }

    #[test]
    fn every_invariant_that_a_bug_may_break_is_listed() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let page = read_page(root).unwrap();
        let listed = page.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
        let listed: BTreeSet<u8> = listed.filter_map(|(number, _)| number.parse().ok()).collect();
        assert!(listed.into_iter().eq(1..=INVARIANT_LAST));
    }

    #[test]
    fn a_test_that_is_named_is_there() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let functions = functions(root).unwrap();
        for row in Table::read(root).unwrap().rows.values() {
            assert!(row.is_by_one_of(&functions), "{}: there is no test {}", row.bug, row.test);
        }
        assert!(!functions.contains("there_was_never_one"), "not as a string");
    }

    #[test]
    fn the_page_is_split_at_its_comments() {
        let page = format!("a{BEGIN}b{END}c");
        assert_eq!(split(&page), Ok(("a", "b", "c")));
        assert!(split("a").is_err());
    }
}

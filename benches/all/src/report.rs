//! What a run found: kept as it was measured, and shown as medians and ratios.

use crate::machine::Machine;
use crate::measure::{Measured, Scale};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// All of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) scale: Scale,
    pub(crate) rows: Vec<RowReport>,
}

/// One row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RowReport {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) reach: Option<f64>,
    pub(crate) is_opening: bool,
    pub(crate) entries: Vec<Entry>,
}

/// One who may take part in a row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// What it does there.
    pub(crate) about: String,
    pub(crate) is_floor: bool,
    /// Why it cannot take part.
    pub(crate) absent: Option<String>,
    /// How it failed; what was measured before stays.
    pub(crate) failed: Option<String>,
    /// One for each round, up to the one in which it failed.
    pub(crate) rounds: Vec<Measured>,
}

impl Entry {
    pub(crate) fn new(name: &str, about: &str) -> Self {
        Self {
            name: name.to_owned(),
            about: about.to_owned(),
            is_floor: false,
            absent: None,
            failed: None,
            rounds: Vec::new(),
        }
    }

    pub(crate) fn takes_part(&self) -> bool {
        self.absent.is_none() && self.failed.is_none()
    }

    fn median_of(&self, of: impl Fn(&Measured) -> Option<f64>) -> Option<f64> {
        median(self.rounds.iter().filter_map(of).collect())
    }

    /// Records (or logs opened) a second.
    pub(crate) fn rate(&self) -> Option<f64> {
        self.median_of(rate)
    }
}

/// The name of the log that all this is about.
pub(crate) const OURS: &str = "seawall";
/// The same with `map_appends`.
pub(crate) const OURS_MAPPED: &str = "seawall, mapped";
/// Seawall with long writes through `io_uring`.
pub(crate) const OURS_URING: &str = "seawall, uring";
/// The same with the files of deleted segments used again.
pub(crate) const OURS_RECYCLED: &str = "seawall, recycled";
/// The same with both.
pub(crate) const OURS_RECYCLED_URING: &str = "seawall, recycled, uring";

fn rate(measured: &Measured) -> Option<f64> {
    (measured.seconds > 0.0).then(|| measured.count as f64 / measured.seconds)
}

fn speed(measured: &Measured, is_opening: bool) -> Option<f64> {
    // A floor counts the records that an opened log holds, not the openings.
    if is_opening { Some(1.0 / measured.seconds) } else { rate(measured) }
}

pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        length if length % 2 == 0 => Some(f64::midpoint(values[middle - 1], values[middle])),
        _ => Some(values[middle]),
    }
}

impl RowReport {
    fn floor(&self) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.is_floor)
    }

    pub(crate) fn ours(&self) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == OURS)
    }

    /// The ratios to the other, each within its round.
    fn ratios(&self, entry: &Entry, other: &Entry) -> Vec<f64> {
        let of = |measured: &Measured| speed(measured, self.is_opening);
        let pairs = entry.rounds.iter().zip(&other.rounds);
        pairs.filter_map(|(one, other)| Some(of(one)? / of(other)?)).collect()
    }

    /// The median of the ratios to the other.
    pub(crate) fn ratio(&self, entry: &Entry, other: &Entry) -> Option<f64> {
        median(self.ratios(entry, other))
    }

    pub(crate) fn ratio_to_floor(&self, entry: &Entry) -> Option<f64> {
        self.ratio(entry, self.floor()?)
    }

    /// How fast it was, in words.
    pub(crate) fn pace(&self, entry: &Entry) -> String {
        if self.is_opening {
            let seconds = entry.median_of(|measured| Some(measured.seconds));
            return seconds
                .map_or_else(|| "-".into(), |seconds| format!("{} ms", short(seconds * 1e3)));
        }
        entry.rate().map_or_else(|| "-".into(), |rate| format!("{}/s", short(rate)))
    }

    /// The table of this row.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let reach = self.reach.map(|reach| format!(" (reach: {reach:.2})")).unwrap_or_default();
        let _ = writeln!(text, "\n{} [{}]{reach}", self.title, self.id);
        let _ = writeln!(
            text,
            "  {:<18}{:>11}{:>10}{:>9}{:>9}{:>9}{:>9}{:>9}  also",
            "", "pace", "of floor", "p50 us", "p99", "p99.9", "cpu us", "rec/sync"
        );
        for entry in &self.entries {
            if !entry.rounds.is_empty() {
                let _ = writeln!(text, "{}", self.line(entry));
            }
            if let Some(reason) = &entry.failed {
                let _ = writeln!(text, "  {:<18}{:>11}  {reason}", entry.name, "failed");
            }
        }
        let absent: Vec<&str> = self
            .entries
            .iter()
            .filter(|entry| entry.absent.is_some())
            .map(|entry| entry.name.as_str())
            .collect();
        if !absent.is_empty() {
            let _ = writeln!(text, "  not here: {}", absent.join("; "));
        }
        text
    }

    fn line(&self, entry: &Entry) -> String {
        let show = |value: Option<f64>| value.map_or_else(|| "-".into(), short);
        let latency = |at: usize| entry.median_of(|one| one.latency_micros.map(|all| all[at]));
        let ratio = self.ratio_to_floor(entry);
        let cpu = entry.median_of(|one| Some(one.cpu_seconds / one.count.max(1) as f64 * 1e6));
        let per_sync = entry.median_of(|one| {
            let syncs = one.syncs.filter(|syncs| *syncs > 0)?;
            one.latency_micros.map(|_| one.count as f64 / syncs as f64)
        });
        format!(
            "  {:<18}{:>11}{:>10}{:>9}{:>9}{:>9}{:>9}{:>9}  {}",
            entry.name,
            self.pace(entry),
            ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}")),
            show(latency(0)),
            show(latency(1)),
            show(latency(2)),
            if self.is_opening { "-".into() } else { show(cpu) },
            show(per_sync),
            also(entry, self.is_opening),
        )
        .trim_end()
        .to_owned()
    }

    /// That Seawall does less than it has set itself; `None`: it does not, or nothing is set.
    fn shortfall(&self) -> Option<String> {
        let ratios = self.ratios(self.ours()?, self.floor()?);
        let ratio = median(ratios.clone())?;
        let reach = self.reach?;
        let low = ratios.iter().copied().fold(f64::MAX, f64::min);
        let high = ratios.iter().copied().fold(0.0, f64::max);
        let title = &self.title;
        (ratio < reach)
            .then(|| format!("{title}: {ratio:.2} of {reach:.2} ({low:.2} to {high:.2})"))
    }

    /// Peers that were faster than Seawall.
    fn ahead(&self) -> Vec<String> {
        let Some(ours) = self.ours() else { return Vec::new() };
        let peers =
            self.entries.iter().filter(|entry| !entry.is_floor && !entry.name.starts_with(OURS));
        let faster = peers.filter_map(|peer| {
            let ratios = self.ratios(peer, ours);
            let won = ratios.iter().filter(|ratio| **ratio > 1.0).count();
            let all = ratios.len();
            let ratio = median(ratios).filter(|ratio| *ratio > 1.0)?;
            let what = format!("{} {ratio:.2} times as fast", peer.name);
            Some(format!("{}: {what} ({won} of {all} rounds)", self.title))
        });
        faster.collect()
    }
}

fn also(entry: &Entry, is_opening: bool) -> String {
    let mut parts = Vec::new();
    if let Some(bytes) = entry.median_of(|one| one.memory_bytes.map(|bytes| bytes as f64)) {
        parts.push(format!("peak {} MiB", short(bytes / f64::from(1 << 20))));
    }
    let stored = entry.median_of(|one| Some(one.bytes as f64 / one.stored_bytes? as f64));
    if let Some(ratio) = stored.filter(|ratio| *ratio > 1.1) {
        parts.push(format!("{ratio:.1} times smaller"));
    }
    let disturbed = entry.rounds.iter().filter(|one| one.is_disturbed).count();
    if disturbed > 0 {
        parts.push(format!("slow disk in {disturbed} of {} rounds", entry.rounds.len()));
    }
    let back = entry.rounds.iter().filter_map(|one| one.read_back).max();
    if let Some(count) = back {
        parts.push(format!("{count} read back"));
    }
    if entry.is_floor || is_opening {
        parts.push(entry.about.clone());
    }
    parts.join(", ")
}

/// A number in four digits or so.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1e7 => format!("{:.1} M", value / 1e6),
        size if size >= 1e6 => format!("{:.2} M", value / 1e6),
        size if size >= 1e4 => format!("{:.1} k", value / 1e3),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

impl Report {
    /// What comes after the tables.
    pub(crate) fn verdict(&self) -> String {
        let mut text = String::new();
        let mut list = |title: &str, lines: Vec<String>| {
            let _ = writeln!(text, "\n{title}");
            for line in &lines {
                let _ = writeln!(text, "  {line}");
            }
            if lines.is_empty() {
                let _ = writeln!(text, "  none");
            }
        };
        let rows = || self.rows.iter();
        list(
            "Rows where Seawall is short of its reach:",
            rows().filter_map(RowReport::shortfall).collect(),
        );
        list("Rows where another log is ahead:", rows().flat_map(RowReport::ahead).collect());
        text
    }

    /// What the logs do, as far as speed depends on it.
    pub(crate) fn notes(&self) -> String {
        let mut text = String::new();
        for (title, is_opening) in [("Durable means:", false), ("Opening looks at:", true)] {
            let row = self.rows.iter().find(|row| row.is_opening == is_opening);
            let Some(row) = row else { continue };
            let _ = writeln!(text, "\n{title}");
            for entry in row.entries.iter().filter(|entry| !entry.is_floor) {
                let _ = writeln!(text, "  {:<18}{}", entry.name, entry.about);
            }
        }
        let absent = self
            .rows
            .iter()
            .flat_map(|row| &row.entries)
            .filter_map(|entry| entry.absent.as_ref().map(|reason| (&entry.name, reason)));
        let absent: BTreeSet<_> = absent.collect();
        let _ = writeln!(text, "\nWhy a log is not in a row:");
        for (name, reason) in absent {
            let _ = writeln!(text, "  {name:<18}{reason}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(seconds: f64) -> Measured {
        Measured { count: 100, seconds, ..Measured::default() }
    }

    fn row(floor: &[f64], ours: &[f64]) -> RowReport {
        let entry = |name: &str, seconds: &[f64]| Entry {
            rounds: seconds.iter().copied().map(measured).collect(),
            is_floor: name == "floor",
            ..Entry::new(name, "")
        };
        RowReport {
            id: "x".into(),
            title: "X".into(),
            reach: Some(0.9),
            is_opening: false,
            entries: vec![entry("floor", floor), entry(OURS, ours), entry("peer", floor)],
        }
    }

    #[test]
    fn ratios_are_within_a_round() {
        // The machine was ten times slower in the second round: for both.
        let row = row(&[1.0, 10.0, 1.0], &[2.0, 20.0, 2.0]);
        let ours = row.ours().unwrap();
        assert_eq!(row.ratio_to_floor(ours), Some(0.5));
        assert_eq!(row.shortfall(), Some("X: 0.50 of 0.90 (0.50 to 0.50)".into()));
        assert_eq!(row.ahead(), ["X: peer 2.00 times as fast (3 of 3 rounds)"]);
        assert!(row.table().contains("50.0/s"), "{}", row.table());
    }

    #[test]
    fn a_median_of_an_even_number_lies_between() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in
            [(12.34, "12.3"), (1234.0, "1234"), (12_345.0, "12.3 k"), (0.123, "0.12")]
        {
            assert_eq!(short(value), text);
        }
    }
}

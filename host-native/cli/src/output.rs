//! Printing, for people and for programs, and what can go wrong with it.

use indicatif::{ProgressBar, ProgressStyle};
use seawall::{Damage, Entry, FileId, Lsn, Position, RecordKind, RecoveryError, RecoveryInfo};
use serde_json::{Value, json};
use std::fmt;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::path::Path;

/// Why a command could not be carried out.
#[derive(Debug)]
pub(crate) enum Failure {
    Log(seawall::Error),
    Io(String, io::Error),
    /// What was durable is not as it was written.
    Damaged(String),
    Other(String),
}

impl Failure {
    /// Whether nobody reads our output any more.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Io(_, error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The status that the command ends with.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Damaged(_) | Self::Log(seawall::Error::Damaged { .. }) => 1,
            Self::Log(_) | Self::Io(..) | Self::Other(_) => 2,
        }
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io(what, error)
    }
}

impl From<seawall::Error> for Failure {
    fn from(error: seawall::Error) -> Self {
        Self::Log(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(error) => error.fmt(f),
            Self::Io(what, error) => write!(f, "{what}: {error}"),
            Self::Damaged(text) | Self::Other(text) => f.write_str(text),
        }
    }
}

/// Standard output, as text or as JSON.
pub(crate) struct Output {
    pub(crate) is_json: bool,
    /// What the command ends with should nobody read on.
    pub(crate) status_known: u8,
    /// Whether the command goes on when nobody reads what it prints.
    goes_on: bool,
    to: BufWriter<Stdout>,
}

impl Output {
    pub(crate) fn new(is_json: bool) -> Self {
        let to = BufWriter::with_capacity(64 << 10, io::stdout());
        Self { is_json, status_known: 0, goes_on: false, to }
    }

    /// What the command does, and what it ends with, does not depend on who reads.
    pub(crate) fn go_on_unread(&mut self) {
        self.goes_on = true;
    }

    fn printed(&self, result: io::Result<()>) -> Result<(), Failure> {
        match result {
            Err(error) if self.goes_on && error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result.map_err(Failure::io("write to standard output")),
        }
    }

    /// A line of text.
    pub(crate) fn line(&mut self, text: impl fmt::Display) -> Result<(), Failure> {
        let result = writeln!(self.to, "{text}");
        self.printed(result)
    }

    /// A document on a line of its own.
    pub(crate) fn json(&mut self, value: &Value) -> Result<(), Failure> {
        self.line(value)
    }

    /// Text for people, or a document for programs.
    pub(crate) fn either(&mut self, text: impl fmt::Display, value: &Value) -> Result<(), Failure> {
        if self.is_json { self.json(value) } else { self.line(text) }
    }

    /// A line for people only.
    pub(crate) fn note(&mut self, text: impl fmt::Display) -> Result<(), Failure> {
        if self.is_json { Ok(()) } else { self.line(text).and_then(|()| self.finish()) }
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let result = self.to.write_all(bytes);
        self.printed(result)
    }

    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        let result = self.to.flush();
        self.printed(result)
    }
}

/// A line on standard error. Whether anybody reads it changes nothing.
pub(crate) fn complain(text: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "seawall: {text}");
}

/// What is damaged, on standard error with the remedy; the status that a command ends with which
/// could do its work on what is good.
pub(crate) fn complain_of_damage(dir: &Path, info: &RecoveryInfo) -> u8 {
    if info.corruption_detected {
        complain(damage_remedy(dir, info.report.damage.as_ref()));
    }
    u8::from(info.corruption_detected)
}

/// An opening that was refused because of damage, told in words of this command.
pub(crate) fn refusal(dir: &Path) -> impl FnOnce(seawall::Error) -> Failure {
    move |error| match error {
        seawall::Error::Recovery { error: RecoveryError::Damaged(report), .. } => {
            let text = damage_remedy(dir, report.damage.as_ref());
            Failure::Damaged(format!("nothing was changed: {text}"))
        }
        error => Failure::Log(error),
    }
}

fn damage_remedy(dir: &Path, damage: Option<&Damage>) -> String {
    let what = damage.map_or("the log is damaged".to_owned(), damage_text);
    let dir = dir.display();
    format!("{what}: see `seawall verify {dir}`, then restore the file or give --repair")
}

/// Where a log is damaged, what is lost, and what says that it was there.
pub(crate) fn damage_text(damage: &Damage) -> String {
    let Damage { position, first_lost, last_lost, durable, proof } = damage;
    let place = format!("{} is damaged at offset", FileId::Segment(position.segment));
    let place = format!("{place} {}", position.offset);
    if last_lost < first_lost {
        return format!("{place}, and what it held is not known; proof: {proof}");
    }
    format!(
        "{place}: LSN {first_lost} to {last_lost} lost; {proof} says that LSN {durable} was durable"
    )
}

/// So many of something.
pub(crate) fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// How many records there are, and from where to where.
pub(crate) fn extent(records: u64, first: Lsn, last: Lsn) -> String {
    if records == 0 {
        return "no records".to_owned();
    }
    format!("{}, LSN {first} to {last}", counted(records, "record"))
}

/// Bytes as people read them: what is not printable ASCII as `\xNN`.
pub(crate) fn printable(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// Adds bytes to a document under `name`, or in hexadecimal under `name_hex` where they are not
/// UTF-8.
fn put_bytes(document: &mut Value, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => document[name] = json!(text),
        Err(_) => document[format!("{name}_hex")] = json!(hex(bytes)),
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        for digit in [byte >> 4, byte & 0xf] {
            text.extend(char::from_digit(u32::from(digit), 16));
        }
    }
    text
}

/// A record as a document.
pub(crate) fn record_json(entry: &Entry, position: Position) -> Value {
    let mut document = json!({
        "lsn": entry.lsn.get(),
        "segment": position.segment.get(),
        "offset": position.offset,
        "kind": kind_name(entry.kind),
    });
    put_bytes(&mut document, "key", &entry.key);
    put_bytes(&mut document, "value", &entry.value);
    if let (Some(written_at), Some(ttl)) = (entry.written_at, entry.ttl) {
        document["written_ms"] = json!(written_at.as_millis());
        document["ttl_ms"] = json!(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    }
    document
}

pub(crate) const fn kind_name(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Put => "put",
        RecordKind::Delete => "delete",
    }
}

/// A progress bar on standard error, where that is a terminal; otherwise one that shows nothing.
pub(crate) fn progress(total: Option<u64>, what: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    let template = "{msg} {wide_bar} {human_pos}/{human_len} {eta}";
    // The template is a constant of ours; without it the bar has another look.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.with_message(what.to_owned())
}

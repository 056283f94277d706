//! The rules of the house, as a test.
//!
//! | rule      | what it keeps                                                               |
//! |-----------|-----------------------------------------------------------------------------|
//! | columns   | at most 100 in a line                                                       |
//! | functions | at most 100 lines; above 70 it is worth a look, and is listed               |
//! | imports   | the arrows between crates and modules: the table `IMPORTS`                  |
//! | manifests | a host does not depend on the other host                                    |
//! | unsafe    | only in `UNSAFE_FOLDERS`, each with a `// SAFETY:` comment above it         |
//! | machines  | no path of somebody's machine                                               |
//! | leftovers | nothing unfinished, no test switched off                                    |
//!
//! Every file that git knows, or would know after `git add`, is looked at: a mistake shows before
//! it is committed.

use std::path::Path;
use std::process::Command;

use crate::source::Source;
use crate::steps::Outcome;

const COLUMNS_MAX: usize = 100;
const FUNCTION_LINES_MAX: usize = 100;
const FUNCTION_LINES_NOTE: usize = 70;

/// The only places where `unsafe` may stand.
const UNSAFE_FOLDERS: &[&str] = &[
    "host-native/src/sys.rs",
    "host-native/src/sys/",
    "host-native/tests/allocations.rs",
    "host-native/tests/clock.rs",
    "host-native/tests/fork.rs",
    "component/wasmtime/src/precompiled.rs",
    "component/wasmtime/tests/it/load.rs",
];

/// Paths that code in some places must not use. Parts under `#[cfg(test)]` may.
struct Import {
    within: &'static [&'static str],
    forbidden: &'static [&'static str],
    why: &'static str,
}

const IMPORTS: &[Import] = &[
    Import {
        within: &["core/src/"],
        forbidden: &["std", "libc", "cap_std", "tokio"],
        why: "core runs without std and knows no host",
    },
    Import {
        within: &["core/src/wire.rs", "core/src/wire/"],
        forbidden: &[
            "crate::log",
            "crate::recover",
            "super::super",
            "super::log",
            "super::recover",
        ],
        why: "wire is bytes and values, and knows no machine",
    },
    Import {
        within: &["core/src/log.rs", "core/src/log/"],
        forbidden: &["crate::recover", "super::super", "super::recover"],
        why: "recovery produces a log, not the other way round",
    },
    Import {
        within: &["host-native/"],
        forbidden: &["seawall_wasi", "host_wasi"],
        why: "hosts do not know each other",
    },
    Import {
        within: &["host-wasi/"],
        forbidden: &["seawall", "host_native"],
        why: "hosts do not know each other",
    },
];

/// Manifests, and what a dependency in them must not be called.
const MANIFESTS: &[(&str, &[&str])] = &[
    ("host-native/Cargo.toml", &["seawall-wasi", "host-wasi"]),
    ("host-wasi/Cargo.toml", &["seawall", "host-native"]),
    ("core/Cargo.toml", &["seawall", "seawall-wasi", "host-native", "host-wasi"]),
];

/// Put together here, so that this file does not break its own rule.
const MACHINE_PATHS: &[&str] = &[concat!("/ro", "ot/"), concat!("/ho", "me/")];

/// The kinds of files that must not name a path of a machine. Prose may.
const MACHINE_PATH_FILES: &[&str] = &[".rs", ".toml", ".wit", ".sh", ".yml", ".ci/run"];

/// The kinds of files that keep to the columns. Not manifests and prose: their tables cannot break.
const COLUMN_FILES: &[&str] = &[".rs", ".wit", ".sh", ".ci/run"];

/// Taken over as they are.
const VENDORED: &[&str] = &["wit/deps/"];

#[derive(Debug)]
struct Finding {
    line: usize,
    what: String,
    /// Worth a look, but no failure.
    note: bool,
}

fn finding(line: usize, what: impl Into<String>) -> Finding {
    Finding { line, what: what.into(), note: false }
}

/// Looks at every file; prints what it finds as `path:line: what`.
pub(crate) fn check(root: &Path) -> Outcome {
    let files = match files(root) {
        Ok(files) => files,
        Err(why) => return Outcome::Failed(why),
    };
    let (mut looked_at, mut broken) = (0, 0);
    for path in &files {
        // Deleted but not yet committed, or not a text: no concern of these rules.
        let Ok(text) = std::fs::read_to_string(root.join(path)) else { continue };
        looked_at += 1;
        for Finding { line, what, note } in look_at(path, text) {
            println!("{}{path}:{line}: {what}", if note { "note: " } else { "" });
            broken += usize::from(!note);
        }
    }
    println!("{looked_at} files looked at, {broken} findings");
    match (looked_at, broken) {
        (0, _) => Outcome::Failed("found no files to look at".to_string()),
        (_, 0) => Outcome::Passed,
        _ => Outcome::Failed(format!("{broken} findings; each is listed above with its line")),
    }
}

/// The files of the checkout: those that git knows, and those that it would after `git add`.
pub(crate) fn files(root: &Path) -> Result<Vec<String>, String> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"])
        .current_dir(root)
        .output()
        .map_err(|error| format!("git did not start: {error}"))?;
    if !listed.status.success() {
        let why = String::from_utf8_lossy(&listed.stderr);
        return Err(format!("git cannot list the files of this checkout: {}", why.trim()));
    }
    let names = String::from_utf8_lossy(&listed.stdout);
    Ok(names.split('\0').filter(|name| !name.is_empty()).map(String::from).collect())
}

/// Everything there is to say about one file, in the order of its lines.
fn look_at(path: &str, text: String) -> Vec<Finding> {
    let mut findings = Vec::new();
    if VENDORED.iter().any(|folder| path.starts_with(folder)) {
        return findings;
    }
    if COLUMN_FILES.iter().any(|ending| path.ends_with(ending)) {
        findings.extend(columns(&text));
    }
    if MACHINE_PATH_FILES.iter().any(|ending| path.ends_with(ending)) {
        findings.extend(machine_paths(&text));
    }
    for (_, forbidden) in MANIFESTS.iter().filter(|(manifest, _)| *manifest == path) {
        findings.extend(dependencies(&text, forbidden));
    }
    if Path::new(path).extension().is_some_and(|extension| extension == "rs") {
        let source = Source::new(text);
        findings.extend(functions(&source));
        findings.extend(imports(path, &source));
        findings.extend(unsafe_code(path, &source));
        findings.extend(leftovers(&source));
    }
    findings.sort_by_key(|finding| finding.line);
    findings
}

fn machine_paths(text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        for path in MACHINE_PATHS.iter().filter(|path| content.contains(**path)) {
            findings.push(finding(line, format!("`{path}` is a path of one machine")));
        }
    }
    findings
}

fn dependencies(text: &str, forbidden: &[&str]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        // The name a dependency is given, or the one it has: `x = { package = "seawall" }`, or a
        // table of its own: `[dependencies.seawall]`.
        let name = content.split(['=', '.']).next().unwrap_or_default().trim().trim_matches('"');
        let table = content.trim().strip_suffix(']').and_then(|table| table.rsplit('.').next());
        for forbidden in forbidden {
            let package = format!("package = \"{forbidden}\"");
            if name == *forbidden || table == Some(forbidden) || content.contains(&package) {
                findings.push(finding(line, format!("must not depend on `{forbidden}`")));
            }
        }
    }
    findings
}

fn columns(text: &str) -> Vec<Finding> {
    (1..)
        .zip(text.lines())
        .map(|(line, content)| (line, content.chars().count()))
        .filter(|(_, columns)| *columns > COLUMNS_MAX)
        .map(|(line, columns)| finding(line, format!("{columns} columns, at most {COLUMNS_MAX}")))
        .collect()
}

fn functions(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for function in source.functions() {
        let lines = function.lines();
        if lines > FUNCTION_LINES_NOTE {
            let what =
                format!("`{}` has {lines} lines, at most {FUNCTION_LINES_MAX}", function.name);
            let note = lines <= FUNCTION_LINES_MAX;
            findings.push(Finding { line: function.line_first, what, note });
        }
    }
    findings
}

fn imports(path: &str, source: &Source) -> Vec<Finding> {
    let rules: Vec<&Import> = IMPORTS
        .iter()
        .filter(|rule| rule.within.iter().any(|folder| path.starts_with(folder)))
        .collect();
    if rules.is_empty() || path.ends_with("/tests.rs") {
        return Vec::new();
    }
    let tests = source.tests();
    let mut findings = Vec::new();
    for (index, segments) in source.paths() {
        let start = source.tokens[index].start;
        if tests.iter().any(|range| range.contains(&start)) {
            continue;
        }
        for rule in &rules {
            for forbidden in rule.forbidden {
                let parts: Vec<&str> = forbidden.split("::").collect();
                if segments.starts_with(&parts) {
                    let what = format!("`{}`: {}", segments.join("::"), rule.why);
                    findings.push(finding(source.line(start), what));
                }
            }
        }
    }
    findings
}

fn unsafe_code(path: &str, source: &Source) -> Vec<Finding> {
    let allowed = UNSAFE_FOLDERS.iter().any(|folder| path.starts_with(folder));
    let mut findings = Vec::new();
    for index in 0..source.tokens.len() {
        if source.word(index) != Some("unsafe") {
            continue;
        }
        let starts_code = source.is_sign(index + 1, b'{')
            || match source.word(index + 1) {
                // `unsafe fn` without a name is a type: it promises nothing by itself.
                Some("fn") => source.word(index + 2).is_some(),
                Some("impl" | "trait" | "extern") => true,
                _ => false,
            };
        if !starts_code {
            continue;
        }
        let line = source.line(source.tokens[index].start);
        if !allowed {
            findings.push(finding(line, "`unsafe` stands only in `UNSAFE_FOLDERS`"));
        } else if !has_reason(source, line) {
            findings.push(finding(line, "`unsafe` without a `// SAFETY:` comment above it"));
        }
    }
    findings
}

/// Whether the comments right above a line say why it is safe.
///
/// Attributes may stand between, and the first lines of the same statement. A function's
/// `# Safety` section is as good: it is the caller that owes the reason.
fn has_reason(source: &Source, line: usize) -> bool {
    let code: Vec<&str> = source.code_lines().collect();
    let comments: Vec<&str> = source.comment_lines().collect();
    for above in (0..line - 1).rev() {
        let (code, comment) = (code[above].trim(), comments[above].trim());
        if code.is_empty() && comment.is_empty() {
            return false;
        }
        let says_why = comment.contains("SAFETY:") || comment.contains("# Safety");
        if code.is_empty() && says_why {
            return true;
        }
        let ends_something = code.ends_with([';', '{', '}', ',']);
        if ends_something && !code.starts_with("#[") {
            return false;
        }
    }
    false
}

fn leftovers(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, token) in source.tokens.iter().enumerate() {
        let unfinished = matches!(source.word(index), Some("todo" | "unimplemented"))
            && source.is_sign(index + 1, b'!');
        let ignored = source.is_sign(index, b'#')
            && source.is_sign(index + 1, b'[')
            && source.word(index + 2) == Some("ignore");
        if unfinished {
            findings.push(finding(source.line(token.start), "code that is not there yet"));
        }
        if ignored {
            findings.push(finding(source.line(token.start), "a test that is switched off"));
        }
    }
    let lines = source.comment_lines().zip(source.code_lines());
    for (line, (comment, code)) in (1..).zip(lines) {
        for mark in ["TODO", "FIXME"] {
            if comment.contains(mark) || code.contains(mark) {
                findings.push(finding(line, format!("`{mark}`: do it, or write an issue")));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said about a file, failures only, as `line what`.
    fn findings(path: &str, text: &str) -> Vec<String> {
        let mut findings = look_at(path, text.to_string());
        findings.retain(|finding| !finding.note);
        findings.iter().map(|finding| format!("{} {}", finding.line, finding.what)).collect()
    }

    fn passes(path: &str, text: &str) {
        assert_eq!(findings(path, text), [""; 0], "{path}\n{text}");
    }

    /// Exactly one finding, on this line, that says this.
    fn fails(path: &str, text: &str, line: usize, what: &str) {
        let findings = findings(path, text);
        assert_eq!(findings.len(), 1, "{path}\n{text}\n{findings:?}");
        assert!(findings[0].starts_with(&format!("{line} ")), "{findings:?}");
        assert!(findings[0].contains(what), "{findings:?}");
    }

    #[test]
    fn columns_are_characters() {
        passes("a.rs", &"x".repeat(100));
        passes("a.rs", &format!("//{}", "\u{2500}".repeat(98)));
        for path in ["a.rs", "wit/log.wit", "x.sh", ".ci/run"] {
            fails(path, &format!("\n{}", "x".repeat(101)), 2, "101 columns");
        }
        passes("wit/deps/clocks.wit", &"x".repeat(101));
        passes("README.md", &"x".repeat(101));
    }

    #[test]
    fn function_lengths() {
        let function = |lines: usize| format!("fn f() {{{}}}", "\n".repeat(lines - 1));
        let look = |lines: usize| look_at("a.rs", function(lines));
        assert!(look(70).is_empty());
        assert!(look(71)[0].note);
        assert!(look(100)[0].note);
        assert!(!look(101)[0].note);
    }

    #[test]
    fn import_rules() {
        let core = "core/src/id.rs";
        fails(core, "use std::fmt;", 1, "`std::fmt`");
        fails(core, "extern crate std;", 1, "`std`");
        fails(core, "fn f() -> ::libc::c_int {}", 1, "`libc::c_int`");
        passes(core, "// std::fmt\nuse core::fmt; const A: &str = \"std::fmt\";");
        passes(core, "use core::fmt;\n#[cfg(test)]\nmod tests { use std::fmt; }");
        fails(core, "#[cfg(test)]\nmod tests { use std::fmt; }\nuse std::io;", 3, "`std::io`");
        passes("host-native/src/lib.rs", "use std::fmt;");

        fails("core/src/wire/frame.rs", "use crate::{id, log::Log};", 1, "`crate::log::Log`");
        fails("core/src/wire/frame.rs", "use crate::recover;", 1, "wire");
        passes("core/src/wire/frame.rs", "use crate::{id, logarithm};");
        fails("core/src/wire/mod.rs", "use super::log::Log;", 1, "wire");
        fails("core/src/wire/frame.rs", "use super::super::log::Log;", 1, "wire");
        passes("core/src/wire/frame.rs", "use super::checksum::Place;");
        fails("core/src/log/commit.rs", "use crate::recover::Verdict;", 1, "recovery");
        fails("core/src/log.rs", "crate::recover::f();", 1, "recovery");
        passes("core/src/recover.rs", "use crate::log::Log;");

        fails("host-wasi/src/lib.rs", "use seawall::Log;", 1, "hosts");
        passes("host-wasi/src/lib.rs", "use seawall_core::Log; use bindings::seawall::log;");
        fails("host-native/src/lib.rs", "use seawall_wasi::Host;", 1, "hosts");
    }

    #[test]
    fn manifests() {
        let path = "host-wasi/Cargo.toml";
        passes(path, "[package]\nname = \"seawall-wasi\"\n[dependencies]\nseawall-core = \"1\"");
        fails(path, "[dependencies]\nseawall = { path = \"../x\" }", 2, "`seawall`");
        fails(path, "[dependencies]\nseawall.workspace = true", 2, "`seawall`");
        fails(path, "[dependencies.seawall]", 1, "`seawall`");
        fails(path, "x = { package = \"seawall\" }", 1, "`seawall`");
    }

    #[test]
    fn unsafe_has_its_place_and_its_reason() {
        let sys = "host-native/src/sys/unix.rs";
        fails("host-native/src/dir.rs", "// SAFETY: x\nunsafe { f() }", 2, "stands only");
        fails(sys, "let x = 1;\nunsafe { f() }", 2, "SAFETY");
        fails(sys, "// SAFETY: x\n\nunsafe { f() }", 3, "SAFETY");
        fails(sys, "unsafe impl Send for X {}", 1, "SAFETY");
        fails(sys, "// SAFETY: one\nunsafe { f() };\nunsafe { g() };", 3, "SAFETY");
        passes(sys, "// SAFETY: x\n// and y\nlet x =\n    unsafe { f() };");
        passes(sys, "/// # Safety\n/// x\n#[inline]\npub unsafe fn f() {}");
        passes("a.rs", "#![forbid(unsafe_code)] // unsafe { }\ntype F = unsafe fn(u8);");
    }

    #[test]
    fn paths_of_machines() {
        for path in MACHINE_PATHS {
            fails("a.rs", &format!("\n\"{path}me\""), 2, "one machine");
            passes("README.md", path);
        }
        passes("a.rs", "\"/tmp/x\"");
    }

    #[test]
    fn leftovers_are_found() {
        fails("a.rs", "fn f() { todo!() }", 1, "not there yet");
        fails("a.rs", "fn f() { unimplemented!() }", 1, "not there yet");
        fails("a.rs", &format!("\n// {}: x", concat!("TO", "DO")), 2, "do it");
        fails("a.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}", 2, "switched off");
        passes("a.rs", "// todo!() is not allowed\nfn todo() { f(\"#[ignore\") }");
    }

    /// Git is there and lists this very file.
    #[test]
    fn files_are_listed() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        assert!(files(root).unwrap().iter().any(|path| path == "xtask/src/tidy.rs"));
    }
}

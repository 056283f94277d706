//! A Rust file as tokens, with comments and the contents of literals set apart.
//!
//! ```text
//!   text  ──separate──>  code      comments and literals blanked, same offsets
//!                        comments  everything else blanked, same offsets
//!   code  ──tokenise──>  tokens    words, `::`, single signs
//!   tokens ────────────> paths     `use a::{b, c::d}` is a::b and a::c::d
//!                        functions name, first and last line
//!                        tests     what stands under `#[cfg(test)]`
//! ```
//!
//! Not a parser: it knows just enough Rust that a rule cannot be met or broken by a comment, a
//! string, or the way a `use` is grouped. Any text is accepted; nothing here panics on bad Rust.

use std::ops::Range;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An identifier, a keyword or a number.
    Word,
    /// `::`
    Path,
    /// One byte of anything else that is not white space.
    Sign(u8),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) start: usize,
    end: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line_first: usize,
    pub(crate) line_last: usize,
}

impl Function {
    pub(crate) fn lines(&self) -> usize {
        self.line_last - self.line_first + 1
    }
}

#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) text: String,
    code: String,
    comments: String,
    pub(crate) tokens: Vec<Token>,
}

impl Source {
    pub(crate) fn new(text: String) -> Self {
        let (code, comments) = separate(&text);
        let tokens = tokenise(&code);
        Self { text, code, comments, tokens }
    }

    /// The line, from 1, of an offset.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.text[..offset].matches('\n').count() + 1
    }

    pub(crate) fn comment_lines(&self) -> impl Iterator<Item = &str> {
        self.comments.lines()
    }

    pub(crate) fn code_lines(&self) -> impl Iterator<Item = &str> {
        self.code.lines()
    }

    pub(crate) fn word(&self, index: usize) -> Option<&str> {
        let token = self.tokens.get(index)?;
        (token.kind == Kind::Word).then(|| &self.code[token.start..token.end])
    }

    pub(crate) fn is_sign(&self, index: usize, sign: u8) -> bool {
        self.is_kind(index, Kind::Sign(sign))
    }

    fn is_kind(&self, index: usize, kind: Kind) -> bool {
        self.tokens.get(index).is_some_and(|token| token.kind == kind)
    }

    /// Every path from its root, as segments, with the index of the token it starts at.
    ///
    /// A lone word is a path of one segment. Groups are spread out, each with its whole prefix.
    pub(crate) fn paths(&self) -> Vec<(usize, Vec<&str>)> {
        let mut paths = Vec::new();
        let mut index = 0;
        while index < self.tokens.len() {
            // Behind `<T as Trait>::` comes a name inside the type; behind `-> ::` a root.
            let inside_type = index >= 3
                && self.is_kind(index - 1, Kind::Path)
                && self.is_sign(index - 2, b'>')
                && !self.is_sign(index - 3, b'-');
            if self.word(index).is_some() && !inside_type {
                index = self.path(index, &[], &mut paths);
            } else {
                index += 1;
            }
        }
        paths
    }

    /// Reads the path that starts at a word; returns the index behind it.
    fn path<'a>(
        &'a self,
        start: usize,
        prefix: &[&'a str],
        paths: &mut Vec<(usize, Vec<&'a str>)>,
    ) -> usize {
        let mut segments = prefix.to_vec();
        let mut index = start;
        while let Some(word) = self.word(index) {
            segments.push(word);
            index += 1;
            if !self.is_kind(index, Kind::Path) {
                break;
            }
            if self.is_sign(index + 1, b'{') {
                return self.group(index + 2, &segments, paths);
            }
            if self.word(index + 1).is_none() {
                break;
            }
            index += 1;
        }
        paths.push((start, segments));
        index
    }

    /// Reads the inside of a `{}` of a `use`; returns the index behind it.
    fn group<'a>(
        &'a self,
        start: usize,
        prefix: &[&'a str],
        paths: &mut Vec<(usize, Vec<&'a str>)>,
    ) -> usize {
        let mut index = start;
        while index < self.tokens.len() && !self.is_sign(index, b'}') {
            match self.word(index) {
                // `a as b`: b is a new name, not a path.
                Some("as") => index += 2,
                Some(_) => index = self.path(index, prefix, paths),
                None => index += 1,
            }
        }
        index + 1
    }

    /// Every function that has a body, nested ones too.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let mut functions = Vec::new();
        for index in 0..self.tokens.len() {
            // A `fn` without a name is a type.
            let (Some("fn"), Some(name)) = (self.word(index), self.word(index + 1)) else {
                continue;
            };
            let Some(open) = self.item_body(index + 2) else { continue };
            functions.push(Function {
                name: name.to_string(),
                line_first: self.line(self.tokens[index].start),
                line_last: self.line(self.tokens[self.close(open)].start),
            });
        }
        functions
    }

    /// The ranges of offsets that are compiled for tests only.
    pub(crate) fn tests(&self) -> Vec<Range<usize>> {
        let mut ranges = Vec::new();
        for index in 0..self.tokens.len() {
            if !self.is_sign(index, b'#') {
                continue;
            }
            let inner = self.is_sign(index + 1, b'!');
            let cfg = index + if inner { 3 } else { 2 };
            if self.word(cfg) != Some("cfg") || !self.is_test_condition(cfg + 2) {
                continue;
            }
            if inner {
                return std::iter::once(0..self.text.len()).collect();
            }
            let behind = self.close(index + 1) + 1;
            let last = self.item_body(behind).map_or_else(
                || self.item_end(behind).min(self.tokens.len() - 1),
                |open| self.close(open),
            );
            ranges.push(self.tokens[index].start..self.tokens[last].end);
        }
        ranges
    }

    /// `test` or `all(test, ...)`. With `any` or `not` the code is compiled for others as well.
    fn is_test_condition(&self, index: usize) -> bool {
        match self.word(index) {
            Some("test") => true,
            Some("all") => self.word(index + 2) == Some("test"),
            _ => false,
        }
    }

    /// The index of the `{` that opens the body of the item whose head starts at `index`, if it
    /// has one.
    fn item_body(&self, index: usize) -> Option<usize> {
        let end = self.item_end(index);
        self.is_sign(end, b'{').then_some(end)
    }

    /// Where the head of an item ends: at the first `{`, `;` or `}` outside of brackets.
    fn item_end(&self, start: usize) -> usize {
        let mut index = start;
        while let Some(token) = self.tokens.get(index) {
            match token.kind {
                Kind::Sign(b'(' | b'[') => index = self.close(index),
                Kind::Sign(b'{' | b';' | b'}') => return index,
                _ => {}
            }
            index += 1;
        }
        index
    }

    /// The index of the bracket that closes the one at `open`; the last token, if none does.
    fn close(&self, open: usize) -> usize {
        let mut depth = 0_usize;
        for (index, token) in self.tokens.iter().enumerate().skip(open) {
            match token.kind {
                Kind::Sign(b'(' | b'[' | b'{') => depth += 1,
                Kind::Sign(b')' | b']' | b'}') => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                return index;
            }
        }
        self.tokens.len().saturating_sub(1)
    }
}

/// Splits a text into its code and its comments, each as long as the text, the rest blank.
fn separate(text: &str) -> (String, String) {
    let bytes = text.as_bytes();
    let blank: Vec<u8> =
        bytes.iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }).collect();
    let (mut code, mut comments) = (blank.clone(), blank);
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let (length, part) = piece(rest);
        let end = at + length.clamp(1, rest.len());
        match part {
            Part::Code => code[at..end].copy_from_slice(&bytes[at..end]),
            Part::Comment => comments[at..end].copy_from_slice(&bytes[at..end]),
            Part::Literal => {
                // The quotes stay: `f("")` and `f()` are different code.
                code[at] = b'"';
                code[end - 1] = b'"';
            }
        }
        at = end;
    }
    let whole = |part: Vec<u8>| String::from_utf8_lossy(&part).into_owned();
    (whole(code), whole(comments))
}

#[derive(Clone, Copy)]
enum Part {
    Code,
    Comment,
    Literal,
}

/// The length and the sort of what a text that is not empty starts with.
fn piece(rest: &[u8]) -> (usize, Part) {
    if rest.starts_with(b"//") {
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        return (end, Part::Comment);
    }
    if rest.starts_with(b"/*") {
        return (block_comment_length(rest), Part::Comment);
    }
    let word = rest.iter().take_while(|byte| is_word(**byte)).count();
    let behind = &rest[word..];
    match &rest[..word] {
        b"r" | b"br" | b"cr" => {
            if let Some(length) = raw_string_length(behind) {
                return (word + length, Part::Literal);
            }
        }
        b"" | b"b" | b"c" => match behind.first() {
            Some(b'"') => return (word + quoted_length(behind, b'"'), Part::Literal),
            Some(b'\'') => {
                if let Some(length) = character_length(behind) {
                    return (word + length, Part::Literal);
                }
            }
            _ => {}
        },
        _ => {}
    }
    (word.max(1), Part::Code)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

fn block_comment_length(rest: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// Of a raw string without its `r`, if it is one and not a raw name such as `r#type`.
fn raw_string_length(rest: &[u8]) -> Option<usize> {
    let hashes = rest.iter().take_while(|byte| **byte == b'#').count();
    if rest.get(hashes) != Some(&b'"') {
        return None;
    }
    let mut closing = vec![b'"'];
    closing.resize(1 + hashes, b'#');
    let inside = hashes + 1;
    let found = rest[inside..].windows(closing.len()).position(|window| window == closing);
    Some(found.map_or(rest.len(), |length| inside + length + closing.len()))
}

fn quoted_length(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Of a character such as `'x'`, and not of a lifetime such as `'x`.
fn character_length(rest: &[u8]) -> Option<usize> {
    let first = *rest.get(1)?;
    if first == b'\\' {
        return Some(quoted_length(rest, b'\''));
    }
    let width = match first {
        0xF0.. => 4,
        0xE0.. => 3,
        0xC0.. => 2,
        _ => 1,
    };
    (rest.get(1 + width) == Some(&b'\'')).then_some(width + 2)
}

fn tokenise(code: &str) -> Vec<Token> {
    let bytes = code.as_bytes();
    let mut tokens = Vec::new();
    let mut start = 0;
    while start < bytes.len() {
        let word = bytes[start..].iter().take_while(|byte| is_word(**byte)).count();
        let (kind, length) = if word > 0 {
            (Some(Kind::Word), word)
        } else if bytes[start..].starts_with(b"::") {
            (Some(Kind::Path), 2)
        } else if bytes[start].is_ascii_whitespace() {
            (None, 1)
        } else {
            (Some(Kind::Sign(bytes[start])), 1)
        };
        if let Some(kind) = kind {
            tokens.push(Token { kind, start, end: start + length });
        }
        start += length;
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new(text.to_string())
    }

    #[test]
    fn comments_and_literals_are_not_code() {
        let check = |text: &str, words: &str| {
            let source = source(text);
            let found: Vec<_> =
                (0..source.tokens.len()).filter_map(|index| source.word(index)).collect();
            assert_eq!(found.join(" "), words, "{text}");
            assert_eq!(source.code.len(), text.len());
            assert_eq!(source.comments.len(), text.len());
        };
        check("a // b\nc", "a c");
        check("a /* b /* c */ d */ e", "a e");
        check(r#"a "b \" c" d"#, "a d");
        check(r##"a r#"b " c"# d"##, "a d");
        check(r#"a b"b" c"c" br"d" e"#, "a e");
        check("r#type x", "r type x");
        check("'a' b'b' '\\'' '\u{fc}' x", "x");
        check("fn f<'a>(x: &'a u8) {}", "fn f a x a u8");
        check("a \"never closed", "a");
        check("a '", "a");
        check("a /* never closed", "a");
    }

    #[test]
    fn paths_are_spread_out() {
        let check = |text: &str, expected: &[&str]| {
            let source = source(text);
            let paths: Vec<_> =
                source.paths().iter().map(|(_, segments)| segments.join("::")).collect();
            assert_eq!(paths, expected, "{text}");
        };
        check("use a::b;", &["use", "a::b"]);
        check(
            "use a::{b, c::{d, e as f}, self}; g",
            &["use", "a::b", "a::c::d", "a::c::e", "a::self", "g"],
        );
        check("use a::*;", &["use", "a"]);
        check("<T as a::B>::std::c", &["T", "as", "a::B", "c"]);
        check("use a::{b", &["use", "a::b"]);
    }

    #[test]
    fn functions_have_lengths() {
        let check = |text: &str, expected: &[(&str, usize)]| {
            let functions = source(text).functions();
            let found: Vec<_> = functions
                .iter()
                .map(|function| (function.name.as_str(), function.lines()))
                .collect();
            assert_eq!(found, expected, "{text}");
        };
        check("fn a() {}", &[("a", 1)]);
        check("fn a(\n x: [u8; 4],\n) -> u8 {\n {}\n \"}\"; // }\n}\n", &[("a", 6)]);
        check("trait T { fn a(); fn b() {\n}\n}", &[("b", 2)]);
        check("type F = fn(u8); fn a() {\n fn b() {}\n}", &[("a", 3), ("b", 1)]);
        check("fn a() {\n", &[("a", 1)]);
    }

    #[test]
    fn tests_are_found() {
        let check = |text: &str, expected: &[&str]| {
            let source = source(text);
            let ranges = source.tests();
            let found: Vec<_> = ranges.iter().map(|range| &text[range.clone()]).collect();
            assert_eq!(found, expected, "{text}");
        };
        check("#[cfg(test)]\nmod t { {} } fn f() {}", &["#[cfg(test)]\nmod t { {} }"]);
        check("#[cfg(test)] use a; fn f() {}", &["#[cfg(test)] use a;"]);
        check("#[cfg(test)] #[b(c)] fn f() {} g", &["#[cfg(test)] #[b(c)] fn f() {}"]);
        check("#[cfg(all(test, unix))] mod t {}", &["#[cfg(all(test, unix))] mod t {}"]);
        check("#[cfg(any(test, unix))] mod t {} #[cfg(not(test))] mod u {}", &[]);
        check("#![cfg(test)] fn f() {}", &["#![cfg(test)] fn f() {}"]);
        check("#[cfg(test)]", &["#[cfg(test)]"]);
    }
}

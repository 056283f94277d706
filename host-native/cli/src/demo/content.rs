//! Records that can be told from each other: what a round, a thread and a counter make.

use crate::output::Failure;
use std::path::Path;

/// Where values come from: a file's lines, or numbers.
pub(crate) struct Content {
    lines: Option<Vec<Vec<u8>>>,
}

/// Spreads every bit over all bits (the finaliser of SplitMix64).
pub(crate) const fn spread(state: u64) -> u64 {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Content {
    /// The lines of `input`, or made-up values.
    pub(crate) fn new(input: Option<&Path>) -> Result<Self, Failure> {
        let Some(input) = input else { return Ok(Self { lines: None }) };
        let bytes = std::fs::read(input).map_err(Failure::io(input.display().to_string()))?;
        let lines: Vec<_> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        Ok(Self { lines: Some(lines) })
    }

    /// The key and the value of one record.
    pub(crate) fn record(&self, round: u64, thread: u64, counter: u64) -> (String, Vec<u8>) {
        let number = spread(round << 48 ^ thread << 40 ^ counter);
        let value = match &self.lines {
            Some(lines) => {
                let at = usize::try_from(counter).unwrap_or(0) % lines.len().max(1);
                lines.get(at).cloned().unwrap_or_default()
            }
            None => made_up(number),
        };
        (format!("{round}/{thread}/{counter}"), value)
    }

    /// The round, the thread and the counter that a key names; `None` when it is no key of ours.
    pub(crate) fn parse(key: &str) -> Option<(u64, u64, u64)> {
        let mut numbers = key.split('/').map(|number| number.parse().ok());
        let parsed = (numbers.next()??, numbers.next()??, numbers.next()??);
        numbers.next().is_none().then_some(parsed)
    }
}

/// Up to 500 bytes that follow from a number.
fn made_up(number: u64) -> Vec<u8> {
    let length = usize::try_from(number % 500).unwrap_or(0);
    let mut state = number;
    let mut value = Vec::with_capacity(length + 8);
    while value.len() < length {
        state = spread(state);
        value.extend_from_slice(&state.to_le_bytes());
    }
    value.truncate(length);
    value
}

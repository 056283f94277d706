//! Test counts, read from what libtest prints at the end of every test binary:
//!
//! ```text
//!   test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s
//! ```
//!
//! Its JSON output would be the better source, but it is not stable.

use std::ops::AddAssign;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    /// The counts of one line, if it is a line of results.
    pub(crate) fn of_line(line: &str) -> Option<Self> {
        let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
        let count = |word: &str| {
            counts.split(';').find_map(|part| {
                let (number, name) = part.trim().split_once(' ')?;
                if name == word { number.parse::<u64>().ok() } else { None }
            })
        };
        Some(Self {
            passed: count("passed")?,
            failed: count("failed")?,
            skipped: count("ignored")?,
        })
    }

    pub(crate) fn ran(self) -> u64 {
        self.passed + self.failed
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Option<(u64, u64, u64)>) {
        let tally = Tally::of_line(line).map(|tally| (tally.passed, tally.failed, tally.skipped));
        assert_eq!(tally, expected, "{line}");
    }

    #[test]
    fn lines() {
        check(
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; \
             finished in 0.01s",
            Some((12, 0, 1)),
        );
        check(
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 4 filtered out",
            Some((3, 2, 0)),
        );
        check("test tally::lines ... ok", None);
        check("test result: ok. many passed; 0 failed; 0 ignored", None);
        check("test result: ok", None);
        check("", None);
    }

    #[test]
    fn sums() {
        let mut sum = Tally::default();
        sum += Tally { passed: 1, failed: 2, skipped: 3 };
        sum += Tally { passed: 10, failed: 20, skipped: 30 };
        assert_eq!(sum, Tally { passed: 11, failed: 22, skipped: 33 });
        assert_eq!(sum.ran(), 33);
    }
}

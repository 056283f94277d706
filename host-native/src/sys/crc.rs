//! CRC32C by what the processor has for it.
#![allow(unsafe_code)]

use seawall_core::wire::checksum::Crc32cFn;

/// The fastest CRC32C that this machine has: what a log here uses, and what
/// [`Config::crc`](seawall_core::config::Config::crc) is to be where somebody runs the core by
/// himself.
///
/// Where an x86-64 processor multiplies without carry (PCLMULQDQ), that is a function of our own:
/// the crate `crc32c` takes as long to begin and to end as to sum a short record, and goes three
/// ways at once, by which AMD's processors gain nothing. Everywhere else it is the crate.
pub fn fastest_crc32c() -> Crc32cFn {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("sse4.2") && is_x86_feature_detected!("pclmulqdq") {
        return |sum, bytes| {
            // SAFETY: the processor has both, and this is handed out nowhere else.
            unsafe { folding::crc32c(sum, bytes) }
        };
    }
    crc32c::crc32c_append
}

/// Folding: bytes far from the end are multiplied onto those near it, sixteen at a time and four of
/// those at once, until so few are left that the processor's `crc32` takes them.
///
/// As in Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction"
/// (Intel, 2009).
#[cfg(target_arch = "x86_64")]
mod folding {
    use std::arch::x86_64::{
        __m128i, _mm_clmulepi64_si128, _mm_crc32_u8, _mm_crc32_u16, _mm_crc32_u32, _mm_crc32_u64,
        _mm_cvtsi32_si128, _mm_cvtsi128_si64, _mm_extract_epi64, _mm_set_epi64x, _mm_xor_si128,
    };

    /// The Castagnoli polynomial, its bits reversed.
    const POLYNOMIAL: u32 = 0x82f6_3b78;

    /// x to the power `exponent` modulo the polynomial, its bits reversed.
    const fn power(exponent: u32) -> i64 {
        let mut value: u32 = 1 << 31;
        let mut done = 0;
        while done < exponent {
            value = if value & 1 == 1 { (value >> 1) ^ POLYNOMIAL } else { value >> 1 };
            done += 1;
        }
        value as i64
    }

    /// What takes sixteen bytes so many bits on: for the eight that are further from the end, and
    /// for the other eight, 64 bits nearer. The product of reversed numbers stands one bit too low,
    /// and a factor of 32 bits fills the upper half of its 64: 33 bits less.
    const fn far_and_near(bits: u32) -> (i64, i64) {
        (power(bits + 64 - 33), power(bits - 33))
    }

    const BY_64_BYTES: (i64, i64) = far_and_near(512);
    const BY_32_BYTES: (i64, i64) = far_and_near(256);
    const BY_16_BYTES: (i64, i64) = far_and_near(128);

    /// Continues a CRC32C over more bytes.
    #[target_feature(enable = "sse4.2,pclmulqdq")]
    pub(super) fn crc32c(sum: u32, bytes: &[u8]) -> u32 {
        let mut register = !sum;
        let (blocks, rest) = bytes.as_chunks::<64>();
        if let Some((first, more)) = blocks.split_first() {
            let by_64 = factors(BY_64_BYTES);
            let [mut a, mut b, mut c, mut d] = quarters(first);
            a = _mm_xor_si128(a, _mm_cvtsi32_si128(register.cast_signed()));
            for block in more {
                let [next_a, next_b, next_c, next_d] = quarters(block);
                a = fold(a, by_64, next_a);
                b = fold(b, by_64, next_b);
                c = fold(c, by_64, next_c);
                d = fold(d, by_64, next_d);
            }
            let by_16 = factors(BY_16_BYTES);
            let last = fold(fold(a, by_16, b), factors(BY_32_BYTES), fold(c, by_16, d));
            let far = _mm_cvtsi128_si64(last).cast_unsigned();
            let near = _mm_extract_epi64::<1>(last).cast_unsigned();
            register = low(_mm_crc32_u64(_mm_crc32_u64(0, far), near));
        }
        !few(register, rest)
    }

    /// Goes on over fewer than 64 bytes.
    #[target_feature(enable = "sse4.2")]
    fn few(register: u32, bytes: &[u8]) -> u32 {
        let (words, mut rest) = bytes.as_chunks::<8>();
        let sum = |sum, word: &[u8; 8]| _mm_crc32_u64(sum, u64::from_le_bytes(*word));
        let mut register = low(words.iter().fold(u64::from(register), sum));
        if let Some((four, after)) = rest.split_first_chunk() {
            register = _mm_crc32_u32(register, u32::from_le_bytes(*four));
            rest = after;
        }
        if let Some((two, after)) = rest.split_first_chunk() {
            register = _mm_crc32_u16(register, u16::from_le_bytes(*two));
            rest = after;
        }
        rest.iter().fold(register, |register, byte| _mm_crc32_u8(register, *byte))
    }

    /// `bytes` taken on by `factors`, onto what stands there.
    #[target_feature(enable = "sse2,pclmulqdq")]
    fn fold(bytes: __m128i, factors: __m128i, there: __m128i) -> __m128i {
        let far = _mm_clmulepi64_si128::<0x00>(bytes, factors);
        let near = _mm_clmulepi64_si128::<0x11>(bytes, factors);
        _mm_xor_si128(_mm_xor_si128(far, near), there)
    }

    #[target_feature(enable = "sse2")]
    fn factors((far, near): (i64, i64)) -> __m128i {
        _mm_set_epi64x(near, far)
    }

    #[target_feature(enable = "sse2")]
    fn quarters(block: &[u8; 64]) -> [__m128i; 4] {
        let (words, _) = block.as_chunks::<8>();
        let quarter = |at: usize| {
            let [far, near] = [words[at], words[at + 1]].map(i64::from_le_bytes);
            _mm_set_epi64x(near, far)
        };
        [quarter(0), quarter(2), quarter(4), quarter(6)]
    }

    /// The instruction leaves 32 bits.
    #[allow(clippy::cast_possible_truncation, reason = "the upper half is zero")]
    const fn low(sum: u64) -> u32 {
        sum as u32
    }
}

#[cfg(test)]
mod tests {
    use super::fastest_crc32c;
    use seawall_core::wire::checksum::crc32c as portable;

    /// Bytes without pattern, from the multiplier of Knuth's MMIX.
    fn noise(count: usize) -> Vec<u8> {
        let next = |state: &u64| {
            Some(
                state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407),
            )
        };
        let states = std::iter::successors(Some(1_u64), next);
        let high = |state: u64| {
            let [.., high] = state.to_le_bytes();
            high
        };
        states.map(high).take(count).collect()
    }

    #[test]
    fn known_sums() {
        let crc = fastest_crc32c();
        // RFC 3720, B.4, and the usual check value.
        assert_eq!(crc(0, b"123456789"), 0xe306_9283);
        assert_eq!(crc(0, &[0; 32]), 0x8a91_36aa);
        assert_eq!(crc(0, &[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc(0, b""), 0);
        assert_eq!(crc(7, b""), 7);
    }

    #[test]
    fn every_length_and_beginning_sums_as_the_portable_function_does() {
        let crc = fastest_crc32c();
        let bytes = noise(1_024);
        for length in 0..=600 {
            for from in [0, 1, 7, 8, 13] {
                let piece = &bytes[from..from + length];
                for sum in [0, 1, 0xdead_beef, u32::MAX] {
                    assert_eq!(crc(sum, piece), portable(sum, piece), "{from}, {length}, {sum:#x}");
                }
            }
        }
    }

    #[test]
    fn a_sum_goes_on_wherever_it_was_left() {
        let crc = fastest_crc32c();
        let bytes = noise(70_001);
        let whole = portable(0, &bytes);
        assert_eq!(crc(0, &bytes), whole);
        for at in [1, 63, 64, 65, 127, 4_096, 69_937, 70_000] {
            let (one, other) = bytes.split_at(at);
            assert_eq!(crc(crc(0, one), other), whole, "{at}");
        }
    }
}

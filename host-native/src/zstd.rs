//! Zstandard by its C library, which packs and unpacks several times as fast as the core's own, and
//! at any level. What either packs, both unpack.

use seawall_core::compress::Zstd;
use std::fmt;
use zstd_safe::{CCtx, DCtx};

/// The library's own default.
const LEVEL_DEFAULT: i32 = 3;

/// The C library, with its memory for packing and for unpacking.
pub(crate) struct Libzstd {
    level: i32,
    packs: Option<CCtx<'static>>,
    unpacks: Option<DCtx<'static>>,
}

impl Default for Libzstd {
    fn default() -> Self {
        Self { level: LEVEL_DEFAULT, packs: None, unpacks: None }
    }
}

impl fmt::Debug for Libzstd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Libzstd").field("level", &self.level).finish_non_exhaustive()
    }
}

impl Libzstd {
    /// Packs at this level from now on; `None`: at the library's default.
    pub(crate) fn set_level(&mut self, level: Option<u8>) {
        self.level = level.map_or(LEVEL_DEFAULT, i32::from);
    }
}

impl Zstd for Libzstd {
    fn pack(&mut self, value: &[u8], packed: &mut [u8]) -> Option<usize> {
        let context = match &mut self.packs {
            Some(context) => context,
            none => none.insert(CCtx::try_create()?),
        };
        context.compress(packed, value, self.level).ok()
    }

    fn unpack(&mut self, packed: &[u8], value: &mut [u8]) -> Option<usize> {
        let context = match &mut self.unpacks {
            Some(context) => context,
            none => none.insert(DCtx::try_create()?),
        };
        context.decompress(value, packed).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seawall_core::compress::Ruzstd;

    fn packed(library: &mut impl Zstd, value: &[u8]) -> Vec<u8> {
        let mut packed = vec![0; value.len()];
        let length = library.pack(value, &mut packed).unwrap();
        packed.truncate(length);
        packed
    }

    fn at_level(level: u8) -> Libzstd {
        let mut library = Libzstd::default();
        library.set_level(Some(level));
        library
    }

    /// Numbers as text: it packs, and the better the harder one looks.
    fn text(length: usize) -> Vec<u8> {
        let words = (0_u64..).map(|i| format!("{} {},", i % 97 * 7_919, i * i % 10_007));
        words.flat_map(String::into_bytes).take(length).collect()
    }

    #[test]
    fn each_library_unpacks_what_the_other_has_packed() {
        // Longer than the window that every decoder has, too.
        for length in [1, 100, 5_000, 200_000, 9 << 20] {
            let value = text(length);
            let mut unpacked = vec![0; length];
            let mut libraries = vec![at_level(1), at_level(3)];
            libraries.extend((length < 9 << 20).then(|| at_level(22)));
            for mut library in libraries {
                let mut packed = vec![0; length + 100];
                let packed_bytes = library.pack(&value, &mut packed).unwrap();
                let frame = &packed[..packed_bytes];
                assert_eq!(Ruzstd::default().unpack(frame, &mut unpacked), Some(length));
                assert!(unpacked == value, "{library:?}, {length} bytes");
                unpacked.fill(0);
                assert_eq!(library.unpack(frame, &mut unpacked), Some(length));
                assert!(unpacked == value, "{library:?}, {length} bytes");
                unpacked.fill(0);
            }
            if length >= 5_000 {
                let frame = packed(&mut Ruzstd::default(), &value);
                assert_eq!(Libzstd::default().unpack(&frame, &mut unpacked), Some(length));
                assert!(unpacked == value, "{length} bytes");
            }
        }
    }

    #[test]
    fn a_level_holds_until_another_is_set() {
        let value = text(100_000);
        let mut library = Libzstd::default();
        let unset = packed(&mut library, &value).len();
        let fast = packed(&mut at_level(1), &value).len();
        let small = packed(&mut at_level(19), &value).len();
        assert!(small < fast, "{small} bytes at level 19, {fast} at level 1");
        library.set_level(Some(19));
        assert_eq!(packed(&mut library, &value).len(), small);
        library.set_level(None);
        assert_eq!(packed(&mut library, &value).len(), unset);
    }

    #[test]
    fn what_has_no_room_or_is_no_frame_is_refused() {
        let mut library = Libzstd::default();
        assert_eq!(library.pack(&text(1_000), &mut [0; 10]), None);
        let frame = packed(&mut library, &text(1_000));
        assert_eq!(library.unpack(&frame, &mut [0; 999]), None);
        assert_eq!(library.unpack(&frame[..frame.len() - 1], &mut [0; 1_000]), None);
        assert_eq!(library.unpack(b"no frame at all", &mut [0; 1_000]), None);
        assert_eq!(library.unpack(&frame, &mut [0; 1_000]), Some(1_000));
    }
}

//! Makes the first inputs of the fuzzer from the golden logs: `cargo run -p seawall-tests --example
//! seed_corpus`. What a fuzzer finds on its way is added to `core/fuzz/corpus` by hand.

use seawall_tests::fuzz::pack;
use seawall_tests::random::Random;
use std::io;
use std::path::Path;

/// Where a segment's frames begin.
const FRAMES_AT: usize = 128;
/// Longer inputs teach a fuzzer nothing that shorter ones do not.
const BYTES_MAX: usize = 4_096;

fn main() -> io::Result<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpus = here.join("../core/fuzz/corpus");
    let put = |target: &str, name: &str, bytes: &[u8]| {
        let folder = corpus.join(target);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(name), bytes)
    };
    for entry in std::fs::read_dir(here.join("golden/v1"))? {
        let folder = entry?.path();
        let golden = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut files = Vec::new();
        let mut names: Vec<_> =
            std::fs::read_dir(&folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        names.sort();
        for path in names {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mut content = std::fs::read(&path)?;
            let number = match name.strip_suffix(".wal").and_then(|number| number.parse().ok()) {
                Some(number) => number,
                None if name == "MANIFEST" => 0,
                None => continue,
            };
            if number > 0 {
                let used = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                content.truncate(used.min(BYTES_MAX));
                let frames = content.get(FRAMES_AT..).unwrap_or_default();
                for flags in [0, 2] {
                    let frames = [&[flags], frames].concat();
                    put("scan", &format!("{golden}-{number}-{flags}"), &frames)?;
                    put("frame", &format!("{golden}-{number}-{flags}"), &frames)?;
                }
            }
            files.push((number, content));
        }
        for flags in [1, 1 + 4 + 8, 1 + 16, 0] {
            let bytes = [vec![flags], pack(&files)].concat();
            put("recovery", &format!("{golden}-{flags}"), &bytes)?;
        }
    }
    let text = b"the quick brown fox jumps over the lazy dog, the quick brown fox".repeat(4);
    for flags in 0..3 {
        put("decompress", &format!("text-{flags}"), &[&[flags, 0, 1], &text[..]].concat())?;
    }
    let mut random = Random::new(1);
    for number in 0..12 {
        let life: Vec<u8> = (0..4 + 3 * 60).map(|_| random.number().to_le_bytes()[0]).collect();
        put("machine", &format!("life-{number}"), &life)?;
    }
    Ok(())
}

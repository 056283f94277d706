//! The contract itself, and what the component asks for.

use crate::component;
use wit_parser::{Resolve, Stability, WorldItem};

/// What a package's own checks accept.
#[test]
fn the_contract_is_valid_and_every_item_says_since_when() {
    let mut resolve = Resolve::default();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit");
    let (package, _) = resolve.push_dir(folder).expect("wit/ is valid");
    let package = &resolve.packages[package];
    assert_eq!(package.name.to_string(), "seawall:log@0.1.0");
    assert!(package.docs.contents.is_some() || !package.interfaces.is_empty());
    let since = |stability: &Stability| matches!(stability, Stability::Stable { .. });
    for (name, id) in &package.interfaces {
        let interface = &resolve.interfaces[*id];
        assert!(since(&interface.stability), "{name} does not say since when");
        assert!(interface.docs.contents.is_some(), "{name} is not documented");
        for (item, id) in &interface.types {
            let defined = &resolve.types[*id];
            assert!(since(&defined.stability), "{name}.{item} does not say since when");
            // A use of another interface's type is documented there.
            let is_own =
                !matches!(defined.kind, wit_parser::TypeDefKind::Type(wit_parser::Type::Id(_)));
            assert!(!is_own || defined.docs.contents.is_some(), "{name}.{item} is not documented");
        }
        for (item, function) in &interface.functions {
            assert!(since(&function.stability), "{name}.{item} does not say since when");
            assert!(function.docs.contents.is_some(), "{name}.{item} is not documented");
        }
    }
    let world = &resolve.worlds[package.worlds["seawall"]];
    assert!(world.exports.values().any(|item| matches!(item, WorldItem::Interface { .. })));
}

/// All that the component may ask of its host.
#[test]
fn it_imports_a_folder_the_time_and_random_numbers_and_nothing_else() {
    let allowed = [
        "wasi:clocks/wall-clock",
        "wasi:filesystem/preopens",
        "wasi:filesystem/types",
        "wasi:io/error",
        "wasi:io/poll",
        "wasi:io/streams",
        "wasi:random/random",
    ];
    for name in ["seawall.wasm", "seawall-simd.wasm"] {
        let engine = wasmtime::Engine::default();
        let component = wasmtime::component::Component::new(&engine, component(name)).unwrap();
        let component_type = component.component_type();
        let imports: Vec<String> =
            component_type.imports(&engine).map(|(name, _)| name.to_owned()).collect();
        println!("{name} imports {imports:?}");
        assert!(!imports.is_empty());
        for import in &imports {
            let plain = import.split('@').next().unwrap();
            assert!(allowed.contains(&plain), "{name} imports {import}");
        }
        let exports: Vec<String> =
            component_type.exports(&engine).map(|(name, _)| name.to_owned()).collect();
        assert_eq!(exports, ["seawall:log/types@0.1.0", "seawall:log/log@0.1.0"]);
    }
}

/// It is loaded over networks and compiled before it runs.
#[test]
fn it_is_under_400_kib() {
    for name in ["seawall.wasm", "seawall-simd.wasm"] {
        let bytes = component(name).len();
        println!("{name}: {bytes} bytes");
        assert!(bytes < 400 << 10, "{name} has {bytes} bytes");
    }
}

/// What the README shows is what is built.
#[test]
fn the_readme_loads_the_component_as_the_example_does() {
    let example = include_str!("../../examples/load.rs");
    let shown = &example[example.find("fn run").expect("it is there")..];
    let readme = include_str!("../../../../README.md");
    assert!(readme.contains(shown), "the README lacks:\n{shown}");
}

/// Both builds write what the native log reads, with either checksum.
#[test]
fn both_builds_write_logs_that_the_native_one_reads() {
    use seawall_wasmtime::{Limits, Program, Record, Wal, types};
    for name in ["seawall.wasm", "seawall-simd.wasm"] {
        let program = Program::compile(&component(name), &Limits::default()).unwrap();
        for checksum in [types::Checksum::Crc32c, types::Checksum::Xxh3] {
            let temp = tempfile::tempdir().unwrap();
            let config = types::Config {
                checksum,
                compression: types::Compression::Lz4,
                ..program.default_config()
            };
            let (wal, _) = Wal::open(&program, temp.path(), config).wait().unwrap();
            let values: Vec<Vec<u8>> = (0..200).map(|bytes| vec![7; bytes * 13]).collect();
            let records: Vec<_> = values.iter().map(|value| Record::put(b"key", value)).collect();
            wal.append_batch(&records).wait().unwrap();
            wal.close().wait().unwrap();
            drop(wal);
            let config = seawall::WalConfig::in_dir(temp.path());
            let (native, info) = seawall::blocking::Wal::open(config).unwrap();
            assert!(!info.corruption_detected, "{name}, {checksum:?}");
            let read = seawall_tests::records::read_all(&native);
            let read: Vec<Vec<u8>> = read.iter().map(|entry| entry.value.to_vec()).collect();
            assert_eq!(read, values, "{name}, {checksum:?}");
        }
    }
}

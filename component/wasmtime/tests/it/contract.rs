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

//! The component has the authority of its folder, and of nothing else.

#![cfg(unix)]

use crate::{component, program};
use seawall_wasmtime::{Error, Limits, Program, Record, Wal, types};
use std::os::unix::fs::symlink;
use std::path::Path;
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

/// Generated anew, to call the component as any other host would.
mod raw {
    #![allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub)]
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "seawall:log/seawall",
        with: { "wasi": wasmtime_wasi::p2::bindings::sync },
    });
}

use raw::exports::seawall::log::types as raw_types;

struct Room(WasiCtx, ResourceTable);

impl WasiView for Room {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.0, table: &mut self.1 }
    }
}

/// Opens a log by the contract alone, in a host that links all of WASI.
fn open(preopened: &[&Path], folder: &str, owner: Option<&str>) -> Result<(), raw_types::Error> {
    let engine = Engine::default();
    let component = Component::new(&engine, component("seawall.wasm")).unwrap();
    let mut linker = Linker::new(&engine);
    wasmtime_wasi::p2::add_to_linker_sync(&mut linker).unwrap();
    let mut context = WasiCtxBuilder::new();
    for (number, path) in preopened.iter().enumerate() {
        context.preopened_dir(path, format!("/{number}"), FsPerms::ReadWrite).unwrap();
    }
    let mut store = Store::new(&engine, Room(context.build(), ResourceTable::new()));
    let seawall = raw::Seawall::instantiate(&mut store, &component, &linker).unwrap();
    let log = seawall.seawall_log_log();
    let mut config = log.call_default_config(&mut store).unwrap();
    if let Some(owner) = owner {
        config.exclusion = raw_types::Exclusion::Owner(owner.to_owned());
    }
    let (wal, _) = log.log().call_open(&mut store, folder, &config).unwrap()?;
    log.log().call_close(&mut store, wal).unwrap()
}

/// The names in a folder, sorted.
fn names(path: &Path) -> Vec<String> {
    let names = std::fs::read_dir(path).unwrap();
    let mut names: Vec<_> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn no_name_leads_out_of_the_folder() {
    let temp = tempfile::tempdir().unwrap();
    let (inside, outside) = (temp.path().join("inside"), temp.path().join("outside"));
    std::fs::create_dir(&inside).unwrap();
    std::fs::create_dir(&outside).unwrap();
    symlink(&outside, inside.join("link")).unwrap();
    symlink("../outside", inside.join("relative")).unwrap();
    let absolute = outside.to_str().unwrap();
    for folder in ["..", ".", "../outside", "a/b", "/", absolute, "link", "relative", "a\\b"] {
        let refused = open(&[&inside], folder, None);
        assert!(matches!(refused, Err(raw_types::Error::Folder(_))), "{folder}: {refused:?}");
        println!("{folder}: {}", refused.unwrap_err());
    }
    assert_eq!(names(&outside), [""; 0]);
    open(&[&inside], "log", None).unwrap();
    assert_eq!(names(&inside), ["link", "log", "relative"]);
}

#[test]
fn no_file_of_the_log_may_be_a_link() {
    for name in ["00000000000000000001.wal", "MANIFEST", "OWNER", "quarantine"] {
        let temp = tempfile::tempdir().unwrap();
        let (inside, secret) = (temp.path().join("inside"), temp.path().join("secret"));
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(&secret, b"not to be read, not to be changed").unwrap();
        symlink(&secret, inside.join(name)).unwrap();
        let opened = open(&[&inside], "", Some("a test"));
        // A link in the way of what is not needed yet is left alone.
        if name != "quarantine" {
            println!("{name}: {}", opened.unwrap_err());
        }
        assert_eq!(std::fs::read(&secret).unwrap(), b"not to be read, not to be changed");
        assert!(inside.join(name).is_symlink(), "{name} is still there");
    }
}

#[test]
fn there_must_be_one_folder() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for preopened in [&[][..], &[one.path(), two.path()]] {
        let refused = open(preopened, "", None);
        assert!(matches!(refused, Err(raw_types::Error::Folder(_))), "{refused:?}");
    }
}

#[test]
fn an_owner_keeps_others_out_until_it_closes() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("OWNER"), "node 7").unwrap();
    let refused = open(&[temp.path()], "", Some("node 8"));
    match refused {
        Err(raw_types::Error::Locked(owner)) => assert_eq!(owner, "node 7"),
        other => panic!("{other:?}"),
    }
    std::fs::remove_file(temp.path().join("OWNER")).unwrap();
    open(&[temp.path()], "", Some("node 8")).unwrap();
    assert!(!temp.path().join("OWNER").exists());
}

/// The embedder's lock: no link out, and the native host's own.
#[test]
fn the_lock_is_the_native_hosts_and_no_link() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("deep/er/log");
    let (wal, _) = Wal::open(program(), &folder, program().default_config()).wait().unwrap();
    let second = Wal::open(program(), &folder, program().default_config()).wait();
    assert!(matches!(second, Err(Error::Locked(_))), "{second:?}");
    let native = || seawall::blocking::Wal::open(seawall::WalConfig::in_dir(&folder));
    assert!(matches!(native(), Err(seawall::Error::Locked { .. })));
    // Not even for who takes it for a leftover.
    std::fs::remove_file(folder.join("LOCK")).unwrap();
    assert!(matches!(native(), Err(seawall::Error::Locked { .. })));
    drop(wal);
    let (native, _) = native().unwrap();
    for _ in 0..2 {
        let refused = Wal::open(program(), &folder, program().default_config()).wait();
        assert!(matches!(refused, Err(Error::Locked(_))), "{refused:?}");
        std::fs::remove_file(folder.join("LOCK")).unwrap();
    }
    native.close().unwrap();

    let other = temp.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let outside = temp.path().join("outside");
    symlink(&outside, other.join("LOCK")).unwrap();
    let refused = Wal::open(program(), &other, program().default_config()).wait();
    assert!(matches!(refused, Err(Error::Folder(..))), "{refused:?}");
    assert!(!outside.exists());
}

/// What is linked is what the log needs: a component that asks for more does not start.
#[test]
fn a_component_that_asks_for_more_is_refused() {
    for (interface, function) in [
        ("wasi:cli/environment@0.2.0", "initial-cwd"),
        ("wasi:cli/exit@0.2.0", "exit"),
        ("wasi:sockets/instance-network@0.2.0", "instance-network"),
        ("wasi:random/insecure@0.2.0", "get-insecure-random-u64"),
    ] {
        let text = format!(
            "(component (import \"{interface}\" (instance (export \"{function}\" (func)))))"
        );
        let bytes = wat::parse_str(text).unwrap();
        let refused = Program::compile(&bytes, &Limits::default()).unwrap_err().to_string();
        assert!(refused.contains(interface), "{refused}");
    }
}

/// The log as it is: everything it keeps is in its folder.
#[test]
fn nothing_is_left_outside() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("log");
    let config = types::Config { segment_bytes_max: 16 << 10, ..program().default_config() };
    let (wal, _) = Wal::open(program(), &folder, config).wait().unwrap();
    let value = vec![1; 1_000];
    for number in 0..100_u32 {
        let key = number.to_le_bytes();
        wal.append(&seawall_wasmtime::Record::put(&key, &value)).wait().unwrap();
    }
    wal.close().wait().unwrap();
    assert_eq!(names(temp.path()), ["log"]);
}

/// A name that is no text is none of the log's, and keeps nobody from it.
#[cfg(target_os = "linux")]
#[test]
fn a_name_that_is_no_text_is_passed_over() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join(OsStr::from_bytes(b"\xffx")), "theirs").unwrap();
    std::fs::write(temp.path().join("stray"), "theirs").unwrap();
    for last in 0..2 {
        let opened = Wal::open(program(), temp.path(), program().default_config()).wait();
        let (wal, recovery) = opened.unwrap();
        assert_eq!((recovery.last, recovery.strays), (last, vec!["stray".to_owned()]));
        wal.append(&Record::put(b"key", b"value")).wait().unwrap();
        wal.close().wait().unwrap();
    }
}

/// Whatever a setting is, the log works or says no: no number brings it down.
#[test]
fn every_setting_at_its_ends_works_or_is_refused() {
    type Set = fn(&mut types::Config, u64);
    let settings: [(&str, Set); 6] = [
        ("segment-bytes-max", |config, number| config.segment_bytes_max = number),
        ("segment-age-millis-max", |config, number| config.segment_age_millis_max = Some(number)),
        ("batch-micros", |config, number| {
            config.fsync_policy = types::FsyncPolicy::BatchMicros(number);
        }),
        ("compression-threshold-bytes", |config, number| {
            config.compression = types::Compression::Lz4;
            config.compression_threshold_bytes = number;
        }),
        ("record-bytes-max", |config, number| config.record_bytes_max = number),
        ("batch-bytes", |config, number| config.batch_bytes = number),
    ];
    let values = [vec![7; 10], vec![8; 100 << 10], vec![9; 3 << 20]];
    for (name, set) in settings {
        for number in [0, 1, 4 << 10, 1 << 20, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let temp = tempfile::tempdir().unwrap();
            let mut config = program().default_config();
            set(&mut config, number);
            let opened = Wal::open(program(), temp.path(), config).wait();
            let (wal, _) = match opened {
                Ok(opened) => opened,
                Err(Error::Log(types::Error::Invalid(_))) => continue,
                Err(error) => panic!("{name} {number}: {error}"),
            };
            for value in &values {
                let appended = match wal.append(&Record::put(b"key", value)).wait() {
                    Ok(appended) => appended,
                    Err(Error::Log(types::Error::TooLarge(_))) => continue,
                    Err(error) => panic!("{name} {number}: {error}"),
                };
                let cursor = wal.read_from(appended.first).wait().unwrap();
                let page = cursor.read_batch(64 << 10).wait().unwrap();
                let found = page.records().next().unwrap();
                assert_eq!(found.record.value, value, "{name} {number}");
            }
            wal.close().wait().unwrap();
        }
    }
}

/// Who stops waiting for a cursor leaves none behind.
#[cfg(target_os = "linux")]
#[test]
fn a_cursor_that_nobody_takes_is_let_go() {
    let temp = tempfile::tempdir().unwrap();
    let program = program();
    let (wal, _) = Wal::open(program, temp.path(), program.default_config()).wait().unwrap();
    wal.append(&Record::put(b"key", b"value")).wait().unwrap();
    let files = || seawall_tests::descriptors::open_files(temp.path()).len();
    drop(wal.read_from(types::Start::First).wait().unwrap());
    wal.stats().wait().unwrap();
    let before = files();
    for _ in 0..100 {
        drop(wal.read_from(types::Start::First));
    }
    // The first answer says that all have been made, the second that all were let go.
    wal.stats().wait().unwrap();
    wal.stats().wait().unwrap();
    assert_eq!(files(), before);
    wal.close().wait().unwrap();
}

//! Where these layers are not.
#![cfg(not(target_os = "linux"))]

#[test]
fn layers() {
    println!("skipped: the mounts and devices of these tests are those of Linux");
}

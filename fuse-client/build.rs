//! mount(8) looks for a helper called `mount.chordfs`, and a Cargo target may not have a dot in its name.
//! So the binary is built as `mount-chordfs`, and this script creates a symbolic link with the real name beside it.

use std::{env, os::unix::fs::symlink, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("Cargo sets OUT_DIR"));
    // OUT_DIR is <target>/<profile>/build/<package>/out.
    let Some(profile) = out.ancestors().nth(3) else { return };
    let link = profile.join("mount.chordfs");
    if link.symlink_metadata().is_ok() {
        return;
    }
    if let Err(error) = symlink("mount-chordfs", &link) {
        println!("cargo::warning=no link mount.chordfs beside the binary: {error}");
    }
}

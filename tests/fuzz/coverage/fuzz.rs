//! One target, named by `CHORDFS_FUZZ_TARGET`, under libFuzzer.
#![no_main]

use std::sync::LazyLock;

use chordfs_fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let wanted = std::env::var("CHORDFS_FUZZ_TARGET").unwrap_or_default();
    TARGETS.iter().find(|target| target.name == wanted).expect("CHORDFS_FUZZ_TARGET names a target")
});

fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));

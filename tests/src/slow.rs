//! Suites that take minutes run only where somebody asks for them.

/// Whether SLOW_TESTS is set. A slow test that is not wanted says so and returns.
pub fn is_slow_run() -> bool {
    let wanted = std::env::var_os("SLOW_TESTS").is_some();
    if !wanted {
        eprintln!("skipped: SLOW_TESTS is not set");
    }
    wanted
}

//! Counts the rows that an operation touches, for the tests of its bounds. Outside of tests this is nothing.

#[cfg(test)]
thread_local! {
    static ROWS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Adds rows that are changed, or looked at in a loop.
#[inline]
pub(super) fn count(rows: usize) {
    #[cfg(test)]
    ROWS.with(|count| count.set(count.get() + rows));
    #[cfg(not(test))]
    let _ = rows;
}

/// Returns how many rows this thread has touched since the last call.
#[cfg(test)]
pub(super) fn take() -> usize {
    ROWS.with(|count| count.replace(0))
}

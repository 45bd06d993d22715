//! The deadline of one operation that makes several requests: a program waits for all of them together. Each request
//! has a deadline of its own, which the deadline of the operation shortens. It is kept with the task that runs the
//! operation, so that no function in between has to pass it on; work that is spawned is not bounded by it.

use std::{cell::Cell, time::Duration};

use tokio::time::{Instant, timeout_at};

tokio::task_local! {
    static OPERATION: Operation;
}

struct Operation {
    deadline: Duration,
    end: Cell<Instant>,
    on_failure: Box<dyn Fn() + Send>,
}

/// Runs an operation that ends `left` from now, or `deadline` after its last [progress](note_progress). Calls
/// `on_failure` when it [fails](note_failure).
pub async fn run<T>(
    left: Duration,
    deadline: Duration,
    on_failure: impl Fn() + Send + 'static,
    operation: impl Future<Output = T>,
) -> T {
    let end = Cell::new(Instant::now() + left);
    OPERATION.scope(Operation { deadline, end, on_failure: Box::new(on_failure) }, operation).await
}

/// The end of a wait for at most `limit`: no later than that of the operation that waits.
pub fn end_of_wait(limit: Duration) -> Instant {
    let end = Instant::now() + limit;
    OPERATION.try_with(|operation| operation.end.get().min(end)).unwrap_or(end)
}

/// Whether the operation has no time left.
pub fn is_over() -> bool {
    OPERATION.try_with(|operation| operation.end.get() <= Instant::now()).unwrap_or(false)
}

/// Waits for something that has a deadline of its own; `None` when the operation ends before it.
pub async fn within<T>(wait: impl Future<Output = T>) -> Option<T> {
    match OPERATION.try_with(|operation| operation.end.get()) {
        Ok(end) => timeout_at(end, wait).await.ok(),
        Err(_) => Some(wait.await),
    }
}

/// Notes that a part of the operation's data was stored: however much data there is, an operation that makes progress
/// is not cut off.
pub fn note_progress() {
    // Outside of an operation there is nothing to extend.
    let _ = OPERATION.try_with(|operation| operation.end.set(Instant::now() + operation.deadline));
}

/// Notes that the operation is about to return an error.
pub fn note_failure() {
    let _ = OPERATION.try_with(|operation| (operation.on_failure)());
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn all_waits_of_an_operation_share_its_deadline() {
        let begun = Instant::now();
        run(DEADLINE, DEADLINE, || {}, async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            assert_eq!(end_of_wait(DEADLINE), begun + DEADLINE);
            assert_eq!(end_of_wait(Duration::from_secs(3)), begun + Duration::from_secs(23));
            note_progress();
            assert_eq!(end_of_wait(DEADLINE), begun + Duration::from_secs(50));
            assert_eq!(within(std::future::pending::<()>()).await, None);
            assert_eq!(Instant::now(), begun + Duration::from_secs(50));
        })
        .await;
        assert_eq!(end_of_wait(DEADLINE), Instant::now() + DEADLINE, "outside of an operation");
    }
}

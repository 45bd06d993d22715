//! Background tasks, with a gate for those that must be able to stand still: the simulation of the data path puts a
//! whole mount to sleep, while the tasks of all others run on. A task that is begun by one behind a gate is behind it,
//! too. Elsewhere there are no gates, and this costs a look at a thread-local variable for each task.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{runtime::Handle, task::JoinHandle};

tokio::task_local! {
    static GATE: Arc<dyn TaskGate>;
}

/// Decides when tasks run.
pub trait TaskGate: Send + Sync {
    /// Calls `poll` once, or wakes the task of `context` when it may be called.
    fn pass(&self, context: &mut Context<'_>, poll: &mut dyn FnMut(&mut Context<'_>));
}

/// As [`tokio::spawn`].
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    spawn_on(&Handle::current(), future)
}

/// As [`Handle::spawn`].
pub fn spawn_on<F>(runtime: &Handle, future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    match GATE.try_with(Arc::clone) {
        Ok(gate) => runtime.spawn(behind(gate, future)),
        Err(_) => runtime.spawn(future),
    }
}

/// Runs `future`, and every task that it begins, when the gate lets it.
pub async fn behind<F: Future>(gate: Arc<dyn TaskGate>, future: F) -> F::Output {
    let mut future = pin!(GATE.scope(gate.clone(), future));
    poll_fn(|context| {
        let mut polled = Poll::Pending;
        gate.pass(context, &mut |context| polled = future.as_mut().poll(context));
        polled
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, task::Waker, time::Duration};

    use tokio::{sync::oneshot, time::timeout};

    use super::*;

    #[derive(Default)]
    struct Door {
        is_open: Mutex<bool>,
        waiting: Mutex<Vec<Waker>>,
    }

    impl TaskGate for Door {
        fn pass(&self, context: &mut Context<'_>, poll: &mut dyn FnMut(&mut Context<'_>)) {
            if *self.is_open.lock().unwrap() {
                poll(context);
            } else {
                self.waiting.lock().unwrap().push(context.waker().clone());
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_begun_behind_a_gate_stands_still_with_the_one_that_began_it() {
        let door = Arc::new(Door { is_open: Mutex::new(true), ..Door::default() });
        let (go, gone) = oneshot::channel::<()>();
        let mut begun = None;
        behind(door.clone(), async { begun = Some(spawn(gone)) }).await;
        let mut task = begun.expect("it was begun");
        *door.is_open.lock().unwrap() = false;
        go.send(()).unwrap();
        timeout(Duration::from_secs(60), &mut task).await.expect_err("the gate is shut");
        *door.is_open.lock().unwrap() = true;
        door.waiting.lock().unwrap().drain(..).for_each(Waker::wake);
        timeout(Duration::from_secs(1), task).await.expect("the gate is open").unwrap().unwrap();
    }
}

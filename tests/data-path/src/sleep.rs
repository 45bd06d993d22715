//! The sleep of a mount, and its wall clock. While a mount sleeps none of its tasks runs, and the time of all others
//! goes on, as when a process is stopped or its machine suspended. When it wakes, every timer that has become due fires at
//! once, its session may have expired, and what has arrived meanwhile is there.

use std::task::{Context, Waker};

use chordfs_net::tasks::TaskGate;
use parking_lot::Mutex;

use crate::os;

pub(crate) struct SleepGate {
    /// How far the mount's wall clock is off, in seconds.
    clock_offset: i64,
    state: Mutex<SleepState>,
}

#[derive(Default)]
struct SleepState {
    is_asleep: bool,
    /// Tasks that were due since it fell asleep.
    due: Vec<Waker>,
}

impl SleepGate {
    pub(crate) fn new(clock_offset: i64) -> Self {
        Self { clock_offset, state: Mutex::default() }
    }

    pub(crate) fn sleep(&self) {
        self.state.lock().is_asleep = true;
    }

    pub(crate) fn wake(&self) {
        let due = {
            let mut state = self.state.lock();
            state.is_asleep = false;
            std::mem::take(&mut state.due)
        };
        due.into_iter().for_each(Waker::wake);
    }
}

impl TaskGate for SleepGate {
    fn pass(&self, context: &mut Context<'_>, poll: &mut dyn FnMut(&mut Context<'_>)) {
        {
            let mut state = self.state.lock();
            if state.is_asleep {
                return state.due.push(context.waker().clone());
            }
        }
        os::with_clock_offset(self.clock_offset, || poll(context));
    }
}

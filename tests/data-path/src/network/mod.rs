//! The network between one mount and the nodes: how late a message is, and whether it arrives at all.
//!
//! Over a connection nothing is lost and nothing overtakes; a lost packet is a late one. What a client sends again
//! after its deadline arrives twice, the first time perhaps after the second.

mod dialer;
mod pipe;

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

pub(crate) use self::dialer::SimDialer;
use crate::world::World;

pub(crate) struct Link {
    pub mount: usize,
    world: Arc<World>,
    is_up: watch::Sender<bool>,
    /// The link goes down when the namespace has carried out a change of contents, before its answer leaves.
    trap: Mutex<Option<oneshot::Sender<()>>>,
    weather: Mutex<Weather>,
    /// Ends the connections there are.
    cut: Mutex<CancellationToken>,
}

/// Delays in milliseconds.
#[derive(Clone, Copy)]
struct Weather {
    longest_delay: u64,
    lost_percent: u64,
}

const CALM: Weather = Weather { longest_delay: 12, lost_percent: 0 };

impl Link {
    pub(crate) fn new(mount: usize, world: Arc<World>) -> Arc<Self> {
        Arc::new(Self {
            mount,
            world,
            is_up: watch::Sender::new(true),
            trap: Mutex::default(),
            weather: Mutex::new(CALM),
            cut: Mutex::new(CancellationToken::new()),
        })
    }

    pub(crate) fn set_up(&self, up: bool) {
        self.is_up.send_replace(up);
    }

    /// The link goes down after the next change of contents that is carried out for the mount. Resolves when it has.
    pub(crate) fn set_trap(&self) -> oneshot::Receiver<()> {
        let (sprung, is_sprung) = oneshot::channel();
        *self.trap.lock() = Some(sprung);
        is_sprung
    }

    pub(crate) fn spring_trap(&self) {
        if let Some(sprung) = self.trap.lock().take()
            && sprung.send(()).is_ok()
        {
            self.set_up(false);
        }
    }

    /// From now on messages take up to `longest_delay` milliseconds, and some per cent are sent again by TCP.
    pub(crate) fn set_delays(&self, longest_delay: u64, lost_percent: u64) {
        *self.weather.lock() = Weather { longest_delay, lost_percent };
    }

    /// Ends all connections at both ends; bytes on their way are lost.
    pub(crate) fn cut(&self) {
        std::mem::take(&mut *self.cut.lock()).cancel();
    }

    fn connections(&self) -> CancellationToken {
        self.cut.lock().clone()
    }

    fn delay(&self) -> Duration {
        let weather = *self.weather.lock();
        self.world.random(|random| {
            let mut millis = random.between(1, weather.longest_delay);
            if random.chance(weather.lost_percent) {
                millis += random.between(200, 3000);
            }
            Duration::from_micros(millis * 1000 + random.below(1000))
        })
    }

    /// Waits until the link is up.
    async fn up(&self) {
        let mut is_up = self.is_up.subscribe();
        let _ = is_up.wait_for(|up| *up).await;
    }

    /// One message of a mount on its way, in either direction; false if it has not arrived by `end`.
    pub(crate) async fn carry(&self, end: Instant) -> bool {
        let carried = async {
            sleep(self.delay()).await;
            self.up().await;
        };
        timeout_at(end, carried).await.is_ok()
    }
}

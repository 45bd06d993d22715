//! Looks the source of a mount up again while its ring does not answer: an Auto Scaling group or a name may lead to
//! other nodes than before, because all former ones were replaced while this machine slept or was cut off.

use std::{fmt::Display, net::SocketAddr, time::Duration};

use chordfs_net::session::Session;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info};

use crate::{exit::MountError, source::MountSource};

/// A session usually finds the next leader within seconds, through the nodes that it knows.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// What this needs of a session.
trait RingContact {
    fn is_attached(&self) -> bool;
    fn replace_nodes(&self, nodes: Vec<SocketAddr>);
}

/// What this needs of a source.
trait NodeLookUp: Display {
    fn resolve(&self) -> impl Future<Output = Result<Vec<SocketAddr>, MountError>> + Send;
}

/// Runs until the mount ends.
pub(crate) async fn resolve_while_cut_off(session: Session, source: MountSource) {
    watch(&session, &source).await;
}

async fn watch(session: &impl RingContact, source: &impl NodeLookUp) {
    let mut checks = interval(CHECK_INTERVAL);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut was_attached, mut known) = (true, Vec::new());
    loop {
        checks.tick().await;
        let is_attached = session.is_attached();
        if !is_attached && !was_attached {
            match source.resolve().await {
                Ok(nodes) if nodes != known => {
                    info!(%source, ?nodes, "the ring does not answer; looking for it at the nodes that the source names now");
                    session.replace_nodes(nodes.clone());
                    known = nodes;
                }
                Ok(_) => {}
                Err(error) => debug!(%source, %error, "the source cannot be looked up"),
            }
        }
        was_attached = is_attached;
    }
}

impl RingContact for Session {
    fn is_attached(&self) -> bool {
        self.is_attached()
    }

    fn replace_nodes(&self, nodes: Vec<SocketAddr>) {
        self.replace_nodes(nodes);
    }
}

impl NodeLookUp for MountSource {
    fn resolve(&self) -> impl Future<Output = Result<Vec<SocketAddr>, MountError>> + Send {
        self.resolve()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fmt,
        sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    };

    use parking_lot::Mutex;

    use super::*;

    /// A ring and a source whose name leads to the nodes `named`.
    #[derive(Default)]
    struct FakeRing {
        attached: AtomicBool,
        /// `None`: the name cannot be looked up.
        named: Mutex<Option<Vec<SocketAddr>>>,
        look_ups: AtomicUsize,
        /// The nodes that the session was given, each time.
        given: Mutex<Vec<Vec<SocketAddr>>>,
    }

    impl RingContact for FakeRing {
        fn is_attached(&self) -> bool {
            self.attached.load(Relaxed)
        }

        fn replace_nodes(&self, nodes: Vec<SocketAddr>) {
            self.given.lock().push(nodes);
        }
    }

    impl NodeLookUp for FakeRing {
        async fn resolve(&self) -> Result<Vec<SocketAddr>, MountError> {
            self.look_ups.fetch_add(1, Relaxed);
            self.named.lock().clone().ok_or_else(|| MountError::failure("no such name".to_owned()))
        }
    }

    impl fmt::Display for FakeRing {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("ring.example")
        }
    }

    fn nodes(last: u8) -> Vec<SocketAddr> {
        vec![([10, 0, 0, last], 5057).into()]
    }

    impl FakeRing {
        fn named(last: u8) -> Self {
            let ring = Self::default();
            ring.name(last);
            ring
        }

        fn name(&self, last: u8) {
            *self.named.lock() = Some(nodes(last));
        }
    }

    /// Lets some checks happen while `during` says what the ring does before each of them.
    async fn watch_for(ring: &FakeRing, checks: u32, during: impl Fn(u32)) {
        let passing = async {
            for check in 0..checks {
                during(check);
                tokio::time::sleep(CHECK_INTERVAL).await;
            }
        };
        tokio::select! {
            // The ring changes before the check at the same moment.
            biased;
            () = passing => {}
            () = watch(ring, ring) => unreachable!("it has no end"),
        }
    }

    /// Bug: a mount that was asleep while every node that it knew was replaced never found its ring again, although the
    /// name from which it had the nodes led to the new ones.
    #[tokio::test(start_paused = true)]
    async fn a_mount_that_is_cut_off_is_led_to_the_nodes_that_its_source_names_by_then() {
        let ring = FakeRing::named(1);
        watch_for(&ring, 20, |check| match check {
            5 => *ring.named.lock() = None,
            10 => ring.name(2),
            _ => {}
        })
        .await;
        assert_eq!(*ring.given.lock(), [nodes(1), nodes(2)], "each answer once, and a failure stops nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn a_mount_that_has_its_ring_and_one_that_loses_it_for_a_moment_ask_nobody() {
        let ring = FakeRing::named(1);
        watch_for(&ring, 20, |check| ring.attached.store(check % 2 == 0, Relaxed)).await;
        assert_eq!(ring.look_ups.load(Relaxed), 0);
    }
}

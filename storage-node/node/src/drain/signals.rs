//! What ends a node from outside: SIGTERM, SIGINT, or a `kill` that the operator allowed.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Drain, DrainOptions};

#[derive(PartialEq, Eq)]
enum Word {
    Term,
    AtOnce,
}

/// Returns when the node is to stop at once. With `drain`, the first SIGTERM asks for a drain instead; the second, and
/// whatever else ends a node, does not wait for it.
pub async fn told_to_stop(killed: &CancellationToken, drain: Option<&Drain>) {
    let (mut term, mut interrupt) = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(term), Ok(interrupt)) => (term, interrupt),
        (Err(error), _) | (_, Err(error)) => {
            warn!(%error, "signals cannot be caught; only the ring's kill ends this process cleanly");
            return killed.cancelled().await;
        }
    };
    let mut drain = drain;
    loop {
        let word = tokio::select! {
            _ = term.recv() => Word::Term,
            _ = interrupt.recv() => Word::AtOnce,
            () = killed.cancelled() => Word::AtOnce,
        };
        match drain.take().filter(|_| word == Word::Term) {
            Some(drain) => match drain.begin(DrainOptions::default()) {
                Ok(()) => info!("SIGTERM: draining; a second one stops the node at once"),
                Err(error) => warn!(%error, "SIGTERM: the node cannot be drained; a second one stops it at once"),
            },
            None => return,
        }
    }
}

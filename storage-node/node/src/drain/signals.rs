//! The signals that end a node: SIGTERM, SIGINT, or the ring's `kill` call if the operator allowed it.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Drain, DrainOptions};

#[derive(PartialEq, Eq)]
enum Signal {
    Terminate,
    Immediate,
}

/// Returns when the node must stop at once. With `drain`, the first SIGTERM requests a drain instead; a second SIGTERM,
/// like every other signal, stops the node without waiting for the drain.
pub async fn shutdown_requested(killed: &CancellationToken, drain: Option<&Drain>) {
    let (mut term, mut interrupt) = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(term), Ok(interrupt)) => (term, interrupt),
        (Err(error), _) | (_, Err(error)) => {
            warn!(%error, "cannot catch signals; only the ring's kill call ends this process cleanly");
            return killed.cancelled().await;
        }
    };
    let mut drain = drain;
    loop {
        let received = tokio::select! {
            _ = term.recv() => Signal::Terminate,
            _ = interrupt.recv() => Signal::Immediate,
            () = killed.cancelled() => Signal::Immediate,
        };
        match drain.take().filter(|_| received == Signal::Terminate) {
            Some(drain) => match drain.begin(DrainOptions::default()) {
                Ok(()) => info!("SIGTERM: draining; a second one stops the node at once"),
                Err(error) => warn!(%error, "SIGTERM: the node cannot be drained; a second one stops it at once"),
            },
            None => return,
        }
    }
}

//! Waiting for the turn: of those that are told to go at the same time, one drains after the other.

use chordfs_replication::drain::DrainError;
use chordfs_types::ring_id::NodeRef;
use futures_util::future::join_all;
use tokio::time::sleep;

use super::{
    announce::ask_claim,
    handle::{Drain, DrainOptions},
    task::{TRY_AGAIN, Task},
};
use crate::mutual_exclusion::{self, Claim, ClaimVerdict};

/// Whether a node that wants to drain may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    Begun,
    /// These drain, or want to as well and come first.
    Waits {
        others: Vec<NodeRef>,
    },
}

impl Drain {
    /// Begins a drain if it is this node's turn: only one node of a ring drains in turn. Otherwise says that it waits,
    /// and for whom; call again later, or [`Drain::give_up_turn`].
    pub async fn begin_in_turn(&self, options: DrainOptions) -> Result<Turn, DrainError> {
        let departure = &self.0.node.departure;
        loop {
            departure.set_claim(Claim::Trying);
            let turn = self.0.ask_for_turn().await;
            match turn {
                Ok((ClaimVerdict::AskAgain, _)) => sleep(TRY_AGAIN).await,
                Ok((ClaimVerdict::Go, _)) => {
                    let begun = self.begin(options);
                    departure.set_claim(Claim::Idle);
                    return begun.map(|()| Turn::Begun);
                }
                Ok((ClaimVerdict::BackOff, others)) => {
                    departure.set_claim(Claim::Waiting);
                    return Ok(Turn::Waits { others });
                }
                Err(reason) => {
                    departure.set_claim(Claim::Waiting);
                    return Err(DrainError::Stalled { within: self.0.settings.look_patience, reason });
                }
            }
        }
    }

    /// Others need not wait for this node.
    pub fn give_up_turn(&self) {
        self.0.node.departure.set_claim(Claim::Idle);
    }
}

impl Task {
    /// Also those that drain or want to. Who does not answer is no reason to wait: the drain looks after those itself.
    async fn ask_for_turn(&self) -> Result<(ClaimVerdict, Vec<NodeRef>), String> {
        let members = self.node.ring.members().await.map_err(|error| error.to_string())?;
        let me = self.node.ring.me();
        let others = members.into_iter().filter(|node| node.ring_address() != me.ring_address());
        let asked = others.map(|node| async move { Some((node, ask_claim(&self.pool, node, me).await?)) });
        let claims: Vec<(NodeRef, Claim)> = join_all(asked).await.into_iter().flatten().collect();
        let keys = claims.iter().map(|(node, claim)| (node.ring_address(), *claim));
        let verdict = mutual_exclusion::verdict(&me.ring_address(), keys);
        let wanting = claims.iter().filter(|(_, claim)| *claim != Claim::Idle).map(|(node, _)| *node).collect();
        Ok((verdict, wanting))
    }
}

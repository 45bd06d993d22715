//! Drains nodes one after the other when several are requested to leave at the same time.

use chordfs_replication::drain::DrainError;
use chordfs_types::ring_id::NodeRef;
use futures_util::future::join_all;
use tokio::time::sleep;

use super::{
    announce::ask_claim,
    handle::{Drain, DrainOptions},
    task::{DrainTask, RETRY_PAUSE},
};
use crate::mutual_exclusion::{self, Claim, ClaimVerdict};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExclusiveStart {
    Started,
    /// These nodes drain, or wait to drain and precede this one.
    Waiting {
        others: Vec<NodeRef>,
    },
}

impl Drain {
    /// Begins a drain unless another node drains or precedes this one. If this node has to wait, its claim stays, and
    /// the caller calls again later.
    pub async fn begin_exclusively(&self, options: DrainOptions) -> Result<ExclusiveStart, DrainError> {
        let departure = &self.0.context.departure;
        loop {
            departure.set_claim(Claim::Trying);
            match self.0.ask_others().await {
                Ok((ClaimVerdict::AskAgain, _)) => sleep(RETRY_PAUSE).await,
                Ok((ClaimVerdict::Go, _)) => {
                    let begun = self.begin(options);
                    departure.set_claim(Claim::Idle);
                    return begun.map(|()| ExclusiveStart::Started);
                }
                Ok((ClaimVerdict::BackOff, others)) => {
                    departure.set_claim(Claim::Waiting);
                    return Ok(ExclusiveStart::Waiting { others });
                }
                Err(reason) => {
                    departure.set_claim(Claim::Waiting);
                    return Err(DrainError::Stalled { within: self.0.settings.members_timeout, reason });
                }
            }
        }
    }
}

impl DrainTask {
    /// Returns the verdict and the nodes that drain or wait to drain. A node that does not answer is no reason to wait:
    /// the drain itself counts the nodes that answer.
    async fn ask_others(&self) -> Result<(ClaimVerdict, Vec<NodeRef>), String> {
        let members = self.context.ring.members().await.map_err(|error| error.to_string())?;
        let me = self.context.ring.me();
        let others = members.into_iter().filter(|node| node.ring_address() != me.ring_address());
        let asked = others.map(|node| async move { Some((node, ask_claim(&self.context.pool, node, me).await?)) });
        let claims: Vec<(NodeRef, Claim)> = join_all(asked).await.into_iter().flatten().collect();
        let keys = claims.iter().map(|(node, claim)| (node.ring_address(), *claim));
        let verdict = mutual_exclusion::verdict(&me.ring_address(), keys);
        let claiming = claims.iter().filter(|(_, claim)| *claim != Claim::Idle).map(|(node, _)| *node).collect();
        Ok((verdict, claiming))
    }
}

//! Finds the ring of the group, or founds it, before the node itself starts.
//!
//! Until then a [`BootstrapServer`] answers on the administration port, both to the other members and to operators who
//! want to know why the node does not serve:
//!
//! ```text
//! GET /healthz                     200 {"state": "starting", "aws": {...}}
//! GET /readyz                      503
//! GET /aws/founding?RANK&address=A {"ring": bool, "bid": "none" | "wants" | "tries" | "has"}
//! ```
//! The caller introduces itself (`launched_secs`, `instance`, ring address), so that two nodes know of each other even
//! if only one of them finds the other in its list of the group. A running node still answers the last of these calls.

pub(crate) mod decide;
mod peer;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    routing::get,
};
use chordfs_net::{
    admin_client::AdminClient,
    backoff::Backoff,
    http_pool::HttpPool,
    transport::{Acceptor, Connector},
};
use chordfs_node::{
    http::server::{self, ServerOptions},
    mutual_exclusion::Claim,
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    time::{sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::decide::{Candidate, CandidateState, FoundingStep, FoundingView, REFUSES_FOR, Rank};
use self::peer::PeerReply;
use super::{
    AwsContext,
    cloud::{CallError, Group},
    health::Topic,
};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long a list of the group is used. AWS limits the rate of its calls; members are asked more often.
const LIST_LIFETIME: Duration = Duration::from_secs(4);
const MAX_LIST_PAUSE: Duration = Duration::from_secs(30);
/// Pause before the others are asked again: another member may be about to found the ring.
const ASK_AGAIN_PAUSE: Duration = Duration::from_millis(50);
/// How long to wait for the remaining replies once one member has reported a ring.
const STRAGGLERS_TIMEOUT: Duration = Duration::from_millis(200);
/// How long a member that introduced itself is asked without being in the list of the group.
const INTRODUCTION_LIFETIME: Duration = Duration::from_secs(30);

/// What this node reports to other members, and the members that have introduced themselves.
pub(crate) struct FoundingState {
    status: Mutex<FoundingStatus>,
    introduced: Mutex<HashMap<String, IntroducedPeer>>,
}

/// The reply to `/aws/founding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FoundingStatus {
    pub ring: bool,
    #[serde(rename = "bid")]
    pub claim: Claim,
}

struct IntroducedPeer {
    rank: Rank,
    address: SocketAddr,
    at: Instant,
}

#[derive(Debug, Serialize, Deserialize)]
struct Introduction {
    launched_secs: u64,
    instance: String,
    address: SocketAddr,
}

impl Default for FoundingState {
    fn default() -> Self {
        Self { status: Mutex::new(FoundingStatus { ring: false, claim: Claim::Waiting }), introduced: Mutex::default() }
    }
}

impl FoundingState {
    pub(crate) fn set_status(&self, status: FoundingStatus) {
        *self.status.lock() = status;
    }

    fn status(&self) -> FoundingStatus {
        *self.status.lock()
    }

    fn set_claim(&self, claim: Claim) {
        self.set_status(FoundingStatus { ring: false, claim });
    }

    /// Records the caller before it reads the status: a later caller is asked by this node, or sees the current status.
    fn answer(&self, introduction: Introduction) -> FoundingStatus {
        let rank = Rank { launched_secs: introduction.launched_secs, instance: introduction.instance.clone() };
        let mut introduced = self.introduced.lock();
        introduced.retain(|_, peer| peer.at.elapsed() < INTRODUCTION_LIFETIME);
        if introduced.len() < MAX_INTRODUCED {
            introduced.insert(
                introduction.instance,
                IntroducedPeer { rank, address: introduction.address, at: Instant::now() },
            );
        }
        self.status()
    }

    fn introduced_peers(&self) -> Vec<(Rank, SocketAddr)> {
        let introduced = self.introduced.lock();
        let current = introduced.values().filter(|peer| peer.at.elapsed() < INTRODUCTION_LIFETIME);
        current.map(|peer| (peer.rank.clone(), peer.address)).collect()
    }
}

/// Bounds the memory that callers with many different names can use.
const MAX_INTRODUCED: usize = 1024;

/// The routes of the bootstrap server that a running node keeps.
pub(crate) fn routes(founding: Arc<FoundingState>) -> Router {
    Router::new().route("/aws/founding", get(answer_introduction)).with_state(founding)
}

async fn answer_introduction(
    State(founding): State<Arc<FoundingState>>,
    Query(introduction): Query<Introduction>,
) -> Json<FoundingStatus> {
    Json(founding.answer(introduction))
}

/// The server on the administration port of a node that is not in a ring yet.
pub(crate) struct BootstrapServer {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl BootstrapServer {
    /// `health` returns the field `aws` of `/healthz`. What is served here is no secret, so callers are not checked.
    pub(crate) async fn begin(
        address: SocketAddr,
        health: impl Fn() -> Value + Clone + Send + Sync + 'static,
        founding: Arc<FoundingState>,
        acceptor: Acceptor,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let health = get(move || async move { Json(json!({ "state": "starting", "aws": health() })) });
        let waiting = (StatusCode::SERVICE_UNAVAILABLE, "the node is looking for its ring; see /healthz for details\n");
        let router = Router::new().route("/healthz", health).route("/readyz", get(move || async move { waiting }));
        let stop = CancellationToken::new();
        let options = ServerOptions { acceptor, stop_grace: Duration::from_millis(500), ..ServerOptions::default() };
        let stopped = stop.clone().cancelled_owned();
        let task = tokio::spawn(server::serve(listener, router.merge(routes(founding)), options, stopped));
        Ok(Self { stop, task })
    }

    /// Stops the server. Afterwards the port is free for the node itself.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }
}

/// Returns the ring addresses to join through, or none if this node founds the ring. Waits until one of the two is
/// certain.
pub(crate) async fn find_ring(aws: &AwsContext, connector: Connector) -> Vec<SocketAddr> {
    let mut search = RingSearch::new(aws, connector);
    loop {
        let next = search.next_step().await;
        let pause = match next {
            FoundingStep::Join(members) => {
                // This node is about to join, so no caller may found another ring.
                aws.founding.set_status(FoundingStatus { ring: true, claim: Claim::Idle });
                aws.health.set_activity(format!("joining the ring through {members:?}"));
                return members;
            }
            FoundingStep::Found => {
                aws.founding.set_status(FoundingStatus { ring: false, claim: Claim::Held });
                aws.health.set_activity("founding the ring of the group".to_owned());
                return Vec::new();
            }
            FoundingStep::Try => {
                aws.founding.set_claim(Claim::Trying);
                continue;
            }
            FoundingStep::AskAgain => ASK_AGAIN_PAUSE,
            FoundingStep::Wait(reason) => {
                aws.founding.set_claim(Claim::Waiting);
                aws.health.set_activity(format!("waiting for a ring: {reason}"));
                search.backoff.pause()
            }
        };
        sleep(pause).await;
    }
}

/// Returns members through which a node with a saved ring can rejoin. Waits for nothing.
pub(crate) async fn known_members(aws: &AwsContext) -> Vec<SocketAddr> {
    aws.founding.set_status(FoundingStatus { ring: true, claim: Claim::Idle });
    let Some(Some(group)) = aws.health.record(Topic::Group, aws.cloud.group(&aws.group).await) else {
        return Vec::new();
    };
    let others = group.members.iter().filter(|member| member.stays() && member.instance != aws.identity.instance);
    others.filter_map(|member| Some(SocketAddr::new(aws.address_of(member)?, aws.address.port()))).collect()
}

struct RingSearch<'a> {
    aws: &'a AwsContext,
    client: AdminClient,
    backoff: Backoff,
    list: Option<(Group, Instant)>,
    /// The earliest time of the next call for the list, after one that failed.
    list_again: Option<Instant>,
    list_backoff: Backoff,
    refused_since: HashMap<SocketAddr, Instant>,
}

impl<'a> RingSearch<'a> {
    fn new(aws: &'a AwsContext, connector: Connector) -> Self {
        let backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let list_backoff = Backoff::new(LONGEST_PAUSE, MAX_LIST_PAUSE);
        let refused_since = HashMap::new();
        let client = AdminClient::new(Arc::new(HttpPool::over(connector)), peer::DEADLINE);
        Self { aws, client, backoff, list: None, list_again: None, list_backoff, refused_since }
    }

    async fn next_step(&mut self) -> FoundingStep {
        let Some(group) = self.group().await else {
            return FoundingStep::Wait("the members of the group cannot be listed".to_owned());
        };
        let own = group.members.iter().find(|member| member.instance == self.aws.identity.instance);
        let me = Rank::new(&self.aws.identity.instance, own.and_then(|own| own.launched));
        let listed = own.is_some();
        let fresh = own.and_then(|own| own.launched).is_some_and(launched_just_now);
        let candidates = self.candidates(&group, &me);
        let replies = self.ask_all(&me, &candidates).await;
        let others: Vec<Candidate> = candidates
            .into_iter()
            .zip(replies)
            .map(|(candidate, reply)| Candidate { state: self.candidate_state(candidate.address, reply), ..candidate })
            .collect();
        let own_claim = self.aws.founding.status().claim;
        let hidden_instances = hidden_instances(&group, &me, &others);
        decide::decide(&FoundingView {
            me: &me,
            own_claim,
            listed,
            fresh,
            hidden_instances: &hidden_instances,
            others: &others,
        })
    }

    /// Returns the listed members that have an address, and those that have introduced themselves.
    fn candidates(&self, group: &Group, me: &Rank) -> Vec<Candidate> {
        let port = self.aws.address.port();
        let gone = ["Terminated", "Detached", "Terminating:Proceed"];
        let listed = group.members.iter().filter(|member| !gone.contains(&member.lifecycle.as_str()));
        let mut candidates: Vec<Candidate> = listed
            .filter_map(|member| {
                let address = SocketAddr::new(self.aws.address_of(member)?, port);
                let rank = Rank::new(&member.instance, member.launched);
                Some(Candidate { rank, address, leaving: !member.stays(), state: CandidateState::Unresponsive })
            })
            .collect();
        for (rank, address) in self.aws.founding.introduced_peers() {
            if candidates.iter().all(|candidate| candidate.rank.instance != rank.instance) {
                candidates.push(Candidate { rank, address, leaving: true, state: CandidateState::Unresponsive });
            }
        }
        candidates.retain(|candidate| candidate.rank.instance != me.instance);
        candidates
    }

    /// Returns the replies in the order of the candidates. Once one has a ring, slow replies are not waited for.
    async fn ask_all(&self, me: &Rank, candidates: &[Candidate]) -> Vec<PeerReply> {
        let ask = |(place, candidate): (usize, &Candidate)| {
            let address = candidate.address;
            async move { (place, self.ask(me, address).await) }
        };
        let mut asked: FuturesUnordered<_> = candidates.iter().enumerate().map(ask).collect();
        let mut replies = vec![PeerReply::NoAnswer; candidates.len()];
        let mut deadline = None;
        loop {
            let stragglers = async {
                match deadline {
                    Some(end) => sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            let next = tokio::select! {
                next = asked.next() => next,
                () = stragglers => None,
            };
            let Some((place, reply)) = next else { return replies };
            if reply == PeerReply::Ready && deadline.is_none() {
                deadline = Some(tokio::time::Instant::now() + STRAGGLERS_TIMEOUT);
            }
            replies[place] = reply;
        }
    }

    async fn ask(&self, me: &Rank, node: SocketAddr) -> PeerReply {
        let introduction =
            Introduction { launched_secs: me.launched_secs, instance: me.instance.clone(), address: self.aws.address };
        peer::ask(&self.client, node.into(), &introduction).await
    }

    fn candidate_state(&mut self, node: SocketAddr, reply: PeerReply) -> CandidateState {
        if reply != PeerReply::Refused {
            self.refused_since.remove(&node);
        }
        match reply {
            PeerReply::Ready => CandidateState::HasRing { ready: true },
            PeerReply::Status(FoundingStatus { ring: true, .. }) => CandidateState::HasRing { ready: false },
            PeerReply::Status(FoundingStatus { claim, .. }) => CandidateState::Claims(claim),
            PeerReply::Refused => CandidateState::RefusesConnections {
                since: self.refused_since.entry(node).or_insert_with(Instant::now).elapsed(),
            },
            PeerReply::NoAnswer => CandidateState::Unresponsive,
        }
    }

    async fn group(&mut self) -> Option<Group> {
        if let Some((group, at)) = &self.list
            && at.elapsed() < LIST_LIFETIME
        {
            return Some(group.clone());
        }
        if self.list_again.is_some_and(|again| Instant::now() < again) {
            return None;
        }
        let asked = self.aws.cloud.group(&self.aws.group).await;
        let found = asked.and_then(|group| group.ok_or_else(|| CallError::no_group(&self.aws.group)));
        match self.aws.health.record(Topic::Group, found) {
            Some(group) => {
                self.list = Some((group, Instant::now()));
                self.list_backoff.reset();
            }
            None => {
                self.list = None;
                self.list_again = Some(Instant::now() + self.list_backoff.pause());
            }
        }
        self.list.as_ref().map(|(group, _)| group.clone())
    }
}

/// Returns the members that the group lists but EC2 does not show yet; EC2 is some seconds behind.
fn hidden_instances(group: &Group, me: &Rank, candidates: &[Candidate]) -> Vec<String> {
    let known = |instance: &str| {
        instance == me.instance || candidates.iter().any(|candidate| candidate.rank.instance == instance)
    };
    let hidden = group.members.iter().filter(|member| member.stays() && member.launched.is_none());
    hidden.map(|member| member.instance.clone()).filter(|instance| !known(instance)).collect()
}

/// Checks both clock and uptime: the clock alone may be wrong, and the uptime alone may be that of a reboot.
fn launched_just_now(launched: SystemTime) -> bool {
    let by_clock = SystemTime::now().duration_since(launched).is_ok_and(|age| age < REFUSES_FOR);
    let up = std::fs::read_to_string("/proc/uptime").ok();
    let up = up.and_then(|text| text.split('.').next()?.parse().ok()).map(Duration::from_secs);
    by_clock && up.is_some_and(|up| up < REFUSES_FOR)
}

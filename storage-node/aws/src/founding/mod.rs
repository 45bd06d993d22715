//! Finding the ring of the group, or founding it, before the node itself starts.
//!
//! Meanwhile the plane of administration answers, so that the others can ask this node, and so can whoever wonders why
//! it does not serve:
//!
//! ```text
//! GET /healthz                     200 {"state": "starting", "aws": {...}}
//! GET /readyz                      503
//! GET /aws/founding?RANK&address=A {"ring": bool, "bid": "none" | "wants" | "tries" | "has"}
//! ```
//! Who asks names itself (`launched_secs`, `instance`, ring address), so two nodes of which only one has the other in
//! its list of the group know of each other all the same. The running node goes on answering the last of these calls.

mod ask;
pub mod decide;
#[cfg(test)]
mod tests;

use chordfs_net::backoff::Backoff;
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
use chordfs_net::http_pool::HttpPool;
use chordfs_node::{
    http::server::{self, ServerOptions},
    mutual_exclusion::Claim,
};
use chordfs_types::ring_id::{NodeRef, RingId};
use futures_util::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    time::{sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::decide::{Heard, Next, REFUSES_FOR, Rank, Seat, View};
use super::{
    Context as Aws,
    board::Topic,
    cloud::{CallError, Group},
};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The group is asked for less often than its members: its calls are counted by AWS.
const LIST_FOR: Duration = Duration::from_secs(4);
const MAX_LIST_PAUSE: Duration = Duration::from_secs(30);
/// Somebody may be going ahead this moment.
const MOMENT: Duration = Duration::from_millis(50);
/// How long the others may take to answer when one has said that it has a ring.
const STRAGGLERS: Duration = Duration::from_millis(200);
/// A visitor is one of those to be asked for this long.
const VISIT: Duration = Duration::from_secs(30);

/// What this node answers when others ask.
pub struct Standing {
    shows: Mutex<Shown>,
    visitors: Mutex<HashMap<String, Visitor>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    pub ring: bool,
    pub bid: Claim,
}

struct Visitor {
    rank: Rank,
    address: SocketAddr,
    at: Instant,
}

#[derive(Debug, Serialize, Deserialize)]
struct Visit {
    launched_secs: u64,
    instance: String,
    address: SocketAddr,
}

impl Default for Standing {
    fn default() -> Self {
        Self { shows: Mutex::new(Shown { ring: false, bid: Claim::Waiting }), visitors: Mutex::default() }
    }
}

impl Standing {
    pub fn show(&self, shown: Shown) {
        *self.shows.lock() = shown;
    }

    fn shown(&self) -> Shown {
        *self.shows.lock()
    }

    fn bid(&self, bid: Claim) {
        self.show(Shown { ring: false, bid });
    }

    /// What it shows is read after the visitor is noted: who comes later is asked, or sees what is shown now.
    fn answer(&self, visit: Visit) -> Shown {
        let rank = Rank { launched_secs: visit.launched_secs, instance: visit.instance.clone() };
        let mut visitors = self.visitors.lock();
        visitors.retain(|_, visitor| visitor.at.elapsed() < VISIT);
        if visitors.len() < MAX_VISITORS {
            visitors.insert(visit.instance, Visitor { rank, address: visit.address, at: Instant::now() });
        }
        self.shown()
    }

    fn visiting(&self) -> Vec<(Rank, SocketAddr)> {
        let visitors = self.visitors.lock();
        let here = visitors.values().filter(|visitor| visitor.at.elapsed() < VISIT);
        here.map(|visitor| (visitor.rank.clone(), visitor.address)).collect()
    }
}

/// Nobody fills the memory by calling under many names.
const MAX_VISITORS: usize = 1024;

/// Also of the running node.
pub fn routes(standing: Arc<Standing>) -> Router {
    Router::new().route("/aws/founding", get(founding)).with_state(standing)
}

async fn founding(State(standing): State<Arc<Standing>>, Query(visit): Query<Visit>) -> Json<Shown> {
    Json(standing.answer(visit))
}

/// The plane of administration of a node that is not in a ring yet.
pub struct Meanwhile {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Meanwhile {
    /// `health` is what `/healthz` tells of AWS.
    pub async fn begin(
        address: SocketAddr,
        health: impl Fn() -> Value + Clone + Send + Sync + 'static,
        standing: Arc<Standing>,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let health = get(move || async move { Json(json!({ "state": "starting", "aws": health() })) });
        let waiting = (StatusCode::SERVICE_UNAVAILABLE, "the node looks for its ring; /healthz says more\n");
        let router = Router::new().route("/healthz", health).route("/readyz", get(move || async move { waiting }));
        let stop = CancellationToken::new();
        let options = ServerOptions { stop_grace: Duration::from_millis(500), ..ServerOptions::default() };
        let stopped = stop.clone().cancelled_owned();
        let task = tokio::spawn(server::serve(listener, router.merge(routes(standing)), options, stopped));
        Ok(Self { stop, task })
    }

    /// When this returns the port is free for the node itself.
    pub async fn end(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }
}

/// Ring addresses to join through; none: this node founds the ring. Does not return before that is certain.
pub async fn find_ring(aws: &Aws) -> Vec<SocketAddr> {
    let mut search = Search::new(aws);
    loop {
        let next = search.look().await;
        let pause = match next {
            Next::Join(members) => {
                // It is about to be in one, and whoever asks shall not found another.
                aws.standing.show(Shown { ring: true, bid: Claim::Idle });
                aws.board.set_activity(format!("joins the ring through {members:?}"));
                return members;
            }
            Next::Found => {
                aws.standing.show(Shown { ring: false, bid: Claim::Held });
                aws.board.set_activity("founds the ring of the group".to_owned());
                return Vec::new();
            }
            Next::Try => {
                aws.standing.bid(Claim::Trying);
                continue;
            }
            Next::AskAgain => MOMENT,
            Next::Wait(why) => {
                aws.standing.bid(Claim::Waiting);
                aws.board.set_activity(format!("waits for a ring: {why}"));
                search.backoff.pause()
            }
        };
        sleep(pause).await;
    }
}

/// Members to come back through, for a node that remembers a ring: nothing is waited for.
pub async fn known_members(aws: &Aws) -> Vec<SocketAddr> {
    aws.standing.show(Shown { ring: true, bid: Claim::Idle });
    let Some(Some(group)) = aws.board.note(Topic::Group, aws.cloud.group(&aws.group).await) else { return Vec::new() };
    let others = group.members.iter().filter(|member| member.stays() && member.instance != aws.identity.instance);
    others.filter_map(|member| Some(SocketAddr::new(aws.address_of(member)?, aws.address.port()))).collect()
}

struct Search<'a> {
    aws: &'a Aws,
    pool: HttpPool,
    backoff: Backoff,
    list: Option<(Group, Instant)>,
    /// After a call that failed the group is left alone for a while.
    list_again: Option<Instant>,
    list_backoff: Backoff,
    refused_since: HashMap<SocketAddr, Instant>,
}

impl<'a> Search<'a> {
    fn new(aws: &'a Aws) -> Self {
        let backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let list_backoff = Backoff::new(LONGEST_PAUSE, MAX_LIST_PAUSE);
        let refused_since = HashMap::new();
        Self { aws, pool: HttpPool::new(), backoff, list: None, list_again: None, list_backoff, refused_since }
    }

    async fn look(&mut self) -> Next {
        let Some(group) = self.group().await else {
            return Next::Wait("the group cannot be asked for its members".to_owned());
        };
        let own = group.members.iter().find(|member| member.instance == self.aws.identity.instance);
        let me = Rank::new(&self.aws.identity.instance, own.and_then(|own| own.launched));
        let listed = own.is_some();
        let fresh = own.and_then(|own| own.launched).is_some_and(launched_just_now);
        let seats = self.seats(&group, &me);
        let heard = self.ask_all(&me, &seats).await;
        let others: Vec<Seat> = seats
            .into_iter()
            .zip(heard)
            .map(|(seat, heard)| Seat { heard: self.remember(seat.address, heard), ..seat })
            .collect();
        let shows = self.aws.standing.shown().bid;
        let unseen = unseen(&group, &me, &others);
        decide::decide(&View { me: &me, shows, listed, fresh, unseen: &unseen, others: &others })
    }

    /// The listed ones that can be asked, and who came to ask here.
    fn seats(&self, group: &Group, me: &Rank) -> Vec<Seat> {
        let port = self.aws.address.port();
        let gone = ["Terminated", "Detached", "Terminating:Proceed"];
        let listed = group.members.iter().filter(|member| !gone.contains(&member.lifecycle.as_str()));
        let mut seats: Vec<Seat> = listed
            .filter_map(|member| {
                let address = SocketAddr::new(self.aws.address_of(member)?, port);
                let rank = Rank::new(&member.instance, member.launched);
                Some(Seat { rank, address, going: !member.stays(), heard: Heard::Silent })
            })
            .collect();
        for (rank, address) in self.aws.standing.visiting() {
            if seats.iter().all(|seat| seat.rank.instance != rank.instance) {
                seats.push(Seat { rank, address, going: true, heard: Heard::Silent });
            }
        }
        seats.retain(|seat| seat.rank.instance != me.instance);
        seats
    }

    /// In the order of the seats. Where one has a ring, those who take long to answer are not waited for.
    async fn ask_all(&self, me: &Rank, seats: &[Seat]) -> Vec<ask::Said> {
        let ask = |(place, seat): (usize, &Seat)| {
            let address = seat.address;
            async move { (place, self.ask(me, address).await) }
        };
        let mut asked: FuturesUnordered<_> = seats.iter().enumerate().map(ask).collect();
        let mut heard = vec![ask::Said::Nothing; seats.len()];
        let mut enough = None;
        loop {
            let patience = async {
                match enough {
                    Some(end) => sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            let next = tokio::select! {
                next = asked.next() => next,
                () = patience => None,
            };
            let Some((place, said)) = next else { return heard };
            if said == ask::Said::Ready && enough.is_none() {
                enough = Some(tokio::time::Instant::now() + STRAGGLERS);
            }
            heard[place] = said;
        }
    }

    async fn ask(&self, me: &Rank, node: SocketAddr) -> ask::Said {
        let visit = Visit { launched_secs: me.launched_secs, instance: me.instance.clone(), address: self.aws.address };
        let node = NodeRef { ip: node.ip(), port: node.port(), id: RingId(0) };
        ask::ask(&self.pool, node.admin_address(), &visit).await
    }

    fn remember(&mut self, node: SocketAddr, said: ask::Said) -> Heard {
        if said != ask::Said::Refused {
            self.refused_since.remove(&node);
        }
        match said {
            ask::Said::Ready => Heard::Ring { ready: true },
            ask::Said::Shown(Shown { ring: true, .. }) => Heard::Ring { ready: false },
            ask::Said::Shown(Shown { bid, .. }) => Heard::Bid(bid),
            ask::Said::Refused => {
                Heard::Refuses { since: self.refused_since.entry(node).or_insert_with(Instant::now).elapsed() }
            }
            ask::Said::Nothing => Heard::Silent,
        }
    }

    async fn group(&mut self) -> Option<Group> {
        if let Some((group, at)) = &self.list
            && at.elapsed() < LIST_FOR
        {
            return Some(group.clone());
        }
        if self.list_again.is_some_and(|again| Instant::now() < again) {
            return None;
        }
        let asked = self.aws.cloud.group(&self.aws.group).await;
        let found = asked.and_then(|group| group.ok_or_else(|| CallError::no_group(&self.aws.group)));
        match self.aws.board.note(Topic::Group, found) {
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

/// The group lists an instance before EC2 shows it, by seconds.
fn unseen(group: &Group, me: &Rank, seats: &[Seat]) -> Vec<String> {
    let known = |instance: &str| instance == me.instance || seats.iter().any(|seat| seat.rank.instance == instance);
    let hidden = group.members.iter().filter(|member| member.stays() && member.launched.is_none());
    hidden.map(|member| member.instance.clone()).filter(|instance| !known(instance)).collect()
}

/// By its clock and by its kernel: a clock alone may be wrong, and a kernel alone may have been started again.
fn launched_just_now(launched: SystemTime) -> bool {
    let by_clock = SystemTime::now().duration_since(launched).is_ok_and(|age| age < REFUSES_FOR);
    let up = std::fs::read_to_string("/proc/uptime").ok();
    let up = up.and_then(|text| text.split('.').next()?.parse().ok()).map(Duration::from_secs);
    by_clock && up.is_some_and(|up| up < REFUSES_FOR)
}

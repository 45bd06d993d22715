//! `GET /api/events`: the members of the ring now and after every change, as server-sent events.
//!
//! Every event carries all members, so a listener that missed some is up to date after the next one. The ring is
//! surveyed only while somebody listens, once for all listeners of this node, whose number is limited.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    http::StatusCode,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{Stream, StreamExt, future::BoxFuture, stream};
use serde::Serialize;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::error::HttpError;
use crate::driver::{NodeKind, RingHandle, SurveyedNode};

const MAX_LISTENERS: usize = 256;
const LOOK_EVERY: Duration = Duration::from_secs(1);
const SURVEY_DEADLINE: Duration = Duration::from_secs(1);
/// So that listener and node notice that the other is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Finds the members of the ring.
pub trait MemberSource: Send + Sync + 'static {
    /// All members in the order of their positions, within a deadline.
    fn members(&self) -> BoxFuture<'_, Vec<PoolMember>>;
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoolMember {
    /// The position on the ring.
    pub id: u32,
    /// The address of its port 5057.
    pub ring: SocketAddr,
    /// The address at which it serves files; `None` for a node of another program.
    pub files: Option<SocketAddr>,
    pub state: PoolMemberState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolMemberState {
    Up,
    /// Others name it, and it does not answer.
    Unresponsive,
    /// A Chord node of another program: it stores nothing.
    Foreign,
}

impl MemberSource for RingHandle {
    fn members(&self) -> BoxFuture<'_, Vec<PoolMember>> {
        Box::pin(async move { self.survey(SURVEY_DEADLINE).await.into_iter().map(PoolMember::from).collect() })
    }
}

impl From<SurveyedNode> for PoolMember {
    fn from(SurveyedNode { node, kind }: SurveyedNode) -> Self {
        let state = match kind {
            NodeKind::Storage => PoolMemberState::Up,
            NodeKind::Unresponsive => PoolMemberState::Unresponsive,
            NodeKind::Foreign => PoolMemberState::Foreign,
        };
        let files = (kind != NodeKind::Foreign).then(|| node.files_address());
        Self { id: node.id.0, ring: node.ring_address(), files, state }
    }
}

type Members = Option<Arc<Vec<PoolMember>>>;

pub struct PoolEvents {
    source: Arc<dyn MemberSource>,
    /// `None` while nobody listens.
    members: watch::Sender<Members>,
    wanted: Notify,
    places: Arc<Semaphore>,
    stop: CancellationToken,
}

impl PoolEvents {
    /// The events end at `stop`. None is sent before [`Self::run`] runs.
    pub fn new(source: Arc<dyn MemberSource>, stop: CancellationToken) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(MAX_LISTENERS));
        Arc::new(Self { source, members: watch::Sender::new(None), wanted: Notify::new(), places, stop })
    }

    /// Surveys the ring while somebody listens, until the stop.
    pub async fn run(self: Arc<Self>) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(async {
            loop {
                self.wanted.notified().await;
                while self.members.receiver_count() > 0 {
                    self.report(self.source.members().await);
                    sleep(LOOK_EVERY).await;
                }
                self.members.send_replace(None);
            }
        })
        .await;
    }

    fn report(&self, found: Vec<PoolMember>) {
        self.members.send_if_modified(|members| {
            let is_new = members.as_deref() != Some(&found);
            if is_new {
                *members = Some(Arc::new(found));
            }
            is_new
        });
    }

    pub(super) fn listen(self: &Arc<Self>) -> Result<Response, HttpError> {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            let text = format!("{MAX_LISTENERS} programs follow the ring at this node already; listen at another node");
            return Err(HttpError::new(StatusCode::SERVICE_UNAVAILABLE, text));
        };
        let mut receiver = self.members.subscribe();
        receiver.mark_changed();
        self.wanted.notify_one();
        let events = events(receiver, place).take_until(self.stop.clone().cancelled_owned());
        Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
    }
}

#[derive(Serialize)]
struct MembersEvent<'a> {
    members: &'a [PoolMember],
}

fn events(
    receiver: watch::Receiver<Members>,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold((receiver, place), |(mut receiver, place)| async move {
        loop {
            receiver.changed().await.ok()?;
            let Some(members) = receiver.borrow_and_update().clone() else { continue };
            let data = serde_json::to_string(&MembersEvent { members: &members }).expect("plain data always encodes");
            return Some((Ok(Event::default().event("members").data(data)), (receiver, place)));
        }
    })
}

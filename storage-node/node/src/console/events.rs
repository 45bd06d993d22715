//! `GET /console/events`: the parts of the page that have changed, as server-sent events, while somebody looks.
//!
//! An event is named as its part, and its data are the HTML. After each look at the ring comes a `beat` with the time,
//! so that a page knows that it is up to date. The number of viewers is limited; a viewer that reads slowly gets fewer
//! events, each with the state of its moment, and never a backlog.

use std::{
    collections::{HashMap, VecDeque, hash_map::DefaultHasher},
    convert::Infallible,
    hash::{Hash, Hasher},
    time::Duration,
};

use axum::{
    extract::{RawQuery, State},
    http::{StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
};
use chordfs_console::{ConsoleQuery, Fragment};
use futures_util::{Stream, StreamExt, stream};
use tokio::{sync::OwnedSemaphorePermit, time::sleep};

use super::{ConsolePlane, parse_query};
use crate::http::error::HttpError;

const RETRY_SECONDS: &str = "5";

pub(super) async fn events(State(plane): State<ConsolePlane>, RawQuery(query): RawQuery) -> Response {
    match plane.viewers.clone().try_acquire_owned() {
        Ok(place) => {
            let stopped = plane.stop.clone().cancelled_owned();
            let viewer = Viewer::new(plane, parse_query(query), place);
            Sse::new(viewer.events().take_until(stopped)).into_response()
        }
        Err(_) => {
            let text =
                "too many live pages are open on this node; reload this one, or open the console of another node";
            let refusal = HttpError::new(StatusCode::SERVICE_UNAVAILABLE, text);
            ([(header::RETRY_AFTER, RETRY_SECONDS)], refusal).into_response()
        }
    }
}

/// One live page.
struct Viewer {
    plane: ConsolePlane,
    query: ConsoleQuery,
    /// A hash of each part that was sent.
    sent: HashMap<&'static str, u64>,
    /// What remains of the last look.
    waiting: VecDeque<Event>,
    is_new: bool,
    _place: OwnedSemaphorePermit,
}

impl Viewer {
    fn new(plane: ConsolePlane, query: ConsoleQuery, place: OwnedSemaphorePermit) -> Self {
        Self { plane, query, sent: HashMap::new(), waiting: VecDeque::new(), is_new: true, _place: place }
    }

    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, |mut viewer| async move {
            loop {
                if let Some(event) = viewer.waiting.pop_front() {
                    return Some((Ok(event), viewer));
                }
                viewer.look().await;
            }
        })
    }

    async fn look(&mut self) {
        if !self.is_new {
            sleep(self.plane.update_every.max(Duration::from_millis(10))).await;
        }
        self.is_new = false;
        let snapshot = self.plane.snapshots.current().await;
        for fragment in snapshot.fragments(&self.query).iter() {
            let hash = hash_of(fragment);
            if self.sent.insert(fragment.id, hash) != Some(hash) {
                self.waiting.push_back(Event::default().event(fragment.id).data(&fragment.html));
            }
        }
        self.waiting.push_back(Event::default().event("beat").data(snapshot.view().history.time.to_string()));
    }
}

fn hash_of(fragment: &Fragment) -> u64 {
    let mut hasher = DefaultHasher::new();
    fragment.html.hash(&mut hasher);
    hasher.finish()
}

//! The console on 5059: the page, its style and script, and its live events.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | the page; `?node=ADDRESS` for the charts of one node, `?sort=COLUMN&dir=asc` or `desc` for the order of the table |
//! | `GET /console/events`, with the same query | server-sent events: a part of the page under its name when it has changed, and `beat` with the time |
//! | `GET /console.css`, `GET /console.js` | style and script |
//!
//! What it shows is made by the pure crate `chordfs-console`. The ring is asked only while somebody looks, and once for
//! all viewers (`snapshots`).

mod events;
mod forms;
mod snapshots;
mod source;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{RawQuery, State},
    http::{HeaderMap, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use chordfs_console::{ConsoleQuery, OperatorView, RingView, Section};
use chordfs_types::admin::RingNodeState;
use percent_encoding::percent_decode_str;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::snapshots::RingSnapshots;
pub use self::{forms::RingMembers, source::ConsoleSource};
pub(crate) use self::{
    forms::{OperatorForms, form_routes},
    source::RingSource,
};
use crate::{
    config::ConfigFollower,
    http::page_headers::page_headers,
    operator::{AcceptedTokens, is_operator},
};

/// Where the page may take things from: this node only.
const SOURCES: &str = "script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'";

#[derive(Clone, Copy, Debug)]
pub struct ConsoleOptions {
    /// Viewers with a live page at a time. A viewer costs one page of text at most, while it is being sent.
    pub max_viewers: usize,
    /// How old what is shown may become before the ring is asked anew.
    pub update_every: Duration,
}

impl Default for ConsoleOptions {
    fn default() -> Self {
        Self { max_viewers: 64, update_every: Duration::from_secs(2) }
    }
}

/// Makes the sections that follow the live ones, from the headers of the request and the ring.
pub type MoreSections = Arc<dyn Fn(&HeaderMap, &RingView) -> Vec<Section> + Send + Sync>;

/// The forms for those who are logged in, and a link to the log-in page for all others.
pub(crate) fn operator_sections(forms: OperatorForms, config: ConfigFollower, tokens: AcceptedTokens) -> MoreSections {
    Arc::new(move |headers, view| {
        if !is_operator(headers, &tokens) {
            return vec![chordfs_console::log_in_section()];
        }
        let nodes = view.status.nodes.iter().filter(|node| node.state != RingNodeState::Foreign && node.arc.is_some());
        let nodes = nodes.map(|node| node.address).collect();
        let (config, deletion) = (config.current(), forms.deletion_text());
        chordfs_console::operator_sections(&OperatorView { config, nodes, deletion })
    })
}

#[derive(Clone)]
struct ConsolePlane {
    snapshots: Arc<RingSnapshots>,
    more: MoreSections,
    viewers: Arc<Semaphore>,
    update_every: Duration,
    stop: CancellationToken,
}

/// The router has no fallback. The events end at `stop`.
pub fn routes(
    source: Arc<dyn ConsoleSource>,
    more: MoreSections,
    options: ConsoleOptions,
    stop: CancellationToken,
) -> Router {
    let plane = ConsolePlane {
        snapshots: Arc::new(RingSnapshots::new(source, options.update_every)),
        more,
        viewers: Arc::new(Semaphore::new(options.max_viewers)),
        update_every: options.update_every,
        stop,
    };
    Router::new()
        .route("/", get(page))
        .route("/console/events", get(events::events))
        .route("/console.css", get(|| async { asset("text/css; charset=utf-8", chordfs_console::STYLE) }))
        .route("/console.js", get(|| async { asset("text/javascript; charset=utf-8", chordfs_console::SCRIPT) }))
        .with_state(plane)
}

async fn page(State(plane): State<ConsolePlane>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let snapshot = plane.snapshots.current().await;
    let fragments = snapshot.fragments(&parse_query(query));
    let more = (plane.more)(&headers, snapshot.view());
    let sections: Vec<Section> = fragments.iter().map(chordfs_console::section).chain(more).collect();
    let page = chordfs_console::page(snapshot.view(), &sections);
    (page_headers(SOURCES), Html(page.into_string())).into_response()
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, text).into_response()
}

fn parse_query(query: Option<String>) -> ConsoleQuery {
    let query = query.unwrap_or_default();
    let fields: Vec<(String, String)> = query
        .split('&')
        .filter_map(|field| field.split_once('='))
        .map(|(name, value)| (name.to_owned(), percent_decode_str(value).decode_utf8_lossy().into_owned()))
        .collect();
    ConsoleQuery::of(fields.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

//! The calls on 5059 about the size of the pool.
//!
//! | request | answer |
//! |---|---|
//! | `GET /pool` | [`PoolStatus`] as JSON: the mode, the limits, the wanted size, the nodes that there are, the last 100 decisions from the newest on; 503 if the namespace does not answer |
//! | `GET /pool/wanted` | [`PoolTarget`] as JSON, which is the part of it that the namespace has: no other node is asked |
//! | `POST /pool/grow` | [`PoolDecided`] as JSON: one node more is wanted. 409 with the reason at the limit and in automatic mode |
//! | `POST /pool/shrink` | the same for one node less; 409 also while a node drains, arrives, is filled or does not answer |
//! | `POST /pool/release` | the same: nobody has chosen a size any longer, and each pool follows its own settings again |
//! | `POST /pool/decision`, JSON of [`ScalerDecision`] | the same for a scaler: 409 if another decision came first, beyond the limits, and in manual mode; 400 for what is wrong in itself |

use std::time::Duration;

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    routing::{get, post},
};
use chordfs_types::admin::{PoolDecided, PoolStatus, PoolTarget, ScalerDecision};

use super::editor::PoolEditor;
use crate::http::{body::read_small, error::HttpError};

const MAX_BODY_BYTES: usize = 16 << 10;
const BODY_SILENCE: Duration = Duration::from_secs(30);

type Decided = Result<Json<PoolDecided>, HttpError>;

/// The router has no fallback and no check: the caller adds the one for operators.
pub(crate) fn routes(editor: PoolEditor) -> Router {
    Router::new()
        .route("/pool", get(show))
        .route("/pool/wanted", get(show_target))
        .route("/pool/grow", post(grow))
        .route("/pool/shrink", post(shrink))
        .route("/pool/release", post(release))
        .route("/pool/decision", post(decide))
        .with_state(editor)
}

async fn show(State(editor): State<PoolEditor>) -> Result<Json<PoolStatus>, HttpError> {
    editor.status().await.map(Json)
}

async fn show_target(State(editor): State<PoolEditor>) -> Result<Json<PoolTarget>, HttpError> {
    editor.target().await.map(Json)
}

async fn grow(State(editor): State<PoolEditor>) -> Decided {
    editor.grow().await.map(Json)
}

async fn shrink(State(editor): State<PoolEditor>) -> Decided {
    editor.shrink().await.map(Json)
}

async fn release(State(editor): State<PoolEditor>) -> Decided {
    editor.release().await.map(Json)
}

async fn decide(State(editor): State<PoolEditor>, body: Body) -> Decided {
    let body = read_small(body, MAX_BODY_BYTES, BODY_SILENCE).await?;
    let decision: ScalerDecision = serde_json::from_slice(&body).map_err(|error| {
        let expected = r#"the body must be JSON like {"expected": 3, "from": 2, "to": 4, "reason": TEXT}"#;
        HttpError::bad_request(format!("{expected}: {error}"))
    })?;
    editor.decide(decision).await.map(Json)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chordfs_net::clients::NamespaceClient;
    use chordfs_types::{
        admin::PoolNodes,
        namespace::{Answer, Change, PoolDecider, Query},
        ring_config::RingConfig,
    };
    use futures_util::future::BoxFuture;
    use parking_lot::Mutex;
    use serde_json::{Value, json};

    use super::*;
    use crate::{files::tables_alone::TablesAlone, pool_size::editor::PoolCensus};

    #[derive(Default)]
    struct FixedCensus(Mutex<PoolNodes>);

    impl PoolCensus for FixedCensus {
        fn count(&self) -> BoxFuture<'_, PoolNodes> {
            Box::pin(std::future::ready(*self.0.lock()))
        }
    }

    struct Fixture {
        namespace: Arc<TablesAlone>,
        census: Arc<FixedCensus>,
        editor: PoolEditor,
    }

    impl Fixture {
        /// A pool of so many nodes.
        fn new(serving: u32) -> Self {
            let namespace = Arc::<TablesAlone>::default();
            let nodes = PoolNodes { serving, missing_copies: Some(0), ..PoolNodes::default() };
            let census = Arc::new(FixedCensus(Mutex::new(nodes)));
            let editor = PoolEditor::new(namespace.clone(), census.clone());
            Self { namespace, census, editor }
        }

        async fn configure(&self, settings: &[(&str, &str)]) {
            let Ok(Answer::RingConfig(config)) = self.namespace.query(Query::RingConfig).await else {
                panic!("no configuration")
            };
            let config: RingConfig = config.with(settings.iter().copied()).unwrap();
            self.namespace.apply(Change::Configure { config }).await.unwrap();
        }

        async fn decide(&self, body: impl ToString) -> Result<PoolDecided, HttpError> {
            decide(State(self.editor.clone()), Body::from(body.to_string())).await.map(|Json(decided)| decided)
        }

        async fn status(&self) -> PoolStatus {
            show(State(self.editor.clone())).await.unwrap().0
        }
    }

    #[track_caller]
    fn refused(answer: Result<impl std::fmt::Debug, HttpError>, status: u16, text: &str) {
        let error = answer.unwrap_err();
        assert!(error.status == status && error.text.contains(text), "{error:?}");
    }

    fn decision(expected: u64, to: u32) -> Value {
        json!({"expected": expected, "from": 2, "to": to, "reason": "misses", "miss_rate": 0.62, "fullest_disk": null})
    }

    #[tokio::test]
    async fn an_operator_grows_and_shrinks_by_one_and_everybody_sees_why() {
        let fixture = Fixture::new(2);
        let before = fixture.status().await;
        assert_eq!((before.target.wanted, before.target.serial, before.nodes.serving), (None, 0, 2));
        let grown = fixture.editor.grow().await.unwrap();
        assert_eq!((grown.wanted, grown.serial, grown.text.as_str()), (Some(3), 1, "The pool is to have 3 nodes."));
        assert_eq!(fixture.editor.grow().await.unwrap().wanted, Some(4));
        assert_eq!(fixture.editor.shrink().await.unwrap().wanted, Some(3));
        let status = fixture.status().await;
        let tos: Vec<_> = status.decisions.iter().map(|line| (line.serial, line.to, line.by)).collect();
        let operator = PoolDecider::Operator;
        assert_eq!(tos, [(3, Some(3), operator), (2, Some(4), operator), (1, Some(3), operator)], "newest first");
        assert_eq!(status.target.reason.as_deref(), Some("an operator asked for one node less"));
        assert_eq!(status.target, fixture.editor.target().await.unwrap());
        let released = fixture.editor.release().await.unwrap();
        assert_eq!((released.wanted, fixture.editor.target().await.unwrap().wanted), (None, None));
    }

    #[tokio::test]
    async fn what_is_refused_says_why_and_changes_nothing() {
        let fixture = Fixture::new(2);
        refused(fixture.editor.release().await, 409, "nobody has chosen");
        refused(fixture.decide(decision(0, 3)).await, 409, "pool.mode is manual");
        fixture.configure(&[("pool.largest", "2"), ("pool.smallest", "2")]).await;
        refused(fixture.editor.grow().await, 409, "pool.largest is 2");
        refused(fixture.editor.shrink().await, 409, "pool.smallest is 2");
        fixture.configure(&[("pool.largest", "8"), ("pool.smallest", "1")]).await;
        fixture.census.0.lock().silent = 1;
        refused(fixture.editor.shrink().await, 409, "not answering");
        fixture.configure(&[("pool.mode", "automatic")]).await;
        refused(fixture.editor.grow().await, 409, "set pool.mode to manual first");
        assert_eq!(fixture.status().await.decisions, []);
    }

    #[tokio::test]
    async fn of_two_scalers_one_decides() {
        let fixture = Fixture::new(2);
        fixture.configure(&[("pool.mode", "automatic")]).await;
        assert_eq!(fixture.decide(decision(0, 4)).await.unwrap().wanted, Some(4));
        refused(fixture.decide(decision(0, 4)).await, 409, "another decision");
        refused(fixture.decide(decision(1, 9)).await, 409, "pool.largest is 8");
        let status = fixture.status().await;
        assert_eq!((status.target.serial, status.decisions[0].miss_rate), (1, Some(0.62)));
        assert_eq!(status.decisions[0].by, PoolDecider::Scaler);
        assert!(status.target.seconds_since_decision.is_some_and(|seconds| seconds < 60));
    }

    #[tokio::test]
    async fn a_decision_that_is_wrong_in_itself_is_a_bad_request() {
        let fixture = Fixture::new(2);
        fixture.configure(&[("pool.mode", "automatic")]).await;
        let with = |name: &str, value: Value| {
            let mut body = decision(0, 3);
            body[name] = value;
            body
        };
        for (body, text) in [
            (with("reason", "x".repeat(201).into()), "201 bytes"),
            (with("reason", "".into()), "0 bytes"),
            (with("miss_rate", 1.5.into()), "miss_rate: 1.5"),
            (with("fullest_disk", (-0.1).into()), "fullest_disk: -0.1"),
            (with("to", (-1).into()), "the body must be JSON"),
            (json!([]), "the body must be JSON"),
        ] {
            refused(fixture.decide(body).await, 400, text);
        }
        refused(fixture.decide("{").await, 400, "the body must be JSON");
        refused(fixture.decide("x".repeat(20_000)).await, 413, "longer than");
        assert_eq!(fixture.status().await.target.serial, 0);
    }
}

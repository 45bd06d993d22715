//! The calls on 5059 about the ring's configuration.
//!
//! | request | answer |
//! |---|---|
//! | `GET /config` | the configuration as JSON, as the namespace has it now; 503 if it does not answer |
//! | `PUT /config`, JSON in the same form | the new configuration. Settings that are left out are kept. With a `version`, 409 if that is no longer the current one. 400 names the wrong setting; then nothing has changed |
//! | `POST /cache/clear` | the configuration, once every node is about to empty its cache |

use std::time::Duration;

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    routing::{get, post},
};
use serde_json::Value;

use super::editor::ConfigEditor;
use crate::http::{body::read_small, error::HttpError};

const MAX_BODY_BYTES: usize = 64 << 10;
const BODY_SILENCE: Duration = Duration::from_secs(30);

/// The router has no fallback.
pub(crate) fn routes(editor: ConfigEditor) -> Router {
    Router::new().route("/config", get(show).put(change)).route("/cache/clear", post(clear_cache)).with_state(editor)
}

async fn show(State(editor): State<ConfigEditor>) -> Result<Json<Value>, HttpError> {
    Ok(Json(editor.current().await?.to_json()))
}

async fn change(State(editor): State<ConfigEditor>, body: Body) -> Result<Json<Value>, HttpError> {
    let body = read_small(body, MAX_BODY_BYTES, BODY_SILENCE).await?;
    let wanted: Value = serde_json::from_slice(&body).map_err(|error| {
        let expected = r#"the body must be JSON like {"cache": {"capacity": "512M", "policy": "lru"}}"#;
        HttpError::bad_request(format!("{expected}: {error}"))
    })?;
    Ok(Json(editor.change(&wanted).await?.to_json()))
}

async fn clear_cache(State(editor): State<ConfigEditor>) -> Result<Json<Value>, HttpError> {
    Ok(Json(editor.clear_caches().await?.to_json()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chordfs_net::clients::NamespaceClient;
    use chordfs_store::{DataFolder, Store, StoreOptions};
    use chordfs_types::{
        chunk::Version,
        fs_error::FsError,
        namespace::{Answer, Change, Query, Reply},
        ring_config::RingConfig,
    };
    use futures_util::future::BoxFuture;
    use serde_json::json;
    use tempfile::TempDir;
    use tokio::sync::Notify;

    use super::*;
    use crate::{config::ConfigFollower, files::tables_alone::TablesAlone};

    struct Fixture {
        folder: DataFolder,
        _dir: TempDir,
        namespace: Arc<TablesAlone>,
        store: Arc<Store>,
        follower: ConfigFollower,
        editor: ConfigEditor,
    }

    fn start() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(dir.path()).unwrap();
        let store = Arc::new(Store::open(&folder, StoreOptions::default()).unwrap());
        let namespace = Arc::new(TablesAlone::default());
        let follower = ConfigFollower::start(&folder, store.clone());
        let editor = ConfigEditor::new(namespace.clone(), follower.clone());
        Fixture { folder, _dir: dir, namespace, store, follower, editor }
    }

    impl Fixture {
        async fn put(&self, body: impl ToString) -> Result<Value, HttpError> {
            change(State(self.editor.clone()), Body::from(body.to_string())).await.map(|Json(value)| value)
        }

        async fn config(&self) -> Value {
            show(State(self.editor.clone())).await.unwrap().0
        }
    }

    #[tokio::test]
    async fn a_change_takes_effect_on_this_node_and_in_the_namespace() {
        let fixture = start();
        assert!(fixture.store.cache_stats().capacity_bytes > 0, "the default share");
        let body = json!({"cache": {"capacity": "2M", "policy": "random"}});
        fixture.put(body).await.unwrap();
        let config = fixture.config().await;
        assert_eq!((&config["version"], &config["cache"]["capacity"]), (&json!(1), &json!("2M")));
        assert_eq!(fixture.store.cache_stats().capacity_bytes, 2 << 20);
        let again = ConfigFollower::start(&fixture.folder, fixture.store.clone());
        assert_eq!(again.current(), fixture.follower.current(), "it is kept for a start without a namespace");
        _ = clear_cache(State(fixture.editor.clone())).await.unwrap();
        assert_eq!(fixture.follower.current().cache.clears, 1);
    }

    #[tokio::test]
    async fn another_node_follows_and_a_new_namespace_counts_more_than_what_was_kept() {
        let (one, other) = (start(), start());
        let stop = tokio_util::sync::CancellationToken::new();
        let following = tokio::spawn(other.follower.clone().run(one.namespace.clone(), stop.clone()));
        one.put(json!({"cache": {"capacity": "off"}})).await.unwrap();
        let end = tokio::time::Instant::now() + Duration::from_secs(20);
        while other.store.cache_stats().capacity_bytes > 0 && tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!((other.store.cache_stats().capacity_bytes, other.follower.current().version), (0, 1));
        stop.cancel();
        following.await.unwrap();
        other.follower.apply(RingConfig::default()).await;
        assert!(other.store.cache_stats().capacity_bytes > 0);
    }

    /// A namespace whose answers to queries arrive late.
    #[derive(Default)]
    struct LateAnswers {
        tables: Arc<TablesAlone>,
        asked: Notify,
        arrive: Notify,
    }

    impl NamespaceClient for LateAnswers {
        fn apply(&self, change: Change) -> BoxFuture<'_, Result<Reply, FsError>> {
            self.tables.apply(change)
        }

        fn query(&self, query: Query) -> BoxFuture<'_, Result<Answer, FsError>> {
            Box::pin(async move {
                let answer = self.tables.query(query).await;
                self.asked.notify_one();
                self.arrive.notified().await;
                answer
            })
        }

        fn next_version(&self) -> BoxFuture<'_, Result<Version, FsError>> {
            unreachable!("no file is written")
        }
    }

    #[tokio::test]
    async fn an_answer_from_before_a_change_is_not_applied_after_the_change() {
        let fixture = start();
        let late = Arc::new(LateAnswers { tables: fixture.namespace.clone(), ..LateAnswers::default() });
        let stop = tokio_util::sync::CancellationToken::new();
        let following = tokio::spawn(fixture.follower.clone().run(late.clone(), stop.clone()));
        late.asked.notified().await;
        let changed = async {
            fixture.put(json!({"cache": {"capacity": "off"}})).await.unwrap();
        };
        let arrives = async {
            while fixture.config().await["version"] == 0 {
                tokio::task::yield_now().await;
            }
            late.arrive.notify_one();
        };
        tokio::join!(changed, arrives);
        // The next question is asked once the first answer has been dealt with.
        late.asked.notified().await;
        let stats = fixture.store.cache_stats();
        assert_eq!((fixture.follower.current().version, stats.capacity_bytes), (1, 0));
        stop.cancel();
        following.await.unwrap();
    }

    #[tokio::test]
    async fn a_node_with_less_memory_than_the_others_takes_less_and_accepts_other_changes() {
        let fixture = start();
        let huge = RingConfig::default().with([("cache.capacity", "8000T")]).unwrap();
        fixture.namespace.apply(Change::Configure { config: huge }).await.unwrap();
        fixture.put(json!({"cache": {"policy": "random"}})).await.unwrap();
        let config = fixture.follower.current();
        assert_eq!((config.version, config.cache.capacity), (2, huge.cache.capacity));
        let taken = fixture.store.cache_stats().capacity_bytes;
        assert!(0 < taken && taken < 8000 << 40, "{taken}");
    }

    #[tokio::test]
    async fn what_is_wrong_changes_nothing_and_is_named() {
        let fixture = start();
        let before = fixture.config().await;
        for (body, status, text) in [
            (json!({"cache": {"policy": "random", "capacity": 0}}), 400, "cache.capacity: 0 bytes"),
            (json!({"cache": {"capacity": "8000T"}}), 400, "cache.capacity: 8796093022208000 bytes are more than"),
            (json!({"pool": {"expand_ratio": 1}}), 400, "pool.expand_ratio: 1 would not grow"),
            (json!({"pool": {"min_miss_rate": 0.9}}), 400, "pool.min_miss_rate: 0.9 must be below"),
            (json!({"version": 7, "pool": {"largest": 3}}), 409, "look at it again"),
            (json!({"version": "x"}), 400, "version"),
            (json!(7), 400, "an object"),
        ] {
            let error = fixture.put(&body).await.unwrap_err();
            assert!(error.status == status && error.text.contains(text), "{body}: {error:?}");
        }
        assert_eq!(fixture.put("{pool:").await.unwrap_err().status, 400);
        assert_eq!(fixture.config().await, before);
    }
}

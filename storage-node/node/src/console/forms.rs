//! The forms of the console, for operators. Each answers with a page that says what was done, or why nothing was.
//!
//! | request | effect |
//! |---|---|
//! | `POST /console/settings`, settings by their names and `version` | changes the configuration of the ring |
//! | `POST /console/clear-cache`, `ring` | empties the caches of all nodes |
//! | `POST /console/delete-all`, `ring` | begins to delete all files, on this node |
//! | `POST /console/pool`, `action`: `grow`, `shrink` or `release` | chooses the size of the pool |
//! | `POST /console/node`, `node` and `action`: `scrub`, `drain`, `drain-fewer` or `cancel` | passes the work on to that node |
//! | `GET /delete-all` | JSON of [`DeletionStatus`] of this node |
//! | `POST /delete-all`, JSON `{"ring": NAME}` | the same for programs: 202 and the status |
//!
//! `ring` is the name of the ring, typed to confirm. The operator's token goes only to nodes that this node knows as
//! members of its ring.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use chordfs_console::outcome_page;
use chordfs_net::admin_client::{AdminClient, AdminError, DrainRequest};
use chordfs_types::{
    operator::OperatorToken,
    ring_config::{CONFIG_FIELDS, RingConfig},
    ring_id::NodeAddress,
};
use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use super::SOURCES;
use crate::{
    config::ConfigEditor,
    files::{DeleteAll, delete_all::DeletionStatus},
    http::{body::read_small, error::HttpError, page_headers::page_headers},
    operator::request_token,
    pool_size::PoolEditor,
};

const MAX_FORM_BYTES: usize = 16 << 10;
const BODY_SILENCE: Duration = Duration::from_secs(10);

/// The storage nodes of the ring as this node sees them.
pub trait RingMembers: Send + Sync + 'static {
    /// Their addresses in the ring. Every wait in it has a deadline.
    fn members(&self) -> BoxFuture<'_, Vec<SocketAddr>>;
}

/// What the forms work with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct OperatorForms {
    pub editor: ConfigEditor,
    pub pool: PoolEditor,
    pub deletion: DeleteAll,
    pub members: Arc<dyn RingMembers>,
    /// Without a token.
    pub client: AdminClient,
}

type Fields = BTreeMap<String, String>;

/// Text for people after a success.
type FormOutcome = Result<String, HttpError>;

/// The router has no fallback and no check: the caller adds the one for operators.
pub(crate) fn form_routes(forms: OperatorForms) -> Router {
    Router::new()
        .route("/console/settings", post(change_settings))
        .route("/console/clear-cache", post(clear_caches))
        .route("/console/delete-all", post(delete_all))
        .route("/console/pool", post(choose_size))
        .route("/console/node", post(work_on_node))
        .route("/delete-all", get(deletion_status).post(delete_all_for_program))
        .with_state(forms)
}

async fn change_settings(State(forms): State<OperatorForms>, body: Body) -> Response {
    let changed = async {
        let settings = to_json(read_form(body).await?)?;
        let config = forms.editor.change(&settings).await?;
        Ok(format!("All nodes follow within seconds. The configuration has version {} now.", config.version))
    };
    answer(changed.await, "cache-settings")
}

async fn choose_size(State(forms): State<OperatorForms>, body: Body) -> Response {
    let decided = async {
        match read_form(body).await?.get("action").map(String::as_str) {
            Some("grow") => forms.pool.grow().await,
            Some("shrink") => forms.pool.shrink().await,
            Some("release") => forms.pool.release().await,
            other => Err(HttpError::bad_request(format!("{other:?} is no action: grow, shrink or release"))),
        }
    };
    answer(decided.await.map(|decided| decided.text), "pool-settings")
}

async fn clear_caches(State(forms): State<OperatorForms>, body: Body) -> Response {
    let cleared = async {
        forms.confirm(read_form(body).await?.get("ring")).await?;
        forms.editor.clear_caches().await?;
        Ok("All nodes empty their caches within seconds.".to_owned())
    };
    answer(cleared.await, "maintenance")
}

async fn delete_all(State(forms): State<OperatorForms>, body: Body) -> Response {
    let begun = async {
        forms.begin_deletion(read_form(body).await?.get("ring")).await?;
        Ok("The deletion has begun. The console shows how far it is.".to_owned())
    };
    answer(begun.await, "maintenance")
}

async fn delete_all_for_program(
    State(forms): State<OperatorForms>,
    body: Body,
) -> Result<(StatusCode, Json<DeletionStatus>), HttpError> {
    let body = read_small(body, MAX_FORM_BYTES, BODY_SILENCE).await?;
    let fields: Fields = serde_json::from_slice(&body)
        .map_err(|error| HttpError::bad_request(format!("the body must be JSON like {{\"ring\": NAME}}: {error}")))?;
    forms.begin_deletion(fields.get("ring")).await?;
    Ok((StatusCode::ACCEPTED, Json(forms.deletion.status())))
}

async fn deletion_status(State(forms): State<OperatorForms>) -> Json<DeletionStatus> {
    Json(forms.deletion.status())
}

async fn work_on_node(State(forms): State<OperatorForms>, headers: HeaderMap, body: Body) -> Response {
    let done = async {
        let fields = read_form(body).await?;
        forms.work_on_node(&fields, request_token(&headers)).await
    };
    answer(done.await, "maintenance")
}

impl OperatorForms {
    /// The last deletion in words; `None` if this node has carried out none.
    pub(super) fn deletion_text(&self) -> Option<String> {
        let DeletionStatus { running, removed, left, error } = self.deletion.status();
        match (running, error) {
            (true, _) => Some(format!("A deletion is under way: {removed} files and folders are removed so far.")),
            (false, Some(error)) => Some(format!("The last deletion ended after {removed} removals: {error}.")),
            (false, None) if removed + left == 0 => None,
            (false, None) => Some(format!(
                "The last deletion has removed {removed} files and folders, and left {left} folders that had become full \
                 again."
            )),
        }
    }

    async fn begin_deletion(&self, typed: Option<&String>) -> Result<(), HttpError> {
        self.confirm(typed).await?;
        if self.deletion.begin() {
            return Ok(());
        }
        Err(HttpError::new(StatusCode::CONFLICT, "a deletion of all data is under way already"))
    }

    /// Checks the typed name against the one that the namespace has now.
    async fn confirm(&self, typed: Option<&String>) -> Result<RingConfig, HttpError> {
        let config = self.editor.current().await?;
        match typed {
            Some(name) if name.trim() == config.name.as_str() => Ok(config),
            Some(name) => {
                Err(HttpError::bad_request(format!("{name:?} is not the name of this ring, {}", config.name)))
            }
            None => Err(HttpError::bad_request("type the name of the ring to confirm (field ring)")),
        }
    }

    async fn work_on_node(&self, fields: &Fields, token: Option<OperatorToken>) -> FormOutcome {
        let missing = |name: &str| HttpError::bad_request(format!("the form lacks the field {name}"));
        let node = fields.get("node").ok_or_else(|| missing("node"))?;
        let action = fields.get("action").ok_or_else(|| missing("action"))?;
        let node: SocketAddr =
            node.parse().map_err(|_| HttpError::bad_request(format!("{node:?} is no address of a node: IP:PORT")))?;
        if !self.members.members().await.contains(&node) {
            let text = format!("{node} is no storage node of this ring that answers");
            return Err(HttpError::new(StatusCode::NOT_FOUND, text));
        }
        let client = self.client.clone().with_token(token);
        carry_out(action, &client, node.into()).await
    }
}

async fn carry_out(action: &str, client: &AdminClient, node: NodeAddress) -> FormOutcome {
    match action {
        "scrub" => {
            client.begin_scrub(node).await?;
            Ok(format!("{node} checks every chunk that it keeps. The table of nodes shows how far it is."))
        }
        "drain" | "drain-fewer" => {
            let request = DrainRequest { allow_fewer_copies: action == "drain-fewer", rate: None };
            client.begin_drain(node, request).await?;
            Ok(format!("{node} drains. The table of nodes shows how far it is; it serves until it has left."))
        }
        "cancel" => {
            client.cancel_drain(node).await?;
            Ok(format!("The drain of {node} was cancelled; it continues to serve."))
        }
        other => Err(HttpError::bad_request(format!("{other:?} is no work: scrub, drain, drain-fewer or cancel"))),
    }
}

impl From<AdminError> for HttpError {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::Refused { status, text, node, .. } => Self::new(status, format!("{node}: {}", text.trim_end())),
            other => Self::new(StatusCode::BAD_GATEWAY, other.to_string()),
        }
    }
}

/// Groups the settings as [`RingConfig::with_json`] expects them.
fn to_json(fields: Fields) -> Result<Value, HttpError> {
    let mut all = Map::new();
    for (name, value) in fields {
        if name == "version" {
            let version: u64 = value.parse().map_err(|_| HttpError::bad_request("the form's version is no number"))?;
            all.insert(name, version.into());
        } else if let Some(field) = CONFIG_FIELDS.iter().find(|field| field.name == name) {
            let (group, setting) = field.name.split_once('.').expect("every name has a group");
            let group = all.entry(group).or_insert_with(|| Value::Object(Map::new()));
            group.as_object_mut().expect("a group is an object").insert(setting.to_owned(), value.into());
        } else {
            return Err(HttpError::bad_request(format!("{name:?} is no setting")));
        }
    }
    Ok(Value::Object(all))
}

async fn read_form(body: Body) -> Result<Fields, HttpError> {
    let body = read_small(body, MAX_FORM_BYTES, BODY_SILENCE).await?;
    serde_urlencoded::from_bytes(&body)
        .map_err(|error| HttpError::bad_request(format!("the body must be a form (urlencoded): {error}")))
}

fn answer(outcome: FormOutcome, section: &str) -> Response {
    let (status, is_done, text) = match outcome {
        Ok(text) => (StatusCode::OK, true, text),
        Err(error) => (error.status, false, error.text),
    };
    (status, page_headers(SOURCES), Html(outcome_page(is_done, &text, section).into_string())).into_response()
}

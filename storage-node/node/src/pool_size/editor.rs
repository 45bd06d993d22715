//! Changes the size of the pool for an operator or a scaler: from a call, a form, or a command.

use std::sync::Arc;

use axum::http::StatusCode;
use chordfs_net::clients::NamespaceClient;
use chordfs_types::{
    admin::{PoolDecided, PoolDecisionLine, PoolNodes, PoolStatus, PoolTarget, ScalerDecision},
    fs_error::FsError,
    namespace::{Answer, Change, MAX_POOL_REASON_BYTES, PoolDecider, PoolSize, PoolStep, Query, Reply, Time},
    ring_config::{Decimal, PoolConfig},
};
use futures_util::future::BoxFuture;

use super::steps::{one_less, one_more, release};
use crate::{http::error::HttpError, status::RingSurvey};

/// Counts the storage nodes of the ring.
pub(crate) trait PoolCensus: Send + Sync + 'static {
    /// Every wait in it has a deadline.
    fn count(&self) -> BoxFuture<'_, PoolNodes>;
}

impl PoolCensus for RingSurvey {
    fn count(&self) -> BoxFuture<'_, PoolNodes> {
        Box::pin(async move { PoolNodes::of(&self.gather().await) })
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct PoolEditor {
    namespace: Arc<dyn NamespaceClient>,
    census: Arc<dyn PoolCensus>,
}

type OperatorStep = fn(&PoolTarget, &PoolNodes) -> Result<PoolStep, String>;

impl PoolEditor {
    pub(crate) fn new(namespace: Arc<dyn NamespaceClient>, census: Arc<dyn PoolCensus>) -> Self {
        Self { namespace, census }
    }

    /// What is wanted, what there is, and the last decisions.
    pub(crate) async fn status(&self) -> Result<PoolStatus, HttpError> {
        self.status_of(self.census.count().await).await
    }

    /// Like [`status`](Self::status), for nodes that were counted already.
    pub(crate) async fn status_of(&self, nodes: PoolNodes) -> Result<PoolStatus, HttpError> {
        let (config, size) = self.ask().await?;
        let target = PoolTarget::new(&config, &size, Time::now());
        let decisions = size.decisions.iter().rev().map(PoolDecisionLine::from).collect();
        Ok(PoolStatus { target, nodes, decisions })
    }

    /// What is wanted.
    pub(crate) async fn target(&self) -> Result<PoolTarget, HttpError> {
        let (config, size) = self.ask().await?;
        Ok(PoolTarget::new(&config, &size, Time::now()))
    }

    /// One node more.
    pub(crate) async fn grow(&self) -> Result<PoolDecided, HttpError> {
        self.operate(one_more).await
    }

    /// One node less.
    pub(crate) async fn shrink(&self) -> Result<PoolDecided, HttpError> {
        self.operate(one_less).await
    }

    /// Each pool follows its own settings again.
    pub(crate) async fn release(&self) -> Result<PoolDecided, HttpError> {
        self.operate(release).await
    }

    /// A scaler's decision.
    pub(crate) async fn decide(&self, decision: ScalerDecision) -> Result<PoolDecided, HttpError> {
        let expected = decision.expected;
        self.resize(expected, scaler_step(decision)?).await
    }

    /// The second of two operators who act at the same time has to look again: one press of a button is one node.
    async fn operate(&self, make_step: OperatorStep) -> Result<PoolDecided, HttpError> {
        let target = self.target().await?;
        let step = make_step(&target, &self.census.count().await).map_err(conflict)?;
        self.resize(target.serial, step).await
    }

    async fn resize(&self, expected: u64, step: PoolStep) -> Result<PoolDecided, HttpError> {
        let text = decided_text(&step);
        match self.namespace.apply(Change::ResizePool { expected, step }).await {
            Ok(Reply::PoolResized { serial, wanted, changed: true }) => Ok(PoolDecided { text, serial, wanted }),
            Ok(Reply::PoolResized { serial, .. }) => Err(conflict(format!(
                "another decision about the size of the pool came first (number {serial}), and nothing was changed now; \
                 look at it again"
            ))),
            Ok(other) => Err(FsError::Internal { detail: format!("a reply to another change: {other:?}") }.into()),
            Err(FsError::Invalid { reason }) => Err(conflict(reason)),
            Err(error) => Err(error.into()),
        }
    }

    async fn ask(&self) -> Result<(PoolConfig, PoolSize), FsError> {
        let (config, size) =
            tokio::join!(self.namespace.query(Query::RingConfig), self.namespace.query(Query::PoolSize));
        match (config?, size?) {
            (Answer::RingConfig(config), Answer::PoolSize(size)) => Ok((config.pool, size)),
            other => Err(FsError::Internal { detail: format!("answers to other queries: {other:?}") }),
        }
    }
}

fn conflict(reason: impl Into<String>) -> HttpError {
    HttpError::new(StatusCode::CONFLICT, reason)
}

fn decided_text(step: &PoolStep) -> String {
    match step.to {
        Some(1) => "The pool is to have 1 node.".into(),
        Some(nodes) => format!("The pool is to have {nodes} nodes."),
        None => "The pool follows its own settings again.".into(),
    }
}

/// What is wrong whatever the state of the pool is answered with 400.
fn scaler_step(decision: ScalerDecision) -> Result<PoolStep, HttpError> {
    let ScalerDecision { from, to, reason, miss_rate, fullest_disk, .. } = decision;
    if reason.is_empty() || reason.len() > MAX_POOL_REASON_BYTES {
        let text = format!("reason: {} bytes; 1 to {MAX_POOL_REASON_BYTES} are allowed", reason.len());
        return Err(HttpError::bad_request(text));
    }
    let (miss_rate, fullest_disk) = (share("miss_rate", miss_rate)?, share("fullest_disk", fullest_disk)?);
    Ok(PoolStep { from, to: Some(to), by: PoolDecider::Scaler, reason, miss_rate, fullest_disk })
}

fn share(name: &str, number: Option<f64>) -> Result<Option<Decimal>, HttpError> {
    let Some(number) = number else { return Ok(None) };
    let share = Decimal::from_f64(number).filter(|share| *share <= Decimal::ONE);
    let wrong = || HttpError::bad_request(format!("{name}: {number} is not from 0 to 1"));
    share.map(Some).ok_or_else(wrong)
}

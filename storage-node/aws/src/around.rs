//! What AWS has to do with a running node: policy and alarm, the metric, and the end of its instance.
//!
//! None of it is needed to serve, so all of it may begin later than the node: who the instance is and to which group it
//! belongs is asked for here until it is known, if it was not known at the start.

use chordfs_net::backoff::Backoff;
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use aws_config::imds;
use axum::Router;
use chordfs_node::{drain::Drain, lifecycle::HostEnvironment, mutual_exclusion::Claim};
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    Context, Shared,
    args::AwsSettings,
    board::{Board, Topic},
    cloud::{CallError, SharedCloud, Trouble},
    founding::{self, Shown, Standing},
    identity::{self, Identity},
    leave, metric,
    scaling::{self, Put},
    sdk::Sdk,
};

/// Between tries of what only AWS can put right.
const TRY_FIRST: Duration = Duration::from_secs(1);
const TRY_GROUP_AT_LEAST: Duration = Duration::from_secs(15);
const TRY_SCALING_AT_LEAST: Duration = Duration::from_secs(300);
/// At the latest so long after policy and alarm were in order they are looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// What is known so far, and what is wrong: all that `/healthz` tells. Cheap to clone.
#[derive(Clone)]
pub struct Known {
    pub board: Arc<Board>,
    pub standing: Arc<Standing>,
    /// That was named.
    group: Option<String>,
    context: Arc<OnceLock<Context>>,
}

impl Known {
    pub fn nothing(group: Option<String>) -> Self {
        let group = group.filter(|name| !name.is_empty());
        Self { board: Arc::default(), standing: Arc::default(), group, context: Arc::default() }
    }

    /// What [`Board::shown`] says, and `instance`, `zone` and `group`: null while they are not known.
    pub fn shown(&self) -> Value {
        let context = self.context.get();
        let mut shown = self.board.shown();
        shown["instance"] = context.map(|known| known.identity.instance.clone()).into();
        shown["zone"] = context.map(|known| known.identity.zone.clone()).into();
        shown["group"] = context.map_or_else(|| self.group.clone(), |known| Some(known.group.clone())).into();
        shown
    }
}

pub struct Around {
    pub imds: imds::Client,
    pub settings: AwsSettings,
    pub known: Known,
    /// Of this node's ring, as others know it.
    pub address: SocketAddr,
    /// An operator did.
    pub chose_address: bool,
    pub data: PathBuf,
}

impl Around {
    /// Returns when the group's name is known too.
    pub async fn context_of(&self, identity: Identity) -> &Context {
        let cloud: SharedCloud = Arc::new(Sdk::new(self.imds.clone(), Some(identity.region.clone())).await);
        let group = match self.known.group.clone() {
            Some(named) => named,
            None => wait_for_group(&cloud, &self.known.board, &identity.instance).await,
        };
        self.known.context.get_or_init(|| {
            Context::new(Shared {
                cloud,
                board: self.known.board.clone(),
                standing: self.known.standing.clone(),
                identity,
                group,
                settings: self.settings.clone(),
                address: self.address,
                data: self.data.clone(),
            })
        })
    }

    async fn context(&self) -> &Context {
        match self.known.context.get() {
            Some(context) => context,
            None => {
                let identity = identity::wait(&self.imds, &self.known.board).await;
                self.compare(&identity);
                let context = self.context_of(identity).await;
                self.known.board.clear_activity();
                context
            }
        }
    }

    /// The folder may come from another machine, and a public address from before the instance was stopped.
    fn compare(&self, identity: &Identity) {
        match identity.advertised(self.settings.advertise) {
            Ok(ip) if !self.chose_address && ip != self.address.ip() => self.known.board.set(
                Topic::Address,
                &format!(
                    "{} is reached at {ip}, and its node tells others {}, which its folder remembers from before: start \
                     the node again",
                    identity.instance,
                    self.address.ip()
                ),
            ),
            _ => {}
        }
    }
}

/// Asks until it is known.
async fn wait_for_group(cloud: &SharedCloud, board: &Board, instance: &str) -> String {
    let mut backoff = Backoff::new(TRY_FIRST, TRY_GROUP_AT_LEAST);
    loop {
        let asked = cloud.membership(instance).await.and_then(|found| {
            found.ok_or_else(|| CallError {
                action: "autoscaling:DescribeAutoScalingInstances",
                resource: instance.to_owned(),
                trouble: Trouble::Missing,
                detail: "it belongs to no Auto Scaling group; name one with --asg, or run without --aws".to_owned(),
            })
        });
        if let Some(found) = board.note(Topic::Group, asked) {
            return found.group;
        }
        board.set_activity("waits for the name of its group");
        sleep(backoff.pause()).await;
    }
}

impl HostEnvironment for Around {
    fn routes(&self) -> Router {
        founding::routes(self.known.standing.clone())
    }

    fn health(&self) -> (&'static str, Value) {
        ("aws", self.known.shown())
    }

    fn placed(&self) {
        self.known.standing.show(Shown { ring: true, bid: Claim::Idle });
        self.known.board.clear_activity();
    }

    fn attend(self: Arc<Self>, drain: Drain, stop: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let aws = tokio::select! {
                context = self.context() => context,
                () = stop.cancelled() => return,
            };
            let what = metric::Publish {
                folder: &aws.data,
                namespace: &aws.settings.scaling.namespace,
                instance: &aws.identity.instance,
                group: &aws.group,
                period: aws.settings.metric_period,
            };
            let beside = async {
                tokio::select! {
                    _ = async { tokio::join!(keep_scaling(aws), metric::publish(&*aws.cloud, &aws.board, what)) } => {}
                    () = stop.cancelled() => {}
                }
            };
            tokio::join!(beside, leave::watch(aws, &drain, &stop));
        })
    }
}

/// For ever: soon again where something is wrong, and now and then where nothing is.
async fn keep_scaling(aws: &Context) {
    let mut backoff = Backoff::new(TRY_FIRST, TRY_SCALING_AT_LEAST);
    let mut again = Backoff::new(LOOK_AGAIN, LOOK_AGAIN);
    let mut put = Put::WhatDiffers;
    loop {
        let done = scaling::ensure(&*aws.cloud, &aws.board, &aws.settings.scaling, &aws.group, put).await;
        let pause = match done {
            true => {
                put = Put::WhatIsBroken;
                backoff.reset();
                again.pause()
            }
            false => backoff.pause(),
        };
        sleep(pause).await;
    }
}

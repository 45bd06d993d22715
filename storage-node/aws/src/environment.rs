//! The AWS tasks of a running node: policies and alarms, the metric, and the termination of its instance.
//!
//! A node needs none of them to serve, so all of them may start later than the node. If the instance's identity and its
//! group were not known at startup, this module asks for them until they are.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use aws_config::imds;
use axum::Router;
use chordfs_net::{backoff::Backoff, http_pool::HttpPool};
use chordfs_node::{drain::Drain, lifecycle::HostEnvironment, mutual_exclusion::Claim};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    AwsContext, AwsContextInner,
    args::AwsSettings,
    capacity::{self, AlarmSwitches},
    cloud::{CallError, CallErrorKind, SharedCloud},
    founding::{self, FoundingState, FoundingStatus},
    health::{AwsHealth, Topic},
    identity::{self, InstanceIdentity},
    metric,
    scaling::{self, ScalingWrites},
    sdk::Sdk,
    statistics, termination,
};

/// Pauses between attempts that fail for reasons outside this node.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const GROUP_RETRY_LIMIT: Duration = Duration::from_secs(15);
const SCALING_RETRY_LIMIT: Duration = Duration::from_secs(300);
/// Pause between checks of policies and alarms that are in order.
const SCALING_CHECK_INTERVAL: Duration = Duration::from_secs(300);

/// What has been discovered about this instance, and the current problems, as `/healthz` reports them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct AwsStatus {
    pub health: Arc<AwsHealth>,
    pub founding: Arc<FoundingState>,
    /// The configured group, if any.
    group: Option<String>,
    context: Arc<OnceLock<AwsContext>>,
}

impl AwsStatus {
    pub(crate) fn new(group: Option<String>) -> Self {
        let group = group.filter(|name| !name.is_empty());
        Self { health: Arc::default(), founding: Arc::default(), group, context: Arc::default() }
    }

    /// The fields of [`AwsHealth::to_json`] and `instance`, `zone` and `group`, each null while it is unknown.
    pub(crate) fn to_json(&self) -> Value {
        let context = self.context.get();
        let mut status = self.health.to_json();
        status["instance"] = context.map(|context| context.identity.instance.clone()).into();
        status["zone"] = context.map(|context| context.identity.zone.clone()).into();
        status["group"] = context.map_or_else(|| self.group.clone(), |context| Some(context.group.clone())).into();
        status
    }
}

/// The [`HostEnvironment`] of a node on EC2.
pub(crate) struct AwsEnvironment {
    pub imds: imds::Client,
    pub settings: AwsSettings,
    pub status: AwsStatus,
    /// The ring address that this node advertises.
    pub address: SocketAddr,
    /// Set by an operator, not discovered.
    pub address_is_configured: bool,
    pub data: PathBuf,
}

impl AwsEnvironment {
    /// Returns once the name of the group is known as well.
    pub(crate) async fn context_of(&self, identity: InstanceIdentity) -> &AwsContext {
        let cloud: SharedCloud = Arc::new(Sdk::new(self.imds.clone(), Some(identity.region.clone())).await);
        let group = match self.status.group.clone() {
            Some(named) => named,
            None => wait_for_group(&cloud, &self.status.health, &identity.instance).await,
        };
        self.status.context.get_or_init(|| {
            AwsContext::new(AwsContextInner {
                cloud,
                health: self.status.health.clone(),
                founding: self.status.founding.clone(),
                identity,
                group,
                settings: self.settings.clone(),
                address: self.address,
                data: self.data.clone(),
                chosen_size: Mutex::default(),
            })
        })
    }

    async fn context(&self) -> &AwsContext {
        match self.status.context.get() {
            Some(context) => context,
            None => {
                let identity = identity::wait_for_identity(&self.imds, &self.status.health).await;
                self.check_address(&identity);
                let context = self.context_of(identity).await;
                self.status.health.clear_activity();
                context
            }
        }
    }

    /// Reports an outdated address: the data folder may come from another machine, and an instance that was stopped may
    /// have got another public address.
    fn check_address(&self, identity: &InstanceIdentity) {
        match identity.advertised(self.settings.advertise) {
            Ok(ip) if !self.address_is_configured && ip != self.address.ip() => self.status.health.set(
                Topic::Address,
                &format!(
                    "{} is reachable at {ip}, but its node advertises {}, an older address from its data folder: restart \
                     the node",
                    identity.instance,
                    self.address.ip()
                ),
            ),
            _ => {}
        }
    }
}

/// Asks until the instance's group is known.
async fn wait_for_group(cloud: &SharedCloud, health: &AwsHealth, instance: &str) -> String {
    let mut backoff = Backoff::new(FIRST_RETRY, GROUP_RETRY_LIMIT);
    loop {
        let asked = cloud.membership(instance).await.and_then(|found| {
            found.ok_or_else(|| CallError {
                action: "autoscaling:DescribeAutoScalingInstances",
                resource: instance.to_owned(),
                kind: CallErrorKind::Missing,
                detail: "the instance belongs to no Auto Scaling group; name one with --asg, or run without --aws"
                    .to_owned(),
            })
        });
        if let Some(found) = health.record(Topic::Group, asked) {
            return found.group;
        }
        health.set_activity("waiting for the name of the instance's Auto Scaling group");
        sleep(backoff.pause()).await;
    }
}

impl HostEnvironment for AwsEnvironment {
    fn routes(&self) -> Router {
        founding::routes(self.status.founding.clone())
    }

    fn health(&self) -> (&'static str, Value) {
        ("aws", self.status.to_json())
    }

    fn placed(&self) {
        self.status.founding.set_status(FoundingStatus { ring: true, claim: Claim::Idle });
        self.status.health.clear_activity();
    }

    fn attend(self: Arc<Self>, drain: Drain, pool: Arc<HttpPool>, stop: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let aws = tokio::select! {
                context = self.context() => context,
                () = stop.cancelled() => return,
            };
            let beside = stop.run_until_cancelled(beside_the_node(aws, &pool));
            tokio::join!(beside, termination::watch(aws, &drain, &stop));
        })
    }
}

/// Publishes metrics, maintains alarms and the size of the group, without end.
async fn beside_the_node(aws: &AwsContext, pool: &Arc<HttpPool>) {
    let (cloud, health) = (&*aws.cloud, &*aws.health);
    let series = |period| metric::MetricSeries {
        namespace: &aws.settings.scaling.namespace,
        instance: &aws.identity.instance,
        group: &aws.group,
        period,
    };
    let alarms = AlarmSwitches::new();
    tokio::join!(
        keep_scaling(aws, &alarms),
        capacity::follow(aws, &alarms, pool.clone()),
        metric::publish(cloud, health, &aws.data, series(aws.settings.metric_period)),
        statistics::publish(cloud, health, (aws.node(), pool.clone()), series(aws.settings.statistics_period)),
    );
}

/// Maintains policies and alarms, without end: retries soon after a failure, otherwise checks every few minutes, and
/// whenever the alarms are to be switched on or off.
async fn keep_scaling(aws: &AwsContext, alarms: &AlarmSwitches) {
    let mut switched = alarms.subscribe();
    let mut backoff = Backoff::new(FIRST_RETRY, SCALING_RETRY_LIMIT);
    let mut checks = Backoff::new(SCALING_CHECK_INTERVAL, SCALING_CHECK_INTERVAL);
    let mut writes = ScalingWrites::Differences;
    loop {
        let switch = *switched.borrow_and_update();
        let settings = &aws.settings.scaling;
        let in_order = scaling::ensure(&*aws.cloud, &aws.health, settings, &aws.group, writes, switch).await;
        let pause = if in_order {
            alarms.note_reached(switch);
            writes = ScalingWrites::Repairs;
            backoff.reset();
            checks.pause()
        } else {
            backoff.pause()
        };
        tokio::select! {
            () = sleep(pause) => {}
            Ok(()) = switched.changed() => {}
        }
    }
}

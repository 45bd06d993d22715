//! A node on Amazon EC2, in an Auto Scaling group: it finds out who and where it is, founds or joins the group's ring,
//! sees to it that policy and alarm are there, publishes how full its disk is, and leaves in good order.
//!
//! This is the only room of the node that knows AWS (`common::group`, shared with the mount, is the other place). When
//! to grow and shrink is for `pool`, how to leave for `drain`.
//!
//! | file | what |
//! |---|---|
//! | `args.rs` | the command line |
//! | `cloud.rs` | what is asked of AWS, as a trait of plain values; `sdk.rs` behind it, `fake.rs` in tests |
//! | `identity.rs` | instance, zone, addresses |
//! | `founding/` | exactly one ring, whoever starts when |
//! | `scaling.rs`, `metric.rs` | policies and alarms; the metric that they watch |
//! | `leave.rs` | termination, spot notices: turn, drain, heartbeats, `CONTINUE` |
//! | `board.rs` | what is wrong at the moment, for `/healthz` |
//! | `plan.rs` | `storage-node aws plan` |

pub mod args;
mod backoff;
mod board;
pub mod cloud;
#[cfg(test)]
mod fake;
mod founding;
mod identity;
mod leave;
mod metric;
mod plan;
mod scaling;
mod sdk;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::Deref,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use axum::Router;
use common::ring_id::{NodeRef, RingId};
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::info;

pub use self::identity::Identity;
use self::{
    args::{Advertise, AwsSettings},
    backoff::Backoff,
    board::{Board, Topic},
    cloud::{CallError, Cloud, Member, SharedCloud, Trouble},
    founding::{Shown, Standing},
    sdk::Sdk,
};
use crate::{
    drain::Drain,
    driver::SavedRing,
    lifecycle::{self, NodeConfig, Surroundings},
};

/// Between tries of what only AWS can put right.
const TRY_FIRST: Duration = Duration::from_secs(1);
const TRY_AT_LEAST: Duration = Duration::from_secs(60);

/// Everything that the parts of this room share. Cheap to clone.
#[derive(Clone)]
pub struct Context(Arc<Shared>);

pub struct Shared {
    cloud: SharedCloud,
    board: Board,
    standing: Standing,
    identity: Identity,
    group: String,
    settings: AwsSettings,
    /// Of this node's ring, as others know it.
    address: SocketAddr,
    data: PathBuf,
}

impl Context {
    fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    #[cfg(test)]
    fn into_inner(self) -> Arc<Shared> {
        self.0
    }
}

impl Deref for Context {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// `storage-node --aws`. `config`'s address has the port; the IP is the instance's unless one was given.
pub async fn run(settings: AwsSettings, mut config: NodeConfig, ip: Option<IpAddr>) -> Result<()> {
    let imds = Sdk::metadata_client();
    let identity = identity::wait(&imds, admin_address(ip, config.address.port())).await?;
    info!(?identity, "this instance");
    let ip = ip.map_or_else(|| identity.advertised(settings.advertise), Ok)?;
    config.address.set_ip(ip);
    config.zone.get_or_insert_with(|| identity.zone.clone());
    let cloud: SharedCloud = Arc::new(Sdk::new(imds, Some(identity.region.clone())).await);
    let begin = |group: String| {
        let shared = Shared {
            cloud: cloud.clone(),
            board: Board::default(),
            standing: Standing::default(),
            identity: identity.clone(),
            group,
            settings: settings.clone(),
            address: config.address,
            data: config.data.clone(),
        };
        Context::new(shared)
    };
    // Until the group is known it has no name, and the plane of administration says what is missing.
    let nameless = begin(settings.asg.clone().unwrap_or_default());
    let meanwhile = founding::answer_meanwhile(&nameless)
        .await
        .with_context(|| format!("cannot listen on {}", nameless.node().admin_address()))?;
    let group = own_group(&nameless).await;
    meanwhile.end().await;
    let aws = begin(group);
    if !enter(&aws, &mut config).await? {
        return Ok(());
    }
    lifecycle::run_in(config, Some(Arc::new(aws))).await
}

/// `storage-node aws plan`.
pub async fn plan(settings: AwsSettings) -> Result<String> {
    let imds = Sdk::metadata_client();
    let identity = match Identity::ask(&imds).await {
        Ok(identity) => Some(identity),
        // From a workstation a group can be named, and looked at.
        Err(_) if settings.asg.is_some() => None,
        Err(error) => return Err(error.context("without --asg the plan is for the group of this instance")),
    };
    let cloud = Sdk::new(imds, identity.as_ref().map(|identity| identity.region.clone())).await;
    let group = match (&settings.asg, &identity) {
        (Some(name), _) => name.clone(),
        (None, Some(identity)) => {
            cloud.membership(&identity.instance).await?.map(|found| found.group).ok_or_else(|| {
                anyhow::anyhow!("{} belongs to no Auto Scaling group; name one with --asg", identity.instance)
            })?
        }
        (None, None) => unreachable!("without a name and an identity the plan was given up above"),
    };
    Ok(plan::plan(&cloud, &settings, identity.as_ref(), &group).await)
}

/// Before the instance's address is known, all that it has are listened on.
fn admin_address(ip: Option<IpAddr>, port: u16) -> SocketAddr {
    let ip = ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    NodeRef { ip, port, id: RingId(0) }.admin_address()
}

/// The group's name; asks until it is known, because only with it can the ring be found.
async fn own_group(aws: &Context) -> String {
    if !aws.group.is_empty() {
        return aws.group.clone();
    }
    let mut backoff = Backoff::new(TRY_FIRST, TRY_AT_LEAST / 4);
    loop {
        let instance = &aws.identity.instance;
        let asked = aws.cloud.membership(instance).await.and_then(|found| {
            found.ok_or_else(|| CallError {
                action: "autoscaling:DescribeAutoScalingInstances",
                resource: instance.clone(),
                trouble: Trouble::Missing,
                detail: "it belongs to no Auto Scaling group; name one with --asg, or run without --aws".to_owned(),
            })
        });
        if let Some(found) = aws.board.note(Topic::Group, asked) {
            return found.group;
        }
        aws.board.set_activity("waits for the name of its group".to_owned());
        sleep(backoff.pause(rand::random())).await;
    }
}

/// Decides whom to join. `false`: the group ends this instance, and it has nothing to lose.
async fn enter(aws: &Context, config: &mut NodeConfig) -> Result<bool> {
    info!(group = aws.group, "in the group");
    if !config.join.is_empty() {
        aws.standing.show(Shown { ring: true, bid: crate::turn::Bid::None });
        return Ok(true);
    }
    if remembers(&config.data).await? {
        config.join = founding::known_members(aws).await;
        info!(members = ?config.join, "the folder remembers a ring; it is looked for again");
        return Ok(true);
    }
    let meanwhile = founding::answer_meanwhile(aws)
        .await
        .with_context(|| format!("cannot listen on {}", aws.node().admin_address()))?;
    let found = tokio::select! {
        members = founding::find_ring(aws) => Some(members),
        () = leave::watch_without_data(aws) => None,
    };
    meanwhile.end().await;
    let Some(members) = found else { return Ok(false) };
    config.join = members;
    Ok(true)
}

async fn remembers(data: &Path) -> Result<bool> {
    Ok(SavedRing::read(data).await?.is_some_and(|saved| saved.settled))
}

impl Shared {
    pub fn node(&self) -> NodeRef {
        NodeRef { ip: self.address.ip(), port: self.address.port(), id: RingId(0) }
    }

    /// Where another member is reached: all advertise the same way. One with an address of its own choice is reached
    /// by its private one.
    pub fn address_of(&self, member: &Member) -> Option<IpAddr> {
        match self.settings.advertise {
            Advertise::Public => member.public,
            Advertise::Private | Advertise::Address(_) => member.private,
        }
    }

    pub fn health(&self) -> Value {
        let mut shown = self.board.shown();
        shown["instance"] = self.identity.instance.clone().into();
        shown["zone"] = self.identity.zone.clone().into();
        shown["group"] = self.group.clone().into();
        shown
    }
}

impl Surroundings for Context {
    fn routes(&self) -> Router {
        founding::routes(self.clone())
    }

    fn health(&self) -> (&'static str, Value) {
        ("aws", Shared::health(self))
    }

    fn placed(&self) {
        self.standing.show(Shown { ring: true, bid: crate::turn::Bid::None });
        self.board.clear_activity();
    }

    fn attend(self: Arc<Self>, drain: Drain, stop: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let aws = &*self;
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

/// Until it is as it should be.
async fn keep_scaling(aws: &Context) {
    let mut backoff = Backoff::new(TRY_FIRST, TRY_AT_LEAST * 5);
    while !scaling::ensure(&*aws.cloud, &aws.board, &aws.settings.scaling, &aws.group).await {
        sleep(backoff.pause(rand::random())).await;
    }
}

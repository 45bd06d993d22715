//! Makes the group follow the size of the pool that somebody has chosen: a button, a command or the scaler.
//!
//! Every node watches the choice, because the group's alarms must trigger nothing while there is one, and every node
//! maintains the alarms. The group's size is not touched before the alarms are off, as one that is on would change it
//! back. Only the leader of the namespace changes the group's desired capacity, so a node with an old view does not
//! undo the change. The group grows at once, and shrinks by one instance at a time: each of them drains, and the next
//! one leaves when no copy is missing.

use std::{sync::Arc, time::Duration};

use chordfs_net::{admin_client::AdminClient, http_pool::HttpPool};
use chordfs_types::{admin::PoolNodes, ring_id::NodeAddress};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tracing::{debug, info};

use super::{
    AwsContextInner,
    cloud::{CallError, Cloud, Group},
    health::{AwsHealth, Topic},
    scaling::AlarmSwitch,
};

const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// The node gathers its answer from all nodes, each with a deadline of its own.
const DEADLINE: Duration = Duration::from_secs(5);

/// What a group does next on its way to a size.
#[derive(Clone, Debug, PartialEq, Eq)]
enum CapacityStep {
    /// The group has the size, or the one of its own limits that is nearest to it.
    Stay,
    Set(i32),
    /// The group is to shrink, for which this is not the time.
    Wait(String),
}

/// `wanted`: the chosen number of nodes.
fn next_step(group: &Group, nodes: &PoolNodes, wanted: u32) -> CapacityStep {
    let target = target(group, wanted);
    if target > group.desired {
        return CapacityStep::Set(target);
    }
    if target == group.desired {
        return CapacityStep::Stay;
    }
    let leaving = group.members.iter().find(|member| member.lifecycle.starts_with("Terminating"));
    let leaving = leaving.map(|member| format!("{} is leaving", member.instance));
    match leaving.or_else(|| nodes.obstacle_to_shrinking()) {
        Some(obstacle) => CapacityStep::Wait(obstacle),
        None => CapacityStep::Set(group.desired - 1),
    }
}

fn target(group: &Group, wanted: u32) -> i32 {
    let wanted = i32::try_from(wanted).unwrap_or(i32::MAX);
    wanted.min(group.max).max(group.min)
}

/// The problem of a choice that the group's own limits do not allow.
fn limit_problem(group: &Group, wanted: u32) -> Option<String> {
    let Group { name, min, max, .. } = group;
    (target(group, wanted) != i32::try_from(wanted).unwrap_or(i32::MAX)).then(|| {
        format!("{wanted} nodes are wanted, and the group {name} allows {min} to {max}: change its limits or the wanted size")
    })
}

/// What this node wants of the alarms, and what it last found to be so.
pub(crate) struct AlarmSwitches {
    wanted: watch::Sender<AlarmSwitch>,
    reached: watch::Sender<AlarmSwitch>,
}

impl AlarmSwitches {
    pub(crate) fn new() -> Self {
        let channel = || watch::channel(AlarmSwitch::AsFound).0;
        Self { wanted: channel(), reached: channel() }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<AlarmSwitch> {
        self.wanted.subscribe()
    }

    /// To be called when all alarms are as wanted.
    pub(crate) fn note_reached(&self, switch: AlarmSwitch) {
        self.reached.send_replace(switch);
    }

    fn want(&self, switch: AlarmSwitch) {
        self.wanted.send_if_modified(|current| std::mem::replace(current, switch) != switch);
    }

    fn are_off(&self) -> bool {
        [&self.wanted, &self.reached].iter().all(|switch| *switch.borrow() == AlarmSwitch::Off)
    }
}

/// Follows the choice, without end.
pub(crate) async fn follow(aws: &AwsContextInner, alarms: &AlarmSwitches, pool: Arc<HttpPool>) {
    let (cloud, health) = (&*aws.cloud, &*aws.health);
    let client = AdminClient::new(pool, DEADLINE);
    let mut checks = interval(CHECK_INTERVAL);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        checks.tick().await;
        // A node that starts or ends, or whose namespace has no leader, does not know. Then the alarms stay as they
        // are.
        let chosen = match client.pool_target(aws.node()).await {
            Ok(target) => target.nodes(),
            Err(error) => {
                debug!(%error, "it is not known whether somebody has chosen the size of the pool");
                continue;
            }
        };
        *aws.chosen_size.lock() = chosen;
        let switch = if chosen.is_some() { AlarmSwitch::Off } else { AlarmSwitch::On };
        alarms.want(switch);
        if let Some(wanted) = chosen
            && alarms.are_off()
            && let Some(nodes) = nodes_if_leading(&client, aws.node()).await
        {
            health.record(Topic::Capacity, step(cloud, health, &aws.group, &nodes, wanted).await);
        }
    }
}

/// What the nodes of the ring do; `None` on a node that does not lead the namespace.
async fn nodes_if_leading(client: &AdminClient, node: NodeAddress) -> Option<PoolNodes> {
    client.status(node).await.ok().filter(|status| status.namespace.leads)?;
    client.pool(node).await.ok().map(|pool| pool.nodes)
}

async fn step(
    cloud: &dyn Cloud,
    health: &AwsHealth,
    name: &str,
    nodes: &PoolNodes,
    wanted: u32,
) -> Result<(), CallError> {
    let group = cloud.group(name).await?.ok_or_else(|| CallError::no_group(name))?;
    match limit_problem(&group, wanted) {
        Some(problem) => health.set(Topic::PoolLimits, &problem),
        None => health.clear(Topic::PoolLimits),
    }
    match next_step(&group, nodes, wanted) {
        CapacityStep::Stay => {}
        CapacityStep::Wait(reason) => {
            debug!(desired = group.desired, wanted, "the group does not shrink now: {reason}")
        }
        CapacityStep::Set(desired) => {
            info!(group = name, from = group.desired, to = desired, wanted, "changes the desired capacity");
            cloud.set_desired(name, desired).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use chordfs_asg::GroupMember;

    use super::*;

    fn group(desired: i32, leaving: usize) -> Group {
        let member = |lifecycle: &str| GroupMember {
            instance: "i".into(),
            zone: "z".into(),
            lifecycle: lifecycle.into(),
            healthy: true,
            launched: None,
            private: None,
            public: None,
        };
        let members = std::iter::repeat_n(member("InService"), desired.unsigned_abs() as usize)
            .chain(std::iter::repeat_n(member("Terminating:Wait"), leaving));
        Group { name: "G".into(), min: 2, max: 6, desired, members: members.collect() }
    }

    /// The desired capacity was raised while an alarm was still on, which took the instance away again.
    #[test]
    fn the_size_is_not_touched_before_the_alarms_are_off() {
        let alarms = AlarmSwitches::new();
        assert!(!alarms.are_off());
        alarms.want(AlarmSwitch::Off);
        assert!(!alarms.are_off(), "they are only about to be");
        alarms.note_reached(AlarmSwitch::Off);
        assert!(alarms.are_off());
        alarms.want(AlarmSwitch::On);
        assert!(!alarms.are_off(), "they are about to be on");
        alarms.want(AlarmSwitch::Off);
        alarms.note_reached(AlarmSwitch::On);
        assert!(!alarms.are_off(), "they were switched on meanwhile");
    }

    #[test]
    fn a_group_grows_at_once() {
        let busy = PoolNodes { draining: 1, filling: 2, ..PoolNodes::default() };
        assert_eq!(next_step(&group(2, 1), &busy, 5), CapacityStep::Set(5));
        assert_eq!(next_step(&group(5, 0), &busy, 5), CapacityStep::Stay);
    }

    #[test]
    fn a_group_shrinks_by_one_when_no_copy_is_missing() {
        let idle = PoolNodes::default();
        assert_eq!(next_step(&group(5, 0), &idle, 2), CapacityStep::Set(4));
        for (leaving, pool) in [
            (1, idle),
            (0, PoolNodes { draining: 1, ..idle }),
            (0, PoolNodes { filling: 1, ..idle }),
            (0, PoolNodes { arriving: 1, ..idle }),
            (0, PoolNodes { silent: 1, ..idle }),
        ] {
            assert!(matches!(next_step(&group(5, leaving), &pool, 2), CapacityStep::Wait(_)), "{leaving} {pool:?}");
        }
    }

    #[test]
    fn the_groups_own_limits_hold_and_are_named() {
        let idle = PoolNodes::default();
        assert_eq!(next_step(&group(2, 0), &idle, 1), CapacityStep::Stay);
        assert_eq!(next_step(&group(5, 0), &idle, 100), CapacityStep::Set(6));
        assert_eq!(limit_problem(&group(5, 0), 6), None);
        for wanted in [1, 7, u32::MAX] {
            let problem = limit_problem(&group(5, 0), wanted).expect("outside the limits");
            assert!(problem.contains("2 to 6"), "{problem}");
        }
    }
}

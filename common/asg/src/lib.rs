//! Resolves the name of an Auto Scaling group to its members and their addresses. Nodes need the members before they
//! found or join a ring; a mount with the source `asg:NAME` needs the addresses.
//!
//! The program `mount.chordfs` contains this crate only when `fuse-client` is built with its feature `aws`, which is
//! off by default; `storage-node` contains it through `chordfs-aws`.
//!
//! Auto Scaling lists the members and their states, EC2 their addresses. A member whose address is unknown is listed as
//! well.

mod error;

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};

pub use self::error::{CallError, CallErrorKind};

/// Instances in one call; EC2 accepts 200 values in a filter.
const AT_ONCE: usize = 100;
/// The deadline of one attempt, and that of a call with all its attempts. The SDK backs off between attempts, with
/// jitter.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(8);
const CALL_DEADLINE: Duration = Duration::from_secs(30);
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
const MAX_ATTEMPTS: u32 = 5;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    pub min: i32,
    pub max: i32,
    pub desired: i32,
    pub members: Vec<GroupMember>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    pub instance: String,
    pub zone: String,
    /// The lifecycle state, such as `InService` or `Terminating:Wait`.
    pub lifecycle: String,
    pub healthy: bool,
    /// `None` while EC2 does not show the instance, which may be too new or already terminated.
    pub launched: Option<SystemTime>,
    pub private: Option<IpAddr>,
    pub public: Option<IpAddr>,
}

impl GroupMember {
    pub fn serves(&self) -> bool {
        self.healthy && self.lifecycle == "InService"
    }

    /// Returns whether the member is in service or about to be.
    pub fn stays(&self) -> bool {
        self.healthy && (self.lifecycle == "InService" || self.lifecycle.starts_with("Pending"))
    }
}

impl Group {
    /// Returns the addresses of the healthy members in service, each member's private address before its public one:
    /// inside the network the private address answers, outside only the public one.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let serving = self.members.iter().filter(|member| member.serves());
        serving.flat_map(|member| [member.private, member.public]).flatten().collect()
    }
}

/// Returns the settings for all calls. The SDK resolves endpoints, region and credentials. `region` is used unless
/// the environment names a region.
pub async fn sdk_config(region: Option<String>) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_DEADLINE)
        .operation_attempt_timeout(ATTEMPT_DEADLINE)
        .operation_timeout(CALL_DEADLINE)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .retry_config(RetryConfig::standard().with_max_attempts(MAX_ATTEMPTS))
        .timeout_config(timeouts);
    let named = ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().any(|name| std::env::var_os(name).is_some());
    if let Some(region) = region.filter(|_| !named) {
        loader = loader.region(Region::new(region));
    }
    loader.load().await
}

/// Returns the addresses through which a mount can reach the group's ring. Uses the region configured on this machine.
pub async fn addresses(name: &str) -> Result<Vec<IpAddr>, CallError> {
    let config = sdk_config(None).await;
    let (autoscaling, ec2) = (aws_sdk_autoscaling::Client::new(&config), aws_sdk_ec2::Client::new(&config));
    let group = describe(&autoscaling, &ec2, name).await?;
    group.map(|group| group.addresses()).ok_or_else(|| CallError::no_group(name))
}

/// Returns the group and its members, or `None` if there is no such group in this region.
pub async fn describe(
    autoscaling: &aws_sdk_autoscaling::Client,
    ec2: &aws_sdk_ec2::Client,
    name: &str,
) -> Result<Option<Group>, CallError> {
    let failed = |error| CallError::new("autoscaling:DescribeAutoScalingGroups", name, &error);
    let answer = autoscaling.describe_auto_scaling_groups().auto_scaling_group_names(name).send().await;
    let groups = answer.map_err(failed)?;
    let Some(found) = groups.auto_scaling_groups().first() else { return Ok(None) };
    let mut members: Vec<GroupMember> = found.instances().iter().map(member).collect();
    add_addresses(ec2, name, &mut members).await?;
    Ok(Some(Group {
        name: name.to_owned(),
        min: found.min_size().unwrap_or(0),
        max: found.max_size().unwrap_or(0),
        desired: found.desired_capacity().unwrap_or(0),
        members,
    }))
}

fn member(instance: &aws_sdk_autoscaling::types::Instance) -> GroupMember {
    GroupMember {
        instance: instance.instance_id().unwrap_or_default().to_owned(),
        zone: instance.availability_zone().unwrap_or_default().to_owned(),
        lifecycle: instance.lifecycle_state().map(|state| state.as_str().to_owned()).unwrap_or_default(),
        healthy: instance.health_status().is_some_and(|health| health.eq_ignore_ascii_case("healthy")),
        launched: None,
        private: None,
        public: None,
    }
}

async fn add_addresses(ec2: &aws_sdk_ec2::Client, name: &str, members: &mut [GroupMember]) -> Result<(), CallError> {
    let mut found = HashMap::new();
    for some in members.chunks(AT_ONCE) {
        let ids = some.iter().map(|member| member.instance.clone()).collect();
        // A filter rather than a list of ids, with which one terminated instance would make the whole call fail.
        let filter = aws_sdk_ec2::types::Filter::builder().name("instance-id").set_values(Some(ids)).build();
        let answer = ec2.describe_instances().filters(filter).send().await;
        let failed = |error| CallError::new("ec2:DescribeInstances", format!("the members of {name}"), &error);
        for instance in answer.map_err(failed)?.reservations().iter().flat_map(|some| some.instances()) {
            found.insert(instance.instance_id().unwrap_or_default().to_owned(), instance.clone());
        }
    }
    for member in members {
        let Some(instance) = found.get(&member.instance) else { continue };
        let address = |text: Option<&str>| text.and_then(|text| text.parse().ok());
        member.private = address(instance.private_ip_address());
        member.public = address(instance.public_ip_address());
        member.launched = instance.launch_time().and_then(|time| SystemTime::try_from(*time).ok());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(last: u8, lifecycle: &str, healthy: bool) -> GroupMember {
        GroupMember {
            instance: format!("i-{last}"),
            zone: "z".into(),
            lifecycle: lifecycle.into(),
            healthy,
            launched: None,
            private: Some([10, 0, 0, last].into()),
            public: (last == 1).then_some([3, 0, 0, last].into()),
        }
    }

    #[test]
    fn mounts_use_only_healthy_members_in_service() {
        let members = vec![
            member(1, "InService", true),
            member(2, "InService", false),
            member(3, "Pending", true),
            member(4, "Terminating:Wait", true),
            member(5, "InService", true),
            GroupMember { private: None, ..member(6, "InService", true) },
        ];
        let group = Group { name: "g".into(), min: 1, max: 8, desired: 6, members };
        let shown: Vec<_> = group.addresses().iter().map(IpAddr::to_string).collect();
        assert_eq!(shown, ["10.0.0.1", "3.0.0.1", "10.0.0.5"]);
        let staying: Vec<_> = group.members.iter().map(GroupMember::stays).collect();
        assert_eq!(staying, [true, false, true, false, true, true]);
    }
}

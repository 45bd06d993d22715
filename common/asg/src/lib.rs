//! Who is in an Auto Scaling group: a group's name to the addresses of its members. Nodes ask it before they found or
//! join a ring, a mount asks it instead of being told nodes. Behind the feature `aws`.
//!
//! The group's own list says who belongs to it and in which state each is; the addresses are EC2's. What has no address
//! yet is a member all the same.

mod error;

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};

pub use self::error::{CallError, Trouble};

/// Instances asked for in one call; EC2 takes 200 values in a filter.
const AT_ONCE: usize = 100;
/// One try of one call, and a call with all its tries. The SDK waits between tries, longer each time and by chance.
const TRY_DEADLINE: Duration = Duration::from_secs(8);
const CALL_DEADLINE: Duration = Duration::from_secs(30);
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
const TRIES: u32 = 5;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    pub min: i32,
    pub max: i32,
    pub desired: i32,
    pub members: Vec<Member>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub instance: String,
    pub zone: String,
    /// As the group calls it: `InService`, `Terminating:Wait`, ...
    pub lifecycle: String,
    pub healthy: bool,
    /// `None`: EC2 does not show the instance (yet, or any more).
    pub launched: Option<SystemTime>,
    pub private: Option<IpAddr>,
    pub public: Option<IpAddr>,
}

impl Member {
    pub fn serves(&self) -> bool {
        self.healthy && self.lifecycle == "InService"
    }

    /// On its way in, or in.
    pub fn stays(&self) -> bool {
        self.healthy && (self.lifecycle == "InService" || self.lifecycle.starts_with("Pending"))
    }
}

impl Group {
    /// Of the healthy members in service, each member's private address before its public one: inside the network the
    /// first answers, outside only the second.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let serving = self.members.iter().filter(|member| member.serves());
        serving.flat_map(|member| [member.private, member.public]).flatten().collect()
    }
}

/// Settings of all calls: endpoints, region and credentials from where the SDK finds them. `region`: where to look when
/// neither environment nor profile names one.
pub async fn sdk_config(region: Option<String>) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_DEADLINE)
        .operation_attempt_timeout(TRY_DEADLINE)
        .operation_timeout(CALL_DEADLINE)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .retry_config(RetryConfig::standard().with_max_attempts(TRIES))
        .timeout_config(timeouts);
    let named = ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().any(|name| std::env::var_os(name).is_some());
    if let Some(region) = region.filter(|_| !named) {
        loader = loader.region(Region::new(region));
    }
    loader.load().await
}

/// Where a mount finds the ring of the group: its members' addresses. The region is the machine's.
pub async fn addresses(name: &str) -> Result<Vec<IpAddr>, CallError> {
    let config = sdk_config(None).await;
    let (autoscaling, ec2) = (aws_sdk_autoscaling::Client::new(&config), aws_sdk_ec2::Client::new(&config));
    let group = describe(&autoscaling, &ec2, name).await?;
    group.map(|group| group.addresses()).ok_or_else(|| CallError::no_group(name))
}

/// `None`: there is no such group in this region.
pub async fn describe(
    autoscaling: &aws_sdk_autoscaling::Client,
    ec2: &aws_sdk_ec2::Client,
    name: &str,
) -> Result<Option<Group>, CallError> {
    let failed = |error| CallError::new("autoscaling:DescribeAutoScalingGroups", name, &error);
    let answer = autoscaling.describe_auto_scaling_groups().auto_scaling_group_names(name).send().await;
    let groups = answer.map_err(failed)?;
    let Some(found) = groups.auto_scaling_groups().first() else { return Ok(None) };
    let mut members: Vec<Member> = found.instances().iter().map(member).collect();
    add_addresses(ec2, name, &mut members).await?;
    Ok(Some(Group {
        name: name.to_owned(),
        min: found.min_size().unwrap_or(0),
        max: found.max_size().unwrap_or(0),
        desired: found.desired_capacity().unwrap_or(0),
        members,
    }))
}

fn member(instance: &aws_sdk_autoscaling::types::Instance) -> Member {
    Member {
        instance: instance.instance_id().unwrap_or_default().to_owned(),
        zone: instance.availability_zone().unwrap_or_default().to_owned(),
        lifecycle: instance.lifecycle_state().map(|state| state.as_str().to_owned()).unwrap_or_default(),
        healthy: instance.health_status().is_some_and(|health| health.eq_ignore_ascii_case("healthy")),
        launched: None,
        private: None,
        public: None,
    }
}

async fn add_addresses(ec2: &aws_sdk_ec2::Client, name: &str, members: &mut [Member]) -> Result<(), CallError> {
    let mut found = HashMap::new();
    for some in members.chunks(AT_ONCE) {
        let ids = some.iter().map(|member| member.instance.clone()).collect();
        // A filter, not ids: one instance that has just gone would make the whole call fail.
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

    fn member(last: u8, lifecycle: &str, healthy: bool) -> Member {
        Member {
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
    fn only_healthy_members_in_service_are_mounted_through() {
        let members = vec![
            member(1, "InService", true),
            member(2, "InService", false),
            member(3, "Pending", true),
            member(4, "Terminating:Wait", true),
            member(5, "InService", true),
            Member { private: None, ..member(6, "InService", true) },
        ];
        let group = Group { name: "g".into(), min: 1, max: 8, desired: 6, members };
        let shown: Vec<_> = group.addresses().iter().map(IpAddr::to_string).collect();
        assert_eq!(shown, ["10.0.0.1", "3.0.0.1", "10.0.0.5"]);
        let staying: Vec<_> = group.members.iter().map(Member::stays).collect();
        assert_eq!(staying, [true, false, true, false, true, true]);
    }
}

//! Tests of several nodes that start at the same moment, over loopback; [`FakeCloud`] stands in for AWS.

use std::{net::Ipv4Addr, sync::Arc};

use tokio::time::timeout;

use super::{
    super::{
        AwsContextInner, args::tests::settings, cloud::GroupMember, fake_cloud::FakeCloud, identity::InstanceIdentity,
    },
    *,
};

const GENEROUS: Duration = Duration::from_secs(30);
/// Longer than several rounds of requests.
const ROUNDS: Duration = Duration::from_secs(3);

fn member(ip: Ipv4Addr, launched_secs: u64) -> GroupMember {
    GroupMember {
        instance: format!("i-{ip}"),
        zone: "z".into(),
        lifecycle: "InService".into(),
        healthy: true,
        launched: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(launched_secs)),
        private: Some(ip.into()),
        public: None,
    }
}

/// Returns the node at `own`, whose list of the group is `members`.
fn node(own: Ipv4Addr, members: &[GroupMember]) -> AwsContext {
    AwsContext::new(node_with(own, members))
}

pub(crate) fn node_with(own: Ipv4Addr, members: &[GroupMember]) -> AwsContextInner {
    let cloud = FakeCloud::default();
    let members = members.to_vec();
    *cloud.group.lock() = Some(Group { name: "G".into(), min: 1, max: 8, desired: 1, members });
    AwsContextInner {
        cloud: Arc::new(cloud),
        health: Arc::default(),
        founding: Arc::default(),
        identity: InstanceIdentity {
            instance: format!("i-{own}"),
            zone: "z".into(),
            region: "r".into(),
            private: own.into(),
            public: None,
        },
        group: "G".into(),
        settings: settings("").unwrap(),
        address: SocketAddr::from((own, 5057)),
        data: "/nowhere".into(),
        chosen_size: parking_lot::Mutex::default(),
    }
}

fn ips(test: u8, count: u8) -> Vec<Ipv4Addr> {
    (1..=count).map(|last| Ipv4Addr::new(127, 77 + (std::process::id() % 100) as u8, test, last)).collect()
}

/// Counts the nodes that found a ring while the others wait.
async fn founders(nodes: Vec<AwsContext>) -> usize {
    let mut searches = Vec::new();
    for aws in nodes {
        let (health, founding) = (aws.health.clone(), aws.founding.clone());
        let health = move || health.to_json();
        let bootstrap = BootstrapServer::begin(aws.node().admin(), health, founding, Acceptor::default());
        let bootstrap = bootstrap.await.unwrap();
        searches.push(tokio::spawn(async move {
            let found = timeout(ROUNDS, find_ring(&aws, Connector::Plain)).await;
            // The founder keeps answering on its administration port, as its node would.
            (found.is_ok_and(|members| members.is_empty()), aws, bootstrap)
        }));
    }
    let mut founders = 0;
    let mut ended = Vec::new();
    for search in searches {
        let (founds, aws, bootstrap) = timeout(GENEROUS, search).await.unwrap().unwrap();
        founders += usize::from(founds);
        ended.push((aws, bootstrap));
    }
    for (_, bootstrap) in ended {
        bootstrap.end().await;
    }
    founders
}

#[tokio::test]
async fn one_of_five_nodes_started_at_the_same_moment_founds_the_ring() {
    let ips = ips(1, 5);
    let members: Vec<GroupMember> = ips.iter().map(|ip| member(*ip, 1000)).collect();
    assert_eq!(founders(ips.iter().map(|ip| node(*ip, &members)).collect()).await, 1);
}

#[tokio::test]
async fn one_of_two_nodes_founds_the_ring_when_only_one_knows_the_other() {
    for (test, launched) in [(2, [1000, 2000]), (5, [2000, 1000])] {
        let ips = ips(test, 2);
        let both: Vec<GroupMember> = ips.iter().zip(launched).map(|(ip, launched)| member(*ip, launched)).collect();
        let nodes = vec![node(ips[0], &both[..1]), node(ips[1], &both)];
        assert_eq!(founders(nodes).await, 1, "{launched:?}");
    }
}

#[tokio::test]
async fn no_node_founds_while_an_older_member_is_unresponsive() {
    let ips = ips(3, 2);
    let members: Vec<GroupMember> = ips.iter().map(|ip| member(*ip, 1000)).collect();
    let waiting = node(ips[1], &members);
    assert_eq!(founders(vec![waiting.clone()]).await, 0);
    let shown = waiting.health.to_json();
    assert!(shown["activity"].as_str().unwrap().contains("no node runs there yet"), "{shown}");
}

#[tokio::test]
async fn a_missing_group_is_reported_and_waited_for() {
    let ip = ips(4, 1)[0];
    let aws = node(ip, &[]);
    let without_group =
        AwsContextInner { cloud: Arc::new(FakeCloud::default()), ..Arc::into_inner(aws.into_inner()).unwrap() };
    let aws = AwsContext::new(without_group);
    assert_eq!(founders(vec![aws.clone()]).await, 0);
    let health = aws.health.to_json();
    assert_eq!(health["state"], "degraded");
    assert!(health["problems"][0].as_str().unwrap().contains("no Auto Scaling group"), "{health}");
}

#[tokio::test]
async fn no_node_founds_while_ec2_does_not_show_a_member() {
    let ips = ips(6, 2);
    let hidden = GroupMember { launched: None, private: None, ..member(ips[1], 2000) };
    let waiting = node(ips[0], &[member(ips[0], 1000), hidden]);
    assert_eq!(founders(vec![waiting.clone()]).await, 0);
    let shown = waiting.health.to_json();
    assert!(shown["activity"].as_str().unwrap().contains("does not show it yet"), "{shown}");
}

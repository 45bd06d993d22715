//! Several nodes that start at the same moment, over loopback; AWS is a table.

use std::{net::Ipv4Addr, sync::Arc};

use tokio::time::timeout;

use super::{
    super::{Shared, args::tests::settings, cloud::Member, fake::Fake, identity::Identity},
    *,
};

const GENEROUS: Duration = Duration::from_secs(30);
/// Longer than several rounds of questions.
const ROUNDS: Duration = Duration::from_secs(3);

fn member(ip: Ipv4Addr, launched_secs: u64) -> Member {
    Member {
        instance: format!("i-{ip}"),
        zone: "z".into(),
        lifecycle: "InService".into(),
        healthy: true,
        launched: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(launched_secs)),
        private: Some(ip.into()),
        public: None,
    }
}

/// The node at `own`, to which the group looks like `members`.
fn node(own: Ipv4Addr, members: &[Member]) -> Aws {
    let cloud = Fake::default();
    let members = members.to_vec();
    *cloud.group.lock() = Some(Group { name: "G".into(), min: 1, max: 8, desired: 1, members });
    Aws::new(Shared {
        cloud: Arc::new(cloud),
        board: Arc::default(),
        standing: Arc::default(),
        identity: Identity {
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
    })
}

fn ips(test: u8, count: u8) -> Vec<Ipv4Addr> {
    (1..=count).map(|last| Ipv4Addr::new(127, 77 + (std::process::id() % 100) as u8, test, last)).collect()
}

/// How many of them found a ring while the others wait.
async fn founders(nodes: Vec<Aws>) -> usize {
    let mut searches = Vec::new();
    for aws in nodes {
        let (health, standing) = (aws.board.clone(), aws.standing.clone());
        let meanwhile = Meanwhile::begin(aws.node().admin_address(), move || health.shown(), standing).await.unwrap();
        searches.push(tokio::spawn(async move {
            let found = timeout(ROUNDS, find_ring(&aws)).await;
            // The founder's plane stays, as that of the node which it becomes.
            (found.is_ok_and(|members| members.is_empty()), aws, meanwhile)
        }));
    }
    let mut founders = 0;
    let mut ended = Vec::new();
    for search in searches {
        let (founds, aws, meanwhile) = timeout(GENEROUS, search).await.unwrap().unwrap();
        founders += usize::from(founds);
        ended.push((aws, meanwhile));
    }
    for (_, meanwhile) in ended {
        meanwhile.end().await;
    }
    founders
}

#[tokio::test]
async fn of_five_at_the_same_moment_one_founds_the_ring() {
    let ips = ips(1, 5);
    let members: Vec<Member> = ips.iter().map(|ip| member(*ip, 1000)).collect();
    assert_eq!(founders(ips.iter().map(|ip| node(*ip, &members)).collect()).await, 1);
}

#[tokio::test]
async fn also_when_only_one_of_two_knows_the_other() {
    for (test, launched) in [(2, [1000, 2000]), (5, [2000, 1000])] {
        let ips = ips(test, 2);
        let both: Vec<Member> = ips.iter().zip(launched).map(|(ip, launched)| member(*ip, launched)).collect();
        let nodes = vec![node(ips[0], &both[..1]), node(ips[1], &both)];
        assert_eq!(founders(nodes).await, 1, "{launched:?}");
    }
}

#[tokio::test]
async fn nobody_founds_while_an_older_member_is_silent() {
    let ips = ips(3, 2);
    let members: Vec<Member> = ips.iter().map(|ip| member(*ip, 1000)).collect();
    let waiting = node(ips[1], &members);
    assert_eq!(founders(vec![waiting.clone()]).await, 0);
    let shown = waiting.board.shown();
    assert!(shown["activity"].as_str().unwrap().contains("no node runs there yet"), "{shown}");
}

#[tokio::test]
async fn a_group_that_does_not_exist_is_told_and_waited_for() {
    let ip = ips(4, 1)[0];
    let aws = node(ip, &[]);
    let lost = Shared { cloud: Arc::new(Fake::default()), ..Arc::into_inner(aws.into_inner()).unwrap() };
    let aws = Aws::new(lost);
    assert_eq!(founders(vec![aws.clone()]).await, 0);
    let health = aws.board.shown();
    assert_eq!(health["state"], "degraded");
    assert!(health["problems"][0].as_str().unwrap().contains("no Auto Scaling group"), "{health}");
}

#[tokio::test]
async fn nobody_founds_while_ec2_does_not_show_a_member() {
    let ips = ips(6, 2);
    let hidden = Member { launched: None, private: None, ..member(ips[1], 2000) };
    let waiting = node(ips[0], &[member(ips[0], 1000), hidden]);
    assert_eq!(founders(vec![waiting.clone()]).await, 0);
    let shown = waiting.board.shown();
    assert!(shown["activity"].as_str().unwrap().contains("does not show it yet"), "{shown}");
}

//! The ring of these tests, and those who try to reach it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use chordfs_identity::{CertificateAuthority, InvitationToken, NewKey, Role, Tls, Validity, new_identity};
use chordfs_net::{
    http_pool::HttpPool,
    identity_client::{Proof, obtain},
    operator_token::authority_path,
    rpc::{RpcClient, RpcError},
    transport::Connector,
};
use chordfs_types::{
    namespace::{self, Request, Response, decode, encode},
    operator::OperatorToken,
};
use harness::{Cluster, Outcome, binary, programs::run_command};
use hyper::{HeaderMap, Method, StatusCode};
use nix::mount::{MntFlags, umount2};
use rmpv::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub(super) const SOON: Duration = Duration::from_secs(30);

pub(super) fn ring(nodes: usize) -> Cluster {
    let mut cluster = Cluster::empty();
    cluster.has_identities = true;
    for _ in 0..nodes {
        cluster.add();
    }
    cluster.wait_settled();
    cluster.wait_for_voters(nodes);
    cluster
}

pub(super) fn storage_node(cluster: &Cluster, args: &[&str]) -> Outcome {
    let address = cluster.ip(0).to_string();
    run_command(Command::new(binary("storage-node")).args(args).args(["--node", &address]), SOON)
}

/// A program that may reach the ports of a ring.
pub(super) struct Visitor {
    pub(super) name: &'static str,
    pub(super) connector: Connector,
}

pub(super) fn credentials(cluster: &Cluster, runtime: &Runtime, role: Role) -> Connector {
    let authority = CertificateAuthority::load(&authority_path(&cluster.nodes[0].data)).unwrap();
    let pinned = Connector::pinned(authority.fingerprint()).unwrap();
    let token: OperatorToken = cluster.operator_token(0).parse().unwrap();
    let node = SocketAddr::from((cluster.ip(0), 5057));
    let obtained = runtime
        .block_on({
            let key = NewKey::generate().unwrap();
            async move { obtain(&pinned, &[node], &key, &Proof::Operator(token), role, "visitor", SOON).await }
        })
        .unwrap();
    Connector::over(&Tls::new(&obtained.credentials).unwrap())
}

/// A certificate of an authority that shows itself as the ring's, and so gets past the client's own check.
pub(super) fn forged(cluster: &Cluster, validity: Validity, own: bool) -> Connector {
    let real = CertificateAuthority::load(&authority_path(&cluster.nodes[0].data)).unwrap();
    let other = CertificateAuthority::create(SystemTime::now()).unwrap();
    let signer = if own { &real } else { &other };
    let (key, identity) = (NewKey::generate().unwrap(), new_identity(Role::Node, "forged", None).unwrap());
    let certificate = signer.issue(&key.request().unwrap(), &identity, validity).unwrap();
    let credentials = key.certified(&certificate, real.certificate()).unwrap();
    Connector::over(&Tls::new(&credentials).unwrap())
}

pub(super) fn visitors(cluster: &Cluster, runtime: &Runtime) -> Vec<Visitor> {
    let authority = CertificateAuthority::load(&authority_path(&cluster.nodes[0].data)).unwrap();
    let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
    let past = Validity { begins: now - 3 * hour, expires: now - 2 * hour };
    let visitor = |name, connector| Visitor { name, connector };
    vec![
        visitor("plain", Connector::Plain),
        visitor("no certificate", Connector::pinned(authority.fingerprint()).unwrap()),
        visitor("another ring's", forged(cluster, Validity::starting(now, hour), false)),
        visitor("expired", forged(cluster, past, true)),
        visitor("metrics", credentials(cluster, runtime, Role::Metrics)),
        visitor("read-only-client", credentials(cluster, runtime, Role::ReadOnlyClient)),
        visitor("client", credentials(cluster, runtime, Role::Client)),
        visitor("squashed-client", credentials(cluster, runtime, Role::SquashedClient)),
        visitor("squashed-read-only-client", credentials(cluster, runtime, Role::SquashedReadOnlyClient)),
    ]
}

impl Visitor {
    /// The status of an HTTP call; `None`: no connection.
    pub(super) async fn call(&self, address: SocketAddr, method: &str, path: &str) -> Option<StatusCode> {
        self.send(address, method, path, b"{}".as_slice().into()).await.map(|(status, _)| status)
    }

    /// The status and the body of the answer to an HTTP call; `None`: no connection.
    pub(super) async fn send(
        &self,
        address: SocketAddr,
        method: &str,
        path: &str,
        body: Bytes,
    ) -> Option<(StatusCode, Bytes)> {
        let pool = HttpPool::over(self.connector.clone());
        let method: Method = method.parse().unwrap();
        let answer = pool.request(address, method, path, HeaderMap::new(), vec![body], SOON).await.ok()?;
        Some((answer.status, answer.body))
    }

    /// The answer to a call on 5057; `None`: no connection, or the call is refused.
    pub(super) async fn rpc(&self, address: SocketAddr, method: &str, params: Vec<Value>) -> Option<Value> {
        let client = RpcClient::dial(&self.connector, address, SOON).await.ok()?;
        match client.call(method, params, SOON).await {
            Ok(answer) => Some(answer),
            Err(RpcError::Remote { error, .. }) => {
                assert!(error.as_str().is_some_and(|text| text.len() > 20), "{}: {method}: {error}", self.name);
                None
            }
            Err(_) => None,
        }
    }

    pub(super) async fn namespace(&self, address: SocketAddr, request: Request) -> Option<Response> {
        let answer =
            self.rpc(address, namespace::calls::NAMESPACE, vec![Value::Binary(encode(&request).to_vec())]).await?;
        let Value::Binary(bytes) = answer else { panic!("{}: {answer}", self.name) };
        Some(decode(&bytes).unwrap())
    }
}

/// A user of another machine: knows no node's folder, and keeps identities of his own.
pub(super) struct Outsider {
    folder: TempDir,
}

impl Outsider {
    pub(super) fn new() -> Self {
        let folder = TempDir::with_prefix("chordfs-outsider-").unwrap();
        fs::create_dir(folder.path().join("mnt")).unwrap();
        Self { folder }
    }

    pub(super) fn point(&self) -> PathBuf {
        self.folder.path().join("mnt")
    }

    pub(super) fn mount(&self, source: &str) -> Outcome {
        self.mount_with(source, "deadline=5")
    }

    pub(super) fn mount_with(&self, source: &str, options: &str) -> Outcome {
        let mut command = Command::new(binary("mount.chordfs"));
        command.arg(source).arg(self.point()).args(["-o", options]);
        command.env("CHORDFS_RUNTIME_DIR", self.folder.path().join("run"));
        command.env("CHORDFS_IDENTITIES", self.folder.path().join("identities"));
        run_command(&mut command, Duration::from_secs(60))
    }

    pub(super) fn unmount(&self) {
        harness::run("umount", &[&self.point()], Path::new("/")).ok();
    }
}

impl Drop for Outsider {
    fn drop(&mut self) {
        // Fails if nothing is mounted.
        let _ = umount2(&self.point(), MntFlags::MNT_FORCE | MntFlags::MNT_DETACH);
    }
}

pub(super) fn invite(cluster: &Cluster, args: &[&str]) -> String {
    let token = storage_node(cluster, &[&["invite"], args].concat()).ok().trim().to_owned();
    assert!(token.starts_with("chordfs-invite-"), "{token}");
    token
}

/// The connector of somebody who uses an invitation.
pub(super) fn invited(runtime: &Runtime, token: &str) -> Connector {
    let token: InvitationToken = token.parse().unwrap();
    let pinned = Connector::pinned(token.authority).unwrap();
    let obtained = runtime.block_on(async move {
        let (key, proof) = (NewKey::generate().unwrap(), Proof::Invitation(token.secret));
        obtain(&pinned, &token.nodes, &key, &proof, Role::Client, "visitor", SOON).await.unwrap()
    });
    Connector::over(&Tls::new(&obtained.credentials).unwrap())
}

/// The memory of a process.
pub(super) fn resident_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the node lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

//! A foreign Chord node: a member of the ring that implements only Chord's ten calls, names three successors,
//! stabilizes every two seconds, and stores nothing: its other ports are closed.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use chordfs_net::rpc::{self, RpcLimits, RpcPeer, RpcService, Value};
use chordfs_node::driver::{self, DriverSettings, RingHandle, ring_call};
use chordfs_types::ring_id::RingId;
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_util::sync::CancellationToken;

const CHORD_CALLS: [&str; 10] = [
    "get_info",
    "create",
    "join",
    "find_successor",
    "get_predecessor",
    "get_successor",
    "notify",
    "stabilize",
    "check_predecessor",
    "kill",
];

struct ChordService(RingHandle);

impl RpcService for ChordService {
    async fn call(&self, _peer: &RpcPeer, method: String, params: Vec<Value>) -> Result<Value, Value> {
        let unknown = || Err(Value::from(format!("no function named {method}")));
        if CHORD_CALLS.contains(&method.as_str()) {
            ring_call(&self.0, &method, &params).await.unwrap_or_else(unknown)
        } else {
            unknown()
        }
    }
}

/// Disappears without notice when dropped.
pub struct ForeignNode {
    pub address: SocketAddr,
    life: CancellationToken,
    _runtime: Runtime,
    _folder: TempDir,
}

impl ForeignNode {
    /// Joins the ring of `member` at `id`.
    #[track_caller]
    pub fn join(address: SocketAddr, id: u32, member: SocketAddr) -> Self {
        Self::start(address, id, Some(member))
    }

    /// Founds a ring of its own.
    #[track_caller]
    pub fn found(address: SocketAddr, id: u32) -> Self {
        Self::start(address, id, None)
    }

    #[track_caller]
    fn start(address: SocketAddr, id: u32, member: Option<SocketAddr>) -> Self {
        let folder = TempDir::with_prefix("chordfs-foreign-").expect("a temporary folder");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let life = CancellationToken::new();
        let mut settings = DriverSettings::new(folder.path().to_owned());
        settings.ring.successor_list_len = 3;
        settings.stabilize_every = Duration::from_secs(2);
        settings.id = Some(RingId(id));
        runtime.block_on(async {
            let listener = TcpListener::bind(address).await.expect("the address is free");
            let ring = driver::start(settings, address, life.clone()).await.expect("the ring starts");
            tokio::spawn(rpc::serve(
                listener,
                Arc::new(ChordService(ring.clone())),
                RpcLimits::default(),
                life.clone(),
            ));
            ring.join_ring(member.as_slice()).await.expect("it is let in");
        });
        Self { address, life, _runtime: runtime, _folder: folder }
    }
}

impl Drop for ForeignNode {
    fn drop(&mut self) {
        self.life.cancel();
    }
}

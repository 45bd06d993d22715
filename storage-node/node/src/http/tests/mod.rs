//! The planes over real sockets, above a namespace and chunks in memory.

mod admin;
mod api;
mod download;
mod hostile;
mod listing;
mod overload;
mod upload;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use chordfs_types::ring_id::{NodeRef, RingId};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use reqwest::{
    Client, Response,
    multipart::{Form, Part},
};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    files::{FilesOptions, files_router},
    pool_events::{MemberSource, PoolEvents, PoolMember},
    server::{ServerOptions, serve},
};
use crate::{
    driver::{NodeKind, SurveyedNode},
    files::{
        FileDefaults, FileService,
        fakes::{FakeChunks, FakeNamespace},
    },
};

/// The stall timeout in the tests of stalls.
const SILENCE: Duration = Duration::from_millis(400);
/// The stall timeout in all other tests: on a busy machine client and server, which share a thread, may both do nothing
/// for a second, and a connection that was closed as idle is no fault of the request that comes next.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Server {
    address: SocketAddr,
    pub http: Client,
    stop: CancellationToken,
    task: Option<AbortOnDropHandle<()>>,
}

impl Server {
    pub(crate) async fn start(router: Router, silence: Duration) -> Self {
        let options = ServerOptions {
            head_silence: silence,
            write_silence: silence,
            stop_grace: SILENCE,
            ..ServerOptions::default()
        };
        Self::start_with(router, options).await
    }

    async fn start_with(router: Router, options: ServerOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let task = AbortOnDropHandle::new(tokio::spawn(async move { serve(listener, router, options, stopped).await }));
        let http = Client::builder().timeout(PATIENCE).build().unwrap();
        Self { address, http, stop, task: Some(task) }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.http.get(self.url(path)).send().await.unwrap()
    }

    async fn get_with(&self, path: &str, header: &str, value: &str) -> Response {
        self.http.get(self.url(path)).header(header, value).send().await.unwrap()
    }
}

/// A ring whose members are set.
#[derive(Default)]
struct FakeMembers(Mutex<Vec<PoolMember>>);

impl FakeMembers {
    /// Sets the members to nodes with these positions and ring ports.
    fn set(&self, members: &[(u32, u16)]) {
        let member = |&(id, port)| {
            let node = NodeRef { id: RingId(id), ip: [127, 0, 0, 1].into(), port };
            PoolMember::from(SurveyedNode { node, kind: NodeKind::Storage })
        };
        *self.0.lock() = members.iter().map(member).collect();
    }
}

impl MemberSource for FakeMembers {
    fn members(&self) -> BoxFuture<'_, Vec<PoolMember>> {
        Box::pin(async { self.0.lock().clone() })
    }
}

struct Files {
    members: Arc<FakeMembers>,
    server: Server,
    namespace: Arc<FakeNamespace>,
    chunks: Arc<FakeChunks>,
}

impl Files {
    async fn start() -> Self {
        Self::start_with(PATIENCE).await
    }

    async fn start_with(silence: Duration) -> Self {
        let (namespace, chunks) = (Arc::<FakeNamespace>::default(), Arc::<FakeChunks>::default());
        let service = FileService::over(namespace.clone(), chunks.clone(), FileDefaults::default());
        let members = Arc::<FakeMembers>::default();
        let stop = CancellationToken::new();
        let events = PoolEvents::new(members.clone(), stop.clone());
        tokio::spawn(events.clone().run());
        let server =
            Server::start(files_router(service, FilesOptions { body_silence: silence }, events), silence).await;
        let server_stop = server.stop.clone();
        tokio::spawn(async move {
            server_stop.cancelled().await;
            stop.cancel();
        });
        Self { members, server, namespace, chunks }
    }

    /// Uploads the files in one form and returns status and text.
    async fn upload(&self, files: &[(&str, &[u8])]) -> (u16, String) {
        let part = |form: Form, (name, data): &(&str, &[u8])| {
            form.part("files", Part::bytes(data.to_vec()).file_name(name.to_string()))
        };
        self.send(files.iter().fold(Form::new(), part)).await
    }

    async fn send(&self, form: Form) -> (u16, String) {
        let request = self.server.http.post(self.server.url("/upload")).multipart(form);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn put(&self, name: &str, data: &[u8]) {
        assert_eq!(self.upload(&[(name, data)]).await, (204, String::new()), "{name}");
    }

    async fn body(&self, path: &str) -> (u16, Vec<u8>) {
        let response = self.server.get(path).await;
        (response.status().as_u16(), response.bytes().await.unwrap().to_vec())
    }

    async fn check_refused(&self, files: &[(&str, &[u8])], status: u16, about: &str) {
        let before = (self.namespace.inode_count(), self.chunks.count());
        let (got, text) = self.upload(files).await;
        assert_eq!(got, status, "{text}");
        assert!(text.contains(about), "{text:?} does not say {about:?}");
        assert_eq!(text.trim_end().lines().count(), 1, "{text:?}");
        assert_eq!((self.namespace.inode_count(), self.chunks.count()), before, "something was stored");
    }
}

/// Bytes that differ from chunk to chunk.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 4096 * 31 + at * 7) as u8).collect()
}

/// Polls until `done`, for effects of another task.
async fn eventually(what: &str, done: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

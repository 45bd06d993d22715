//! A namespace of very many files: how long it takes to write, load and send it, what memory that takes, and for how
//! long operations wait meanwhile. `tests/scale.sh` runs this with ten million files, optimized, and prints the
//! figures; by default there are so few files that it takes seconds.
//!
//! The files come from a generator that applies operations to tables of its own. Only the snapshot of these tables
//! reaches the node, so that the test does not wait for ten million log entries.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use chordfs_tables::Tables;
use chordfs_types::{chunk::Version, namespace::*};

use super::harness::{Node, Peer, StoppedNode, connect, lookup, make, name, open_session};
use crate::{NamespaceSettings, recover::Recovery, storage::log_file::DamagePolicy};

const FILES_VARIABLE: &str = "CHORDFS_SCALE_FILES";
const DEFAULT_FILES: u64 = 100_000;
/// Files of one directory.
const DIRECTORY_FILES: u64 = 1000;
/// Versions are allocated in blocks of this size, as a busy mount does.
const VERSION_BLOCK: u32 = 1 << 20;
/// The longest that one step may take, for ten million files on a slow machine.
const STEP_LIMIT: Duration = Duration::from_secs(900);

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_of_many_files_is_served_snapshotted_restarted_and_joined_by_a_voter() {
    let files = std::env::var(FILES_VARIABLE).map_or(DEFAULT_FILES, |text| text.parse().expect("a number of files"));
    let empty = resident_bytes();
    let start = Instant::now();
    let tables = Generator::default().files(files);
    let (took, memory) = (start.elapsed(), resident_bytes().saturating_sub(empty));
    println!("{files} files generated in {took:.1?}: {} bytes of memory for each", memory / files);

    let stopped = Node::start(1, true, settings()).await;
    when("it leads", || stopped.namespace.is_leader()).await;
    let stopped = stopped.stop().await;
    let saved = Step::begin("writing the first snapshot");
    save(&stopped, tables).await;
    saved.end();

    let restart = Step::begin("a start from the snapshot, until the node leads");
    let first = stopped.restart().await;
    when("it leads", || first.namespace.is_leader()).await;
    restart.end();
    println!("{} bytes of memory for each file", resident_bytes().saturating_sub(empty) / files);
    assert!(inodes(&first) > files);

    let first = Arc::new(first);
    let session = open_session(std::slice::from_ref(&*first), 77).await;
    let load = Load { node: first.clone(), session, sequence: 0 };
    let load = load.during("serving", tokio::time::sleep(Duration::from_secs(2))).await;

    let node = first.clone();
    let load = load.during("a snapshot", snapshot(&node)).await;
    let bytes = std::fs::metadata(first.dir.path().join("namespace/snapshot")).unwrap().len();
    println!("the snapshot has {} MB, {} bytes for each file", bytes >> 20, bytes / files);

    let second = Node::start(2, false, settings()).await;
    connect(&[&first, &second]);
    let joined = when("the second node votes", || {
        second.namespace.is_voter() && second.namespace.status().snapshot_index.is_some()
    });
    let Load { node, sequence, .. } = load.during("the join of a voter", joined).await;
    drop((first, node));
    assert!(inodes(&second) >= files + sequence);
    println!("{} bytes of memory for each file on two nodes", resident_bytes().saturating_sub(empty) / files);
}

/// A joining node needs the snapshot, and the session needs no keepalives.
fn settings() -> NamespaceSettings {
    NamespaceSettings { keep_entries: 100, session_lease: STEP_LIMIT, ..NamespaceSettings::default() }
}

/// Makes tables by applying operations, as a mount sends them: each file is made, and then written once.
#[derive(Default)]
struct Generator {
    tables: Tables,
    index: u64,
    sequence: u64,
    session: Option<SessionId>,
    versions: Option<VersionBlock>,
}

impl Generator {
    fn files(mut self, count: u64) -> Tables {
        let change = Change::OpenSession { nonce: 1, client: "generator".into(), holds_leases: false };
        let Reply::Session { session, .. } = self.apply(change) else { panic!("no session") };
        self.session = Some(session);
        for directory in 0..count.div_ceil(DIRECTORY_FILES) {
            let parent = self.make(Ino::ROOT, &format!("directory-{directory:06}"), FileKind::Directory);
            for file in 0..DIRECTORY_FILES.min(count - directory * DIRECTORY_FILES) {
                let ino = self.make(parent, &format!("photograph-{file:04}.jpg"), FileKind::File);
                let extents = vec![Extent { first: 1, count: 700, version: self.version() }];
                let commit = Commit { extents, size_at_least: 700 * 4096, ..Commit::default() };
                self.apply(Change::Commit { ino, commit });
            }
        }
        self.tables
    }

    fn make(&mut self, parent: Ino, text: &str, kind: FileKind) -> Ino {
        let Change::Make { node, .. } = make(SessionId(0), 0, text).change else { panic!("it makes a file") };
        let node = NewNode { kind, ..node };
        let Reply::Entry { attr, .. } = self.apply(Change::Make { parent, name: name(text), node, exclusive: true })
        else {
            panic!("{text} was not made")
        };
        attr.ino
    }

    fn version(&mut self) -> Version {
        if self.versions.is_none_or(|block| block.count == 0) {
            let Reply::Versions(block) = self.apply(Change::AllocateVersions { count: VERSION_BLOCK }) else {
                panic!("no versions")
            };
            self.versions = Some(block);
        }
        let block = self.versions.as_mut().expect("it was just allocated");
        let version = block.first;
        (block.first, block.count) = (Version(version.0 + 1), block.count - 1);
        version
    }

    fn apply(&mut self, change: Change) -> Reply {
        (self.index, self.sequence) = (self.index + 1, self.sequence + 1);
        let sequence = self.sequence;
        let origin = self.session.map(|session| OpId { session, sequence, answered_below: sequence });
        let now = Time { secs: 1_700_000_000 + self.index as i64, nanos: 123_456_789 };
        self.tables.apply(0, now, &NamespaceOp { origin, now, change }).reply.unwrap()
    }
}

async fn save(node: &StoppedNode, tables: Tables) {
    let recovery = Recovery::open(node.dir.path(), node.uid, settings().log_file_bytes, DamagePolicy::Refuse).await;
    recovery.unwrap().save_tables(tables).await.unwrap();
}

async fn snapshot(node: &Node) {
    let applied = node.namespace.status().applied_index;
    node.namespace.services().raft.openraft().trigger().snapshot().await.unwrap();
    when("the snapshot is complete", || node.namespace.status().snapshot_index >= applied).await;
}

fn inodes(node: &Node) -> u64 {
    match node.namespace.services().raft.state().query(&Query::StatFs) {
        Ok(Answer::StatFs { inodes, .. }) => inodes,
        other => panic!("{other:?}"),
    }
}

/// Operations and queries, one after the other.
struct Load {
    node: Arc<Node>,
    session: SessionId,
    sequence: u64,
}

impl Load {
    /// Sends operations until `work` is done, and prints for how long they waited.
    async fn during(mut self, what: &str, work: impl Future<Output = ()>) -> Self {
        let (done, state) = (Arc::new(AtomicBool::new(false)), self.node.namespace.services().raft.state().clone());
        state.take_longest_hold();
        let step = Step::begin(what);
        let ended = done.clone();
        let sending = tokio::spawn(async move {
            let mut waits = Vec::new();
            while !ended.load(Relaxed) {
                waits.push(self.send_one().await);
            }
            (self, waits)
        });
        work.await;
        step.end();
        done.store(true, Relaxed);
        let (load, mut waits) = sending.await.unwrap();
        waits.sort();
        let [median, longest] = [waits[waits.len() / 2], waits[waits.len() - 1]];
        let (hold, work) = state.take_longest_hold();
        let count = waits.len();
        println!("    {count} operations meanwhile: median {median:.1?}, longest {longest:.1?}");
        println!("    the longest apply {hold:.1?}; the most CPU time of one {work:.1?}");
        load
    }

    /// Makes a file and looks it up. Returns how long that took.
    async fn send_one(&mut self) -> Duration {
        let (peer, start) = (Peer::new(), Instant::now());
        self.sequence += 1;
        let file = format!("served-{}", self.sequence);
        loop {
            let made = self.node.ask(&peer, Request::Apply(make(self.session, self.sequence, &file))).await;
            if matches!(made, Response::Applied(Ok(_), _)) {
                break;
            }
            assert!(matches!(made, Response::Unavailable { .. } | Response::NotLeader { .. }), "{made:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let found = self.node.ask(&peer, Request::Query(lookup(&file))).await;
        assert!(!matches!(found, Response::Answered(Err(_), _)), "{found:?}");
        start.elapsed()
    }
}

/// One step whose time and memory are printed.
struct Step<'a> {
    what: &'a str,
    start: Instant,
    resident: u64,
}

impl<'a> Step<'a> {
    fn begin(what: &'a str) -> Self {
        // Linux then counts the peak anew.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        Self { what, start: Instant::now(), resident: resident_bytes() }
    }

    fn end(self) {
        let Self { what, start, resident } = self;
        let peak = status_bytes("VmHWM:").saturating_sub(resident) >> 20;
        println!(
            "{what}: {:.1?}, at most {peak} MB more memory than the {} MB before",
            start.elapsed(),
            resident >> 20
        );
    }
}

/// The memory of this process, without what was freed.
fn resident_bytes() -> u64 {
    // SAFETY: it only returns free memory to the system, under the allocator's own locks.
    unsafe { libc::malloc_trim(0) };
    status_bytes("VmRSS:")
}

/// Reads a field of this process's memory from `/proc`.
fn status_bytes(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

async fn when(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < STEP_LIMIT, "not within {STEP_LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

//! One test per rule. `model_test.rs` tests the rules together, against the naive model in `model.rs`.

use chordfs_types::namespace::{
    Answer, ChunkWrite, Commit, DiscardedRuns, Extent, FileContents, MAX_COMMIT_RUNS, NewNode, OpId, PAGE_ITEMS, Query,
    RenameMode, SetAttr, Truncate,
};

use super::*;

mod affected;
mod clones;
mod config;
mod contents;
mod detached;
mod id_jump;
mod identities;
mod locks;
mod logged_chunks;
mod model;
mod model_test;
mod names;
mod numbers;
mod operator_tokens;
mod parents;
mod pool_size;
mod sessions;
mod squash;
mod xattrs;

/// Tables with one open session, and short helpers. Every change has a second and a log index of its own.
struct Fixture {
    tables: Tables,
    session: SessionId,
    clock: i64,
    sequence: u64,
    feed: Vec<FeedEvent>,
}

impl Fixture {
    fn new() -> Self {
        let mut fixture =
            Self { tables: Tables::new(), session: SessionId(0), clock: 0, sequence: 0, feed: Vec::new() };
        fixture.session = fixture.open(1);
        fixture
    }

    fn open(&mut self, nonce: u64) -> SessionId {
        match self.run_without_session(Change::OpenSession { nonce, client: "here".into(), holds_leases: true }) {
            Ok(Reply::Session { session, .. }) => session,
            other => panic!("{other:?}"),
        }
    }

    /// Applies a change of the session.
    fn run(&mut self, change: Change) -> Result<Reply, FsError> {
        self.sequence += 1;
        let origin = OpId { session: self.session, sequence: self.sequence, answered_below: self.sequence };
        self.apply(Some(origin), change)
    }

    /// Applies a change without an origin.
    fn run_without_session(&mut self, change: Change) -> Result<Reply, FsError> {
        self.apply(None, change)
    }

    fn apply(&mut self, origin: Option<OpId>, change: Change) -> Result<Reply, FsError> {
        self.clock += 1;
        let now = at(self.clock);
        let applied = self.tables.apply(self.clock as u64, now, &NamespaceOp { origin, now, change });
        self.feed = applied.feed;
        applied.reply
    }

    fn make(&mut self, parent: Ino, name: &str, node: NewNode) -> Result<Attr, FsError> {
        match self.run(Change::Make { parent, name: entry(name), node, exclusive: true })? {
            Reply::Entry { attr, created: true } => Ok(attr),
            other => panic!("{other:?}"),
        }
    }

    fn file(&mut self, name: &str) -> Ino {
        self.make(Ino::ROOT, name, node(FileKind::File)).unwrap().ino
    }

    fn dir(&mut self, parent: Ino, name: &str) -> Ino {
        self.make(parent, name, node(FileKind::Directory)).unwrap().ino
    }

    fn link(&mut self, ino: Ino, name: &str) -> Result<Reply, FsError> {
        self.run(Change::Link { ino, parent: Ino::ROOT, name: entry(name) })
    }

    fn unlink(&mut self, name: &str, hold: bool) -> Result<Reply, FsError> {
        self.run(Change::Unlink { parent: Ino::ROOT, name: entry(name), hold })
    }

    fn rename(&mut self, from: (Ino, &str), to: (Ino, &str), mode: RenameMode) -> Result<Reply, FsError> {
        let (name, new_name) = (entry(from.1), entry(to.1));
        self.run(Change::Rename { parent: from.0, name, new_parent: to.0, new_name, mode, hold: false })
    }

    fn commit(&mut self, ino: Ino, commit: Commit) -> Result<Reply, FsError> {
        self.run(Change::Commit { ino, commit })
    }

    /// Commits whole runs `(first, count, version)` of ten-byte chunks; the file ends with the last one.
    fn write(&mut self, ino: Ino, runs: &[(u32, u32, u64)]) {
        let extents: Vec<Extent> = runs.iter().copied().map(extent).collect();
        for part in extents.chunks(MAX_COMMIT_RUNS) {
            let size_at_least = part.last().map_or(0, |last| (last.end() - 1) * 10);
            self.commit(ino, Commit { extents: part.to_vec(), size_at_least, ..Commit::default() }).unwrap();
        }
    }

    fn truncate(&mut self, ino: Ino, size: u64, tail: Option<ChunkWrite>) -> Result<Reply, FsError> {
        let truncate = Some(Truncate { size, tail });
        self.run(Change::SetAttr { ino, set: SetAttr { truncate, ..SetAttr::default() } })
    }

    fn purge(&mut self, before: i64) -> u32 {
        match self.run_without_session(Change::PurgeOrphans { before: before as u64, limit: 100 }) {
            Ok(Reply::Purged { count }) => count,
            other => panic!("{other:?}"),
        }
    }

    fn attr(&self, ino: Ino) -> Attr {
        match self.tables.query(&Query::GetAttr { ino }) {
            Ok(Answer::Attr(attr)) => attr,
            other => panic!("{other:?}"),
        }
    }

    fn lookup(&self, parent: Ino, name: &str) -> Result<Ino, FsError> {
        match self.tables.query(&Query::Lookup { parent, name: entry(name) })? {
            Answer::Attr(attr) => Ok(attr.ino),
            other => panic!("{other:?}"),
        }
    }

    /// `1+3 v9` are chunks 1 to 3 with version 9.
    fn contents(&self, ino: Ino) -> String {
        let runs = self.tables.extents_from(ino, 1).map(|run| (run.first, run.count, run.version));
        shown(runs)
    }

    fn dead(&self) -> String {
        match self.tables.query(&Query::Dead { before: u64::MAX, limit: 100 }) {
            Ok(Answer::Dead(dead)) => shown(dead.into_iter().map(|(_, run)| (run.first, run.count, run.version))),
            other => panic!("{other:?}"),
        }
    }
}

fn shown(runs: impl Iterator<Item = (u32, u32, Version)>) -> String {
    let shown: Vec<String> = runs.map(|(first, count, version)| format!("{first}+{count} v{}", version.0)).collect();
    shown.join(", ")
}

fn at(secs: i64) -> Time {
    Time { secs, nanos: 0 }
}

fn entry(name: &str) -> EntryName {
    EntryName::new(name.as_bytes().to_vec()).unwrap()
}

fn extent((first, count, version): (u32, u32, u64)) -> Extent {
    Extent { first, count, version: Version(version) }
}

fn over(index: u32, version: u64, base: Option<u64>) -> ChunkWrite {
    ChunkWrite { index, version: Version(version), base: base.map(Version) }
}

fn node(kind: FileKind) -> NewNode {
    let target = if kind == FileKind::Symlink { Bytes::from_static(b"there") } else { Bytes::new() };
    NewNode { kind, mode: 0o755, uid: 1, gid: 2, rdev: 0, chunk_bytes: 10, target }
}

fn is_invalid(reply: Result<Reply, FsError>) -> bool {
    matches!(reply, Err(FsError::Invalid { .. }))
}

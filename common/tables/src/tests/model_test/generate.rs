//! Random operations, drawn so that most succeed and every refusal occurs as well.

use chordfs_types::{
    chunk::{ChunkId, ChunkRun, MAX_CHUNK_BYTES},
    namespace::{ChunkWrite, Commit, DiscardedRuns, LoggedChunk, NewNode, RenameMode, SetAttr, Truncate},
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::*;

pub(super) struct Generator {
    rng: StdRng,
    clock: i64,
    /// How many operations there were, and so the place of the last one in the log.
    index: u64,
    sequences: HashMap<SessionId, u64>,
    /// The next version that no commit has used.
    fresh: u64,
    /// The missing part of a run that was committed: a later commit may add it, under the same version.
    running: Option<(Ino, Extent)>,
    /// Chunks that were current once: a stored chunk is written once, so it never becomes current again.
    used: BTreeSet<(u32, Version)>,
}

impl Generator {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            clock: 0,
            index: 0,
            sequences: HashMap::new(),
            fresh: 1,
            running: None,
            used: BTreeSet::new(),
        }
    }

    pub(super) fn next(&mut self, tables: &Tables, model: &Model) -> NamespaceOp {
        self.index += 1;
        // The proposers' clocks do not agree to the second.
        self.clock += self.rng.random_range(-1..4);
        let change = self.change(tables, model);
        let origin = self.origin(model, &change);
        NamespaceOp { origin, now: self.now(), change }
    }

    pub(super) fn learn(&mut self, op: &NamespaceOp, reply: &Result<Reply, FsError>) {
        let (Some((ino, commit)), Ok(_)) = (op.change.as_commit(), reply) else { return };
        let gap = commit.extents.windows(2).find(|pair| pair[0].version == pair[1].version);
        let missing = match (gap, commit.extents.last()) {
            (Some(pair), _) => (pair[0].first + pair[0].count, 1, pair[0].version),
            (None, Some(last)) => (last.first.saturating_add(last.count), 2, last.version),
            (None, None) => return,
        };
        let (first, count, version) = missing;
        let missing = Extent { first, count: count.min(u32::MAX - first).max(1), version };
        self.used.extend(commit.extents.iter().flat_map(chunks_of));
        self.running = chunks_of(&missing).all(|chunk| !self.used.contains(&chunk)).then_some((ino, missing));
    }

    fn origin(&mut self, model: &Model, change: &Change) -> Option<OpId> {
        let by_itself = matches!(
            change,
            Change::OpenSession { .. }
                | Change::PurgeOrphans { .. }
                | Change::ForgetDead { .. }
                | Change::ForgetLogged { .. }
                | Change::CloseSession { .. }
                | Change::SuspendSession { .. }
                | Change::ResumeSession { .. }
        );
        if by_itself || self.rng.random_bool(0.02) {
            return None;
        }
        let known = model.sessions().choose(&mut self.rng).copied();
        let session = known.filter(|_| self.rng.random_bool(0.99)).unwrap_or(SessionId(99));
        let next = self.sequences.entry(session).or_default();
        *next += 1;
        let below = next.saturating_sub(self.rng.random_range(0..8));
        let sequence = if self.rng.random_bool(0.03) { next.saturating_sub(5) } else { *next };
        Some(OpId { session, sequence, answered_below: below.min(sequence) })
    }

    fn change(&mut self, tables: &Tables, model: &Model) -> Change {
        match self.rng.random_range(0..100) {
            0..4 => Change::OpenSession {
                nonce: self.rng.random_range(0..6),
                client: "client".into(),
                holds_leases: self.rng.random(),
            },
            4 => Change::CloseSession { session: self.session(model) },
            5 if self.rng.random_bool(0.2) => Change::SuspendSession { session: self.session(model) },
            5 if self.rng.random_bool(0.2) => Change::ResumeSession { session: self.session(model) },
            5 if self.rng.random_bool(0.3) => Change::FoundRoot { uid: 1000, gid: self.rng.random_range(0..3) },
            5 if self.rng.random() => {
                Change::AllocateInos { count: *[0, 2, 3, 5, 65_537].choose(&mut self.rng).unwrap() }
            }
            5 => Change::AllocateVersions { count: self.rng.random_range(0..4) },
            6..12 => self.make_numbered(model),
            12..25 => Change::Make {
                parent: self.parent(model),
                name: self.name(),
                node: self.node(),
                exclusive: self.rng.random(),
            },
            25..29 => Change::MakeUnnamed { file: FileName::new("unnamed").unwrap(), node: self.plain_file() },
            29..34 => {
                Change::Publish { ino: self.unnamed(tables, model), parent: self.parent(model), name: self.name() }
            }
            34..39 => Change::Link { ino: self.ino(model), parent: self.parent(model), name: self.name() },
            39..46 => {
                let (parent, name) = self.place(model);
                Change::Unlink { parent, name, hold: self.rng.random() }
            }
            46..50 => {
                let (parent, name) = self.place(model);
                Change::Rmdir { parent, name }
            }
            50..64 => self.rename(model),
            64..72 => Change::SetAttr { ino: self.file(model), set: self.set_attr(model) },
            72..91 => {
                let commit = self.commit(model);
                if self.rng.random_bool(0.3) { self.with_data(commit) } else { commit }
            }
            91 => Change::HoldOrphans { inos: vec![self.unnamed(tables, model), self.ino(model), Ino(99)] },
            92 if self.rng.random_bool(0.2) => Change::Hold { ino: Ino(99) },
            92 => Change::Hold { ino: self.unnamed(tables, model) },
            93 if self.rng.random_bool(0.3) => self.forget_logged(tables),
            93..95 => Change::Release { inos: vec![self.unnamed(tables, model), self.ino(model)] },
            95 if self.rng.random() => self.discard(),
            95 => self.collect_orphans(),
            96 => {
                let before = self.index.saturating_sub(self.rng.random_range(0..10));
                Change::PurgeOrphans { before, limit: self.rng.random_range(0..4) }
            }
            _ => self.forget(tables),
        }
    }

    /// Mostly under a number of some session; it is that of the operation by chance.
    fn make_numbered(&mut self, model: &Model) -> Change {
        let session = self.session(model);
        let unused = model.unused_inos(session).choose(&mut self.rng).copied();
        Change::MakeNumbered {
            ino: unused.unwrap_or_else(|| self.ino(model)),
            file: FileName::new("numbered").unwrap(),
            parent: if self.rng.random_bool(0.05) { Ino(99_999) } else { self.parent(model) },
            name: self.name(),
            node: self.node(),
        }
    }

    fn rename(&mut self, model: &Model) -> Change {
        let (parent, name) = self.place(model);
        let (new_parent, new_name) =
            if self.rng.random() { self.place(model) } else { (self.parent(model), self.name()) };
        let mode = *[RenameMode::Replace, RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange]
            .choose(&mut self.rng)
            .unwrap();
        Change::Rename { parent, name, new_parent, new_name, mode, hold: self.rng.random() }
    }

    fn commit(&mut self, model: &Model) -> Change {
        let ino = self.file(model);
        match self.rng.random_range(0..20) {
            0..4 => {
                if let Some((ino, run)) = self.running.take() {
                    return whole(ino, vec![run]);
                }
            }
            4..6 => return self.commit_with_gap(ino),
            6..8 => return self.commit_again(model, ino),
            8 => return self.commit_dead(model, ino),
            _ => {}
        }
        let mut commit = Commit {
            restart: self.rng.random_bool(0.1).then(|| self.chunk_bytes()),
            chunk_bytes: self.rng.random_bool(0.2).then(|| self.chunk_bytes()),
            size_at_least: self.rng.random_range(0..120),
            mtime: self.rng.random_bool(0.3).then(|| self.now()),
            ..Commit::default()
        };
        if self.rng.random_bool(0.3) {
            commit.set.mode = Some(self.rng.random_range(0..0o7777));
            commit.set.atime = Some(self.now());
        }
        let mut index = self.rng.random_range(1..6);
        for _ in 0..self.rng.random_range(0..4) {
            let count = self.rng.random_range(1..5);
            if self.rng.random_bool(0.6) {
                commit.extents.push(Extent { first: index, count, version: self.version() })
            } else {
                commit.partial.push(self.write(model, ino, index))
            }
            index += count + self.rng.random_range(0..2);
        }
        if self.rng.random_bool(0.06) {
            self.spoil(&mut commit);
        }
        Change::Commit { ino, commit }
    }

    /// The data of some chunks of the commit; now and then of one that it does not name, or too much for a chunk.
    fn with_data(&mut self, change: Change) -> Change {
        let Change::Commit { ino, commit } = change else { return change };
        let runs = commit.extents.iter().copied().chain(commit.partial.iter().map(|write| write.extent()));
        let ids = runs
            .filter(|run| (1..10).contains(&run.count))
            .flat_map(|run| run.range().map(move |index| ChunkId { version: run.version, index: index as u32 }));
        let mut chunks = Vec::new();
        for mut id in ids {
            if self.rng.random_bool(0.02) {
                id.index ^= 8;
            }
            let bytes = if self.rng.random_bool(0.02) { 1000 } else { self.rng.random_range(0..10) };
            if self.rng.random_bool(0.8) {
                chunks.push(LoggedChunk { id, data: Bytes::from(vec![7; bytes]) });
            }
        }
        Change::CommitWithData { ino, commit, chunks }
    }

    /// Mostly chunks that the log keeps.
    fn forget_logged(&mut self, tables: &Tables) -> Change {
        let mut chunks: Vec<ChunkId> =
            tables.chunks_to_place(u64::MAX).map(|(id, ..)| id).filter(|_| self.rng.random_bool(0.8)).collect();
        chunks.push(ChunkId { version: self.version(), index: 1 });
        Change::ForgetLogged { chunks }
    }

    fn commit_with_gap(&mut self, ino: Ino) -> Change {
        let (first, version) = (self.rng.random_range(1..6), self.version());
        whole(ino, [first, first + 2].map(|first| Extent { first, count: 1, version }).to_vec())
    }

    /// Commits chunks that are dead, which must stay so, or that another file has.
    fn commit_dead(&mut self, model: &Model, ino: Ino) -> Change {
        let dead = model.dead.keys().map(|(version, index)| (*index, *version));
        let others = model.nodes.values().flat_map(|node| &node.chunks).map(|(index, version)| (*index, *version));
        let mut all: Vec<(u32, Version)> = dead.chain(others).filter(|(index, _)| *index < 20).collect();
        all.sort();
        let Some((first, version)) = all.choose(&mut self.rng).copied() else { return whole(ino, Vec::new()) };
        // The run begins with chunks before it, which may be current.
        let first = self.rng.random_range(first.saturating_sub(2).max(1)..=first);
        whole(ino, vec![Extent { first, count: 3, version }])
    }

    /// Commits chunks that are current already.
    fn commit_again(&mut self, model: &Model, ino: Ino) -> Change {
        let chunks = model.nodes.get(&ino).into_iter().flat_map(|node| &node.chunks);
        let chosen = chunks.filter(|_| self.rng.random_bool(0.3));
        whole(ino, chosen.map(|(first, version)| Extent { first: *first, count: 1, version: *version }).collect())
    }

    /// Changes a commit so that it is refused, or reaches the last chunk number.
    fn spoil(&mut self, commit: &mut Commit) {
        let version = self.version();
        match self.rng.random_range(0..8) {
            7 => commit.set.truncate = Some(Truncate { size: 0, tail: None }),
            0 => commit.extents.push(Extent { first: 1, count: 1, version }),
            1 => commit.extents.push(Extent { first: u32::MAX, count: 2, version }),
            2 => commit.extents.push(Extent { first: 20, count: 0, version }),
            3 => commit.extents.push(Extent { first: 20, count: 1, version: Version(0) }),
            4 => commit.size_at_least = u64::MAX,
            5 => commit.restart = Some(MAX_CHUNK_BYTES + 1),
            _ => {
                commit.extents.push(Extent { first: u32::MAX, count: 1, version });
                commit.size_at_least = u64::from(u32::MAX) * 4 - 1;
            }
        }
    }

    fn set_attr(&mut self, model: &Model) -> SetAttr {
        let ino = self.file(model);
        let mut some = |most: u32| self.rng.random_bool(0.3).then(|| self.rng.random_range(0..most));
        let (mode, uid, gid) = (some(0o10_0000).map(|mode| mode as u16), some(9), some(9));
        let times = [0; 3].map(|_| self.rng.random_bool(0.2).then(|| self.now()));
        let truncate = self.rng.random_bool(0.7).then(|| self.truncate(model, ino));
        SetAttr { mode, uid, gid, atime: times[0], mtime: times[1], ctime: times[2], truncate }
    }

    fn truncate(&mut self, model: &Model, ino: Ino) -> Truncate {
        let size = if self.rng.random_bool(0.03) { u64::MAX } else { self.rng.random_range(0..100) };
        let chunk_bytes = model.nodes.get(&ino).map_or(4, |_| model.attr(ino).chunk_bytes.max(1));
        let index = (size / u64::from(chunk_bytes)).min(1000) as u32 + 1;
        let stored = model.nodes.get(&ino).is_some_and(|node| node.chunks.contains_key(&index));
        let cut = stored && !size.is_multiple_of(chunk_bytes.into());
        let tail = (cut ^ self.rng.random_bool(0.1)).then(|| self.write(model, ino, index));
        Truncate { size, tail }
    }

    fn write(&mut self, model: &Model, ino: Ino, index: u32) -> ChunkWrite {
        let current = model.nodes.get(&ino).and_then(|node| node.chunks.get(&index)).copied();
        let base = if self.rng.random_bool(0.9) { current } else { Some(Version(self.rng.random_range(1..9))) };
        ChunkWrite { index, version: self.version(), base }
    }

    /// Collects runs that a node may take for orphans.
    /// Chunks as for the collection, of which a part belongs to the session.
    fn discard(&mut self) -> Change {
        let Change::CollectOrphans { runs } = self.collect_orphans() else { unreachable!("it collects") };
        let discarded = |run: ChunkRun| DiscardedRuns { runs: vec![Extent::from(&run)], file: run.file };
        Change::Discard { files: runs.into_iter().map(discarded).collect() }
    }

    fn collect_orphans(&mut self) -> Change {
        let mut run = || ChunkRun {
            file: FileName::new("kept").unwrap(),
            first: self.rng.random_range(1..9) - u32::from(self.rng.random_bool(0.2)),
            count: self.rng.random_range(1..12),
            version: Version(self.rng.random_range(0..self.fresh + 3)),
        };
        Change::CollectOrphans { runs: vec![run(), run()] }
    }

    fn forget(&mut self, tables: &Tables) -> Change {
        let old = Query::Dead { before: self.index, limit: self.rng.random_range(0..8) };
        let Ok(Answer::Dead(dead)) = tables.query(&old) else { unreachable!("Dead has its own answer") };
        Change::ForgetDead { ids: dead.into_iter().map(|(id, _)| id).collect() }
    }

    /// Returns a new version for each run, as a writer must; before the first session was opened, none is allocated.
    fn version(&mut self) -> Version {
        self.fresh += 1;
        Version(self.fresh - 1)
    }

    fn now(&self) -> Time {
        Time { secs: self.clock, nanos: 5 }
    }

    fn session(&mut self, model: &Model) -> SessionId {
        model.sessions().choose(&mut self.rng).copied().unwrap_or(SessionId(7))
    }

    fn name(&mut self) -> EntryName {
        let names: [&[u8]; 6] = [b"\x01", b"a", b"b", b"a b", b"\xff\xfe", b"c"];
        EntryName::new(*names.choose(&mut self.rng).unwrap()).unwrap()
    }

    fn ino(&mut self, model: &Model) -> Ino {
        if self.rng.random_bool(0.05) {
            Ino(self.rng.random_range(0..60))
        } else {
            *model.nodes.keys().collect::<Vec<_>>().choose(&mut self.rng).unwrap().to_owned()
        }
    }

    fn among(&mut self, model: &Model, wanted: impl Fn(Ino) -> bool) -> Ino {
        let found: Vec<Ino> = model.nodes.keys().copied().filter(|ino| wanted(*ino)).collect();
        match found.choose(&mut self.rng).filter(|_| self.rng.random_bool(0.93)) {
            Some(ino) => *ino,
            None => self.ino(model),
        }
    }

    fn file(&mut self, model: &Model) -> Ino {
        self.among(model, |ino| model.attr(ino).kind == FileKind::File)
    }

    fn parent(&mut self, model: &Model) -> Ino {
        self.among(model, |ino| model.attr(ino).kind == FileKind::Directory)
    }

    fn unnamed(&mut self, tables: &Tables, model: &Model) -> Ino {
        self.among(model, |ino| tables.orphans.contains_key(&ino))
    }

    /// Mostly one that exists.
    fn place(&mut self, model: &Model) -> (Ino, EntryName) {
        let all = model.nodes.iter().flat_map(|(ino, node)| node.children.keys().map(|name| (*ino, name.clone())));
        match all.collect::<Vec<_>>().choose(&mut self.rng).filter(|_| self.rng.random_bool(0.9)) {
            Some(place) => place.clone(),
            None => (self.parent(model), self.name()),
        }
    }

    fn node(&mut self) -> NewNode {
        let kind = *[
            FileKind::File,
            FileKind::Directory,
            FileKind::Directory,
            FileKind::Symlink,
            FileKind::Fifo,
            FileKind::CharDevice,
        ]
        .choose(&mut self.rng)
        .unwrap();
        let linked = (kind == FileKind::Symlink) ^ self.rng.random_bool(0.03);
        let target = if linked { Bytes::from_static(b"some/where") } else { Bytes::new() };
        NewNode { kind, mode: self.rng.random(), target, ..self.plain_file() }
    }

    fn plain_file(&mut self) -> NewNode {
        NewNode {
            kind: FileKind::File,
            mode: 0o644,
            uid: self.rng.random_range(0..3),
            gid: self.rng.random_range(0..3),
            rdev: 7,
            chunk_bytes: self.chunk_bytes(),
            target: Bytes::new(),
        }
    }

    fn chunk_bytes(&mut self) -> u32 {
        *[4, 10, 4, 10, 4, 10, 4, 10, 4, 10, 0].choose(&mut self.rng).unwrap()
    }
}

fn whole(ino: Ino, extents: Vec<Extent>) -> Change {
    Change::Commit { ino, commit: Commit { extents, size_at_least: 100, ..Commit::default() } }
}

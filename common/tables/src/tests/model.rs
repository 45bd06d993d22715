//! A second, naive implementation of the namespace: the reference that random operations are compared with.
//!
//! Different in structure on purpose. A directory owns a map of its children, a file a map from chunk to version; link
//! counts, parents and paths are found by searching the whole tree, and nothing is kept that could be computed. Only
//! the order in which several faults are reported follows the tables. It uses nothing but the shared types.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use chordfs_types::{
    chunk::{ChunkRun, FileName, MAX_CHUNK_BYTES, MAX_FILE_NAME_BYTES, NameError, Version},
    fs_error::FsError,
    namespace::{
        Attr, Change, ChunkWrite, Commit, DiscardedRuns, EntryName, Extent, FileKind, Ino, InoBlock, LoggedChunk,
        NamespaceOp, NewNode, OpId, RenameMode, Reply, SessionId, SetAttr, Time, Truncate, VersionBlock,
    },
};

mod tree;

const SESSION_VERSIONS: u32 = 4096;

#[derive(Clone, Debug)]
pub(super) struct Model {
    pub nodes: BTreeMap<Ino, Node>,
    /// Every stored chunk that was current once, is no longer, and has not been forgotten.
    pub dead: HashMap<(Version, u32), FileName>,
    retired_versions: HashSet<Version>,
    sessions: HashMap<SessionId, (u64, VersionBlock)>,
    blocks: Vec<(SessionId, VersionBlock)>,
    /// Inode numbers that the session has not used and may still use.
    unused_inos: HashMap<SessionId, Vec<Ino>>,
    replies: HashMap<(SessionId, u64), Result<Reply, FsError>>,
    answered_below: HashMap<SessionId, u64>,
    next_ino: u64,
    next_session: u64,
    next_version: u64,
    /// The place of the current operation in the log.
    index: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    /// `nlink` and `change` mean nothing here; see [`Model::attr`].
    attr: Attr,
    pub target: Bytes,
    pub children: BTreeMap<EntryName, Ino>,
    pub chunks: BTreeMap<u32, Version>,
    unnamed_since: u64,
    holders: HashSet<SessionId>,
}

type Outcome = Result<Reply, FsError>;

impl Model {
    pub(super) fn new() -> Self {
        let node = NewNode {
            kind: FileKind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            rdev: 0,
            chunk_bytes: 0,
            target: Bytes::new(),
        };
        let mut model = Self {
            nodes: BTreeMap::new(),
            dead: HashMap::new(),
            retired_versions: HashSet::new(),
            sessions: HashMap::new(),
            blocks: Vec::new(),
            unused_inos: HashMap::new(),
            replies: HashMap::new(),
            answered_below: HashMap::new(),
            next_ino: 1,
            next_session: 1,
            next_version: 1,
            index: 0,
        };
        model.add_node(&node, FileName::new("/").unwrap(), Time::default());
        model
    }

    pub(super) fn apply(&mut self, index: u64, op: &NamespaceOp) -> Result<Reply, FsError> {
        self.index = index;
        let Some(OpId { session, sequence, answered_below }) = op.origin else {
            return self.change(None, op.now, &op.change);
        };
        if !self.sessions.contains_key(&session) {
            return Err(FsError::NoSession);
        }
        let below = self.answered_below.get(&session).copied().unwrap_or(0).max(answered_below);
        if sequence < below {
            return Err(FsError::OutOfOrder);
        }
        if let Some(reply) = self.replies.get(&(session, sequence)) {
            return reply.clone();
        }
        self.answered_below.insert(session, below);
        let reply = self.change(Some(session), op.now, &op.change);
        self.replies.insert((session, sequence), reply.clone());
        reply
    }

    /// Notes an operation that the tables refused for a reason that the model does not know.
    pub(super) fn remember(&mut self, op: &NamespaceOp, reply: &Result<Reply, FsError>) {
        let Some(OpId { session, sequence, answered_below }) = op.origin else { return };
        let below = self.answered_below.entry(session).or_default();
        *below = answered_below.max(*below);
        self.replies.insert((session, sequence), reply.clone());
    }

    /// Attributes with a counted link count, and without the change counter.
    pub(super) fn attr(&self, ino: Ino) -> Attr {
        let node = &self.nodes[&ino];
        let (chunks, attr) = (node.chunks.len() as u64, node.attr.clone());
        let all = if attr.chunk_bytes == 0 { 0 } else { attr.size.div_ceil(attr.chunk_bytes.into()) };
        Attr { nlink: self.links(ino), change: 0, holes: (all - chunks) as u32, ..attr }
    }

    pub(super) fn parent(&self, ino: Ino) -> Option<(Ino, &EntryName)> {
        self.nodes.iter().find_map(|(parent, node)| {
            node.children.iter().find(|(_, child)| **child == ino).map(|(name, _)| (*parent, name))
        })
    }

    pub(super) fn sessions(&self) -> Vec<SessionId> {
        let mut ids: Vec<_> = self.sessions.keys().copied().collect();
        ids.sort();
        ids
    }

    pub(super) fn is_referenced(&self, version: Version) -> bool {
        self.nodes.values().any(|node| node.chunks.values().any(|current| *current == version))
    }

    pub(super) fn is_retired(&self, version: Version) -> bool {
        self.retired_versions.contains(&version)
    }

    /// All current chunks, as `(index, version)`.
    pub(super) fn current(&self) -> HashSet<(u32, Version)> {
        let chunks = |node: &Node| node.chunks.clone();
        self.nodes.values().flat_map(chunks).collect()
    }

    /// Only the tables know the ids of the dead list, so the model forgets by run.
    pub(super) fn forget(&mut self, run: &ChunkRun) {
        for index in run.first..=run.first + (run.count - 1) {
            let file = self.dead.remove(&(run.version, index));
            assert_eq!(file.as_ref(), Some(&run.file), "{run:?} was not dead");
        }
        self.retired_versions.insert(run.version);
    }

    fn change(&mut self, session: Option<SessionId>, now: Time, change: &Change) -> Outcome {
        let issuer = || session.ok_or_else(refused);
        match change {
            Change::OpenSession { nonce, .. } | Change::OpenOwnedSession { nonce, .. } => Ok(self.open_session(*nonce)),
            Change::CloseSession { session } => self.close_session(*session),
            Change::SuspendSession { session } => self.suspend_session(*session),
            Change::ResumeSession { session } => {
                if self.sessions.contains_key(session) {
                    Ok(Reply::Done)
                } else {
                    Err(FsError::NoSession)
                }
            }
            Change::AllocateVersions { count: 0 } => Err(refused()),
            Change::AllocateVersions { count } => {
                let block = self.allocate(*count);
                self.blocks.extend(session.map(|session| (session, block)));
                Ok(Reply::Versions(block))
            }
            Change::Make { parent, name, node, exclusive } => self.make(*parent, name, node, *exclusive, now),
            Change::AllocateInos { count: 0 | 65_537.. } => Err(refused()),
            Change::AllocateInos { count } => Ok(Reply::Inos(self.allocate_inos(issuer()?, *count))),
            Change::MakeNumbered { ino, file, parent, name, node } => {
                let issuer = issuer()?;
                if !self.unused_inos.get(&issuer).is_some_and(|unused| unused.contains(ino)) {
                    return Err(refused());
                }
                let reply = self.make_as(Some((*ino, file)), *parent, name, node, true, now)?;
                self.unused_inos.entry(issuer).or_default().retain(|unused| unused > ino);
                Ok(reply)
            }
            Change::MakeUnnamed { file, node } => self.make_unnamed(issuer()?, file, node, now),
            Change::Publish { ino, parent, name } => self.publish(session, *ino, *parent, name, now),
            Change::Link { ino, parent, name } => self.link(session, *ino, *parent, name, now),
            Change::Unlink { parent, name, hold } => self.unlink(session.filter(|_| *hold), *parent, name, now),
            Change::Rmdir { parent, name } => self.rmdir(*parent, name, now),
            Change::Rename { parent, name, new_parent, new_name, mode, hold } => {
                self.rename(session.filter(|_| *hold), (*parent, name), (*new_parent, new_name), *mode, now)
            }
            Change::SetAttr { ino, set } => self.set_attr(*ino, set, now),
            Change::Commit { ino, commit } => self.commit(*ino, commit, now),
            Change::CommitWithData { ino, commit, chunks } => {
                self.check_data(*ino, commit, chunks)?;
                self.commit(*ino, commit, now)
            }
            Change::ForgetLogged { .. } => Ok(Reply::Done),
            Change::Hold { ino } => {
                let issuer = issuer()?;
                let unnamed = self.nodes.contains_key(ino) && self.links(*ino) == 0;
                let node = self.nodes.get_mut(ino).ok_or(FsError::Stale { ino: *ino })?;
                node.holders.extend(unnamed.then_some(issuer));
                Ok(Reply::Done)
            }
            Change::HoldOrphans { inos } => {
                let issuer = issuer()?;
                let unnamed = |ino: &Ino| self.nodes.contains_key(ino) && self.links(*ino) == 0;
                let held: Vec<Ino> = inos.iter().copied().filter(unnamed).collect();
                for ino in &held {
                    self.node_mut(*ino).holders.insert(issuer);
                }
                Ok(Reply::Held { inos: held })
            }
            Change::Release { inos } => {
                let issuer = issuer()?;
                inos.iter().for_each(|ino| self.release(*ino, issuer));
                Ok(Reply::Done)
            }
            Change::PurgeOrphans { before, limit } => Ok(self.purge(*before, *limit)),
            Change::ForgetDead { .. } => Ok(Reply::Done),
            Change::CollectOrphans { runs } => self.collect_orphans(runs),
            Change::Discard { files } => self.discard(issuer()?, files),
            Change::Configure { .. }
            | Change::AcceptOperatorToken { .. }
            | Change::RevokeOperatorToken { .. }
            | Change::ResizePool { .. }
            | Change::Invite { .. }
            | Change::Admit { .. }
            | Change::RevokeIdentity { .. }
            | Change::SetXattr { .. }
            | Change::RemoveXattr { .. }
            | Change::MakeMasked { .. }
            | Change::PunchHole { .. }
            | Change::CloneRange { .. }
            | Change::Touch { .. }
            | Change::Lock { .. }
            | Change::Unlock { .. }
            | Change::CancelLock { .. }
            | Change::KeepLocks { .. } => {
                unreachable!("tests of their own test these")
            }
            Change::FoundRoot { uid, gid } => {
                let root = &mut self.node_mut(Ino::ROOT).attr;
                if root.ctime == Time::default() {
                    (root.uid, root.gid) = (*uid, *gid);
                    (root.atime, root.mtime, root.ctime) = (now, now, now);
                }
                Ok(Reply::Attr(self.attr(Ino::ROOT)))
            }
        }
    }

    /// Which chunks are kept the model does not know: that depends on how removed contents are taken apart.
    fn check_data(&self, ino: Ino, commit: &Commit, chunks: &[LoggedChunk]) -> Result<(), FsError> {
        let attr = &self.node(ino)?.attr;
        match attr.kind {
            FileKind::File => {}
            FileKind::Directory => return Err(FsError::IsDirectory),
            _ => return Err(refused()),
        }
        let most = commit.restart.unwrap_or(attr.chunk_bytes) as usize;
        let whole = commit.extents.iter().flat_map(|run| run.range().map(move |index| (run.version, index)));
        let named: Vec<(Version, u64)> =
            whole.chain(commit.partial.iter().map(|write| (write.version, u64::from(write.index)))).collect();
        let is_good = |chunk: &LoggedChunk| {
            chunk.data.len() <= most && named.contains(&(chunk.id.version, chunk.id.index.into()))
        };
        if chunks.iter().all(is_good) { Ok(()) } else { Err(refused()) }
    }

    fn open_session(&mut self, nonce: u64) -> Reply {
        let known = self.sessions.iter().find(|(_, (seen, _))| *seen == nonce);
        if let Some((&session, &(_, versions))) = known {
            return Reply::Session { session, versions };
        }
        let versions = self.allocate(SESSION_VERSIONS);
        let session = SessionId(self.next_session);
        self.next_session += 1;
        self.sessions.insert(session, (nonce, versions));
        Reply::Session { session, versions }
    }

    fn close_session(&mut self, session: SessionId) -> Outcome {
        self.sessions.remove(&session).ok_or(FsError::NoSession)?;
        self.unused_inos.remove(&session);
        let inos: Vec<Ino> = self.nodes.keys().copied().collect();
        inos.into_iter().for_each(|ino| self.release(ino, session));
        Ok(Reply::Done)
    }

    fn suspend_session(&mut self, session: SessionId) -> Outcome {
        if !self.sessions.contains_key(&session) {
            return Err(FsError::NoSession);
        }
        let inos: Vec<Ino> = self.nodes.keys().copied().collect();
        inos.into_iter().for_each(|ino| self.release(ino, session));
        Ok(Reply::Done)
    }

    fn allocate(&mut self, count: u32) -> VersionBlock {
        let first = Version(self.next_version);
        self.next_version += u64::from(count);
        VersionBlock { first, count }
    }

    fn allocate_inos(&mut self, session: SessionId, count: u32) -> InoBlock {
        let first = Ino(self.next_ino);
        self.next_ino += u64::from(count);
        self.unused_inos.entry(session).or_default().extend((first.0..self.next_ino).map(Ino));
        InoBlock { first, count }
    }

    pub(super) fn unused_inos(&self, session: SessionId) -> &[Ino] {
        self.unused_inos.get(&session).map_or(&[], Vec::as_slice)
    }

    fn make(&mut self, parent: Ino, name: &EntryName, node: &NewNode, exclusive: bool, now: Time) -> Outcome {
        self.make_as(None, parent, name, node, exclusive, now)
    }

    fn make_as(
        &mut self,
        chosen: Option<(Ino, &FileName)>,
        parent: Ino,
        name: &EntryName,
        node: &NewNode,
        exclusive: bool,
        now: Time,
    ) -> Outcome {
        match self.find(parent, name)? {
            Some(_) if exclusive => return Err(FsError::Exists),
            Some(ino) => return Ok(Reply::Entry { attr: self.attr(ino), created: false }),
            None => check_node(node)?,
        }
        let mut path = self.path(parent);
        path.extend_from_slice(name.as_bytes());
        let ino = match chosen {
            Some((ino, file)) => self.add_node_as(ino, node, file.clone(), now),
            None => self.add_node(node, FileName::new(path).map_err(FsError::Name)?, now),
        };
        let directory = &self.nodes[&parent].attr;
        let (set_gid, gid) = (directory.mode & 0o2000, directory.gid);
        let attr = &mut self.nodes.get_mut(&ino).unwrap().attr;
        if set_gid != 0 {
            attr.gid = gid;
            attr.mode |= if node.kind == FileKind::Directory { set_gid } else { 0 };
        }
        self.put(parent, name, ino, now);
        Ok(Reply::Entry { attr: self.attr(ino), created: true })
    }

    fn make_unnamed(&mut self, session: SessionId, file: &FileName, node: &NewNode, now: Time) -> Outcome {
        check_node(node)?;
        if node.kind != FileKind::File {
            return Err(refused());
        }
        let ino = self.add_node(node, file.clone(), now);
        self.nodes.get_mut(&ino).unwrap().holders.insert(session);
        Ok(Reply::Entry { attr: self.attr(ino), created: true })
    }

    fn publish(&mut self, by: Option<SessionId>, ino: Ino, parent: Ino, name: &EntryName, now: Time) -> Outcome {
        let old = self.find(parent, name)?;
        self.node(ino)?;
        if self.links(ino) > 0 {
            return Err(refused());
        }
        self.check_held(by, ino)?;
        if old.is_some_and(|old| self.is_directory(old)) {
            return Err(FsError::IsDirectory);
        }
        self.put(parent, name, ino, now);
        self.named(ino, now);
        Ok(Reply::Removed { attr: old.map(|old| self.drop_link(old, None, now)) })
    }

    fn link(&mut self, by: Option<SessionId>, ino: Ino, parent: Ino, name: &EntryName, now: Time) -> Outcome {
        if self.find(parent, name)?.is_some() {
            return Err(FsError::Exists);
        }
        self.node(ino)?;
        if self.is_directory(ino) {
            return Err(FsError::NotPermitted { reason: String::new() });
        }
        if self.links(ino) == 0 {
            self.check_held(by, ino)?;
        }
        self.put(parent, name, ino, now);
        self.named(ino, now);
        Ok(Reply::Entry { attr: self.attr(ino), created: true })
    }

    fn unlink(&mut self, holder: Option<SessionId>, parent: Ino, name: &EntryName, now: Time) -> Outcome {
        let ino = self.find(parent, name)?.ok_or(FsError::NoEntry)?;
        if self.is_directory(ino) {
            return Err(FsError::IsDirectory);
        }
        self.take(parent, name, now);
        Ok(Reply::Removed { attr: Some(self.drop_link(ino, holder, now)) })
    }

    fn rmdir(&mut self, parent: Ino, name: &EntryName, now: Time) -> Outcome {
        let ino = self.find(parent, name)?.ok_or(FsError::NoEntry)?;
        if !self.is_directory(ino) {
            return Err(FsError::NotDirectory);
        }
        if !self.nodes[&ino].children.is_empty() {
            return Err(FsError::NotEmpty);
        }
        self.take(parent, name, now);
        self.nodes.remove(&ino);
        Ok(Reply::Done)
    }

    fn rename(
        &mut self,
        holder: Option<SessionId>,
        from: (Ino, &EntryName),
        to: (Ino, &EntryName),
        mode: RenameMode,
        now: Time,
    ) -> Outcome {
        let source = self.find(from.0, from.1);
        let target = self.find(to.0, to.1);
        let (source, target) = (source?, target?);
        let source = source.ok_or(FsError::NoEntry)?;
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return Err(FsError::Exists),
            (RenameMode::Exchange, None) => return Err(FsError::NoEntry),
            (_, target) if target == Some(source) => return Ok(Reply::Removed { attr: None }),
            _ => {}
        }
        if self.contains(source, to.0) {
            return Err(FsError::IntoItself);
        }
        if let (RenameMode::Exchange, Some(target)) = (mode, target) {
            if self.contains(target, from.0) {
                return Err(FsError::IntoItself);
            }
            self.put(from.0, from.1, target, now);
            self.put(to.0, to.1, source, now);
            self.node_mut(source).attr.ctime = now;
            self.node_mut(target).attr.ctime = now;
            return Ok(Reply::Removed { attr: None });
        }
        if let Some(target) = target {
            match (self.is_directory(source), self.is_directory(target)) {
                (true, false) => return Err(FsError::NotDirectory),
                (false, true) => return Err(FsError::IsDirectory),
                _ if !self.nodes[&target].children.is_empty() => return Err(FsError::NotEmpty),
                _ => {}
            }
        }
        self.take(from.0, from.1, now);
        self.put(to.0, to.1, source, now);
        self.node_mut(source).attr.ctime = now;
        Ok(Reply::Removed { attr: target.map(|target| self.drop_link(target, holder, now)) })
    }

    fn set_attr(&mut self, ino: Ino, set: &SetAttr, now: Time) -> Outcome {
        self.node(ino)?;
        if let Some(truncate) = &set.truncate {
            self.truncate(ino, truncate, now)?;
        }
        set_plain(&mut self.node_mut(ino).attr, set, now);
        Ok(Reply::Attr(self.attr(ino)))
    }

    fn truncate(&mut self, ino: Ino, Truncate { size, tail }: &Truncate, now: Time) -> Result<(), FsError> {
        let file = self.file(ino)?;
        let (chunk_bytes, old) = (u64::from(file.attr.chunk_bytes), file.attr.size);
        check_size(*size, chunk_bytes)?;
        // The chunk that the new end splits.
        let split = (size % chunk_bytes != 0).then_some((size / chunk_bytes + 1) as u32);
        match tail {
            Some(tail) if split != Some(tail.index) => return Err(refused()),
            Some(tail) => {
                self.check_version(tail.version)?;
                self.check_base(ino, tail)?;
                self.check_alive(ino, tail.index, tail.version)?;
            }
            None if *size < old && split.is_some_and(|split| file.chunks.contains_key(&split)) => return Err(refused()),
            None => {}
        }
        let chunks: Vec<u32> = self.nodes[&ino].chunks.keys().copied().collect();
        for index in chunks.into_iter().filter(|index| u64::from(index - 1) * chunk_bytes >= *size) {
            self.write(ino, index, None);
        }
        if let Some(tail) = tail {
            self.write(ino, tail.index, Some(tail.version));
        }
        let attr = &mut self.node_mut(ino).attr;
        (attr.size, attr.mtime) = (*size, now);
        Ok(())
    }

    fn commit(&mut self, ino: Ino, commit: &Commit, now: Time) -> Outcome {
        let file = self.file(ino)?;
        if !commit.extents.is_sorted_by_key(|extent| extent.first) {
            return Err(refused());
        }
        let mut writes = Vec::new();
        if commit.set.truncate.is_some() {
            return Err(refused());
        }
        for extent in &commit.extents {
            if extent.first == 0 || extent.count == 0 {
                return Err(refused());
            }
            let last = extent.first.checked_add(extent.count - 1).ok_or(FsError::FileTooLarge)?;
            writes.extend((extent.first..=last).map(|index| (index, extent.version)));
        }
        writes.extend(commit.partial.iter().map(|write| (write.index, write.version)));
        let distinct: HashSet<u32> = writes.iter().map(|(index, _)| *index).collect();
        if distinct.contains(&0) || distinct.len() != writes.len() {
            return Err(refused());
        }
        writes.iter().try_for_each(|(_, version)| self.check_version(*version))?;
        let (chunk_bytes, size) = match commit.restart {
            Some(chunk_bytes) if !(1..=MAX_CHUNK_BYTES).contains(&chunk_bytes) => return Err(refused()),
            Some(_) if writes.iter().any(|(_, version)| self.is_referenced(*version)) => return Err(refused()),
            Some(chunk_bytes) => (chunk_bytes, commit.size_at_least),
            None if ![None, Some(file.attr.chunk_bytes)].contains(&commit.chunk_bytes) => {
                return Err(FsError::Stale { ino });
            }
            None => (file.attr.chunk_bytes, file.attr.size.max(commit.size_at_least)),
        };
        check_size(size, chunk_bytes.into())?;
        if writes.iter().any(|(index, _)| u64::from(index - 1) * u64::from(chunk_bytes) >= size) {
            return Err(refused());
        }
        for write in &commit.partial {
            match commit.restart {
                Some(_) if write.base.is_some() => return Err(FsError::Conflict { index: write.index }),
                Some(_) => {}
                None => self.check_base(ino, write)?,
            }
        }
        writes.sort();
        writes.iter().try_for_each(|(index, version)| self.check_alive(ino, *index, *version))?;
        if commit.restart.is_some() {
            let chunks: Vec<u32> = self.nodes[&ino].chunks.keys().copied().collect();
            chunks.into_iter().for_each(|index| self.write(ino, index, None));
        }
        writes.into_iter().for_each(|(index, version)| self.write(ino, index, Some(version)));
        let attr = &mut self.node_mut(ino).attr;
        (attr.size, attr.chunk_bytes) = (size, chunk_bytes);
        (attr.mtime, attr.ctime) = (commit.mtime.unwrap_or(now), now);
        set_plain(attr, &commit.set, now);
        Ok(Reply::Attr(self.attr(ino)))
    }

    fn check_alive(&self, ino: Ino, index: u32, version: Version) -> Result<(), FsError> {
        let mut others = self.nodes.iter().filter(|(other, _)| **other != ino);
        let elsewhere = others.any(|(_, node)| node.chunks.values().any(|current| *current == version));
        let retired = self.retired_versions.contains(&version);
        if elsewhere || retired || self.dead.contains_key(&(version, index)) {
            Err(FsError::Conflict { index })
        } else {
            Ok(())
        }
    }

    /// As the collection, but for the session's own versions, which are not retired.
    fn discard(&mut self, session: SessionId, files: &[DiscardedRuns]) -> Outcome {
        let run = |file: &FileName, run: &Extent| ChunkRun {
            file: file.clone(),
            first: run.first,
            count: run.count,
            version: run.version,
        };
        let runs: Vec<ChunkRun> =
            files.iter().flat_map(|file| file.runs.iter().map(|it| run(&file.file, it))).collect();
        let blocks = self.blocks.iter().filter(|(owner, _)| *owner == session).map(|(_, block)| *block);
        let blocks: Vec<VersionBlock> = blocks.chain([self.sessions[&session].1]).collect();
        let is_own = |run: &ChunkRun| {
            let in_block = |block: &VersionBlock| run.version.0.checked_sub(block.first.0) < Some(block.count.into());
            blocks.iter().any(|block| run.version >= block.first && in_block(block))
        };
        check_runs(&runs)?;
        let own: Vec<ChunkRun> = runs.iter().filter(|run| is_own(run)).cloned().collect();
        let retired = self.retired_versions.clone();
        let reply = self.collect_orphans(&own);
        self.retired_versions = retired;
        reply
    }

    /// Collects chunk by chunk; the number of runs is the number of their first chunks.
    fn collect_orphans(&mut self, runs: &[ChunkRun]) -> Outcome {
        check_runs(runs)?;
        let mut runs_collected = 0;
        for run in runs {
            let mut follows = false;
            for index in run.first..=run.first + (run.count - 1) {
                let current = self.nodes.values().any(|node| node.chunks.get(&index) == Some(&run.version));
                let orphaned = self.check_version(run.version).is_ok()
                    && !current
                    && !self.dead.contains_key(&(run.version, index));
                if orphaned {
                    runs_collected += u32::from(!follows);
                    self.dead.insert((run.version, index), run.file.clone());
                    self.retired_versions.insert(run.version);
                }
                follows = orphaned;
            }
        }
        Ok(Reply::Collected { runs: runs_collected })
    }

    fn purge(&mut self, before: u64, limit: u32) -> Reply {
        let gone = |(ino, node): &(&Ino, &Node)| {
            self.links(**ino) == 0 && node.holders.is_empty() && node.unnamed_since < before
        };
        let mut inos: Vec<_> = self.nodes.iter().filter(gone).map(|(ino, node)| (node.unnamed_since, *ino)).collect();
        inos.sort();
        inos.truncate(limit as usize);
        for (_, ino) in &inos {
            let chunks: Vec<u32> = self.nodes[ino].chunks.keys().copied().collect();
            chunks.into_iter().for_each(|index| self.write(*ino, index, None));
            self.nodes.remove(ino);
        }
        Reply::Purged { count: inos.len() as u32 }
    }
}

fn refused() -> FsError {
    FsError::Invalid { reason: String::new() }
}

fn check_runs(runs: &[ChunkRun]) -> Result<(), FsError> {
    let is_valid = |run: &ChunkRun| run.first > 0 && run.count > 0 && run.first.checked_add(run.count - 1).is_some();
    if runs.iter().all(is_valid) { Ok(()) } else { Err(refused()) }
}

fn check_size(size: u64, chunk_bytes: u64) -> Result<(), FsError> {
    if size.div_ceil(chunk_bytes) > u64::from(u32::MAX) { Err(FsError::FileTooLarge) } else { Ok(()) }
}

fn check_node(node: &NewNode) -> Result<(), FsError> {
    let target = &node.target;
    match node.kind {
        FileKind::Symlink if target.is_empty() => Err(FsError::Name(NameError::Empty)),
        FileKind::Symlink if target.len() > MAX_FILE_NAME_BYTES => {
            Err(FsError::Name(NameError::TooLong { len: target.len(), limit: MAX_FILE_NAME_BYTES }))
        }
        FileKind::Symlink if target.contains(&0) => Err(FsError::Name(NameError::Nul)),
        FileKind::Symlink => Ok(()),
        FileKind::File if !(1..=MAX_CHUNK_BYTES).contains(&node.chunk_bytes) => Err(refused()),
        _ if target.is_empty() => Ok(()),
        _ => Err(refused()),
    }
}

fn set_plain(attr: &mut Attr, set: &SetAttr, now: Time) {
    attr.mode = set.mode.unwrap_or(attr.mode) & 0o7777;
    attr.uid = set.uid.unwrap_or(attr.uid);
    attr.gid = set.gid.unwrap_or(attr.gid);
    attr.atime = set.atime.unwrap_or(attr.atime);
    attr.mtime = set.mtime.unwrap_or(attr.mtime);
    attr.ctime = set.ctime.unwrap_or(now);
}

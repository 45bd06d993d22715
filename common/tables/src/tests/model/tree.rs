//! The naive tree itself: searches, counts, and the few ways in which a node changes.

use super::*;

impl Model {
    pub(super) fn node(&self, ino: Ino) -> Result<&Node, FsError> {
        self.nodes.get(&ino).ok_or(FsError::Stale { ino })
    }

    pub(super) fn node_mut(&mut self, ino: Ino) -> &mut Node {
        self.nodes.get_mut(&ino).unwrap()
    }

    pub(super) fn file(&self, ino: Ino) -> Result<&Node, FsError> {
        let node = self.node(ino)?;
        match node.attr.kind {
            FileKind::File => Ok(node),
            FileKind::Directory => Err(FsError::IsDirectory),
            _ => Err(refused()),
        }
    }

    pub(super) fn is_directory(&self, ino: Ino) -> bool {
        self.nodes[&ino].attr.kind == FileKind::Directory
    }

    pub(super) fn find(&self, parent: Ino, name: &EntryName) -> Result<Option<Ino>, FsError> {
        let node = self.nodes.get(&parent).ok_or(FsError::NoEntry)?;
        if node.attr.kind != FileKind::Directory {
            return Err(FsError::NotDirectory);
        }
        Ok(node.children.get(name).copied())
    }

    pub(super) fn links(&self, ino: Ino) -> u32 {
        let node = &self.nodes[&ino];
        let count = match node.attr.kind {
            FileKind::Directory => 2 + node.children.values().filter(|child| self.is_directory(**child)).count(),
            _ => self.nodes.values().flat_map(|node| node.children.values()).filter(|child| **child == ino).count(),
        };
        count as u32
    }

    /// Returns the path with a slash at its end; empty for the root.
    pub(super) fn path(&self, directory: Ino) -> Vec<u8> {
        let Some((parent, name)) = self.parent(directory) else { return Vec::new() };
        let mut path = self.path(parent);
        path.extend_from_slice(name.as_bytes());
        path.push(b'/');
        path
    }

    pub(super) fn contains(&self, above: Ino, ino: Ino) -> bool {
        above == ino || self.nodes[&above].children.values().any(|child| self.contains(*child, ino))
    }

    pub(super) fn check_held(&self, by: Option<SessionId>, ino: Ino) -> Result<(), FsError> {
        let held = by.is_some_and(|session| self.nodes[&ino].holders.contains(&session));
        if held { Ok(()) } else { Err(FsError::NoEntry) }
    }

    pub(super) fn check_version(&self, version: Version) -> Result<(), FsError> {
        if (1..self.next_version).contains(&version.0) { Ok(()) } else { Err(refused()) }
    }

    pub(super) fn check_base(&self, ino: Ino, write: &ChunkWrite) -> Result<(), FsError> {
        let current = self.nodes[&ino].chunks.get(&write.index).copied();
        if current == write.base { Ok(()) } else { Err(FsError::Conflict { index: write.index }) }
    }

    pub(super) fn add_node(&mut self, node: &NewNode, file: FileName, now: Time) -> Ino {
        let ino = Ino(self.next_ino);
        self.next_ino += 1;
        self.add_node_as(ino, node, file, now)
    }

    pub(super) fn add_node_as(&mut self, ino: Ino, node: &NewNode, file: FileName, now: Time) -> Ino {
        let attr = Attr {
            ino,
            kind: node.kind,
            mode: node.mode & 0o7777,
            nlink: 0,
            uid: node.uid,
            gid: node.gid,
            rdev: match node.kind {
                FileKind::CharDevice | FileKind::BlockDevice => node.rdev,
                _ => 0,
            },
            size: node.target.len() as u64,
            chunk_bytes: if node.kind == FileKind::File { node.chunk_bytes } else { 0 },
            holes: 0,
            atime: now,
            mtime: now,
            ctime: now,
            change: 0,
            flags: Default::default(),
            file,
        };
        let (children, chunks) = (BTreeMap::new(), BTreeMap::new());
        let target = node.target.clone();
        let node = Node { attr, target, children, chunks, unnamed_since: self.index, holders: HashSet::new() };
        self.nodes.insert(ino, node);
        ino
    }

    pub(super) fn put(&mut self, parent: Ino, name: &EntryName, ino: Ino, now: Time) {
        let node = self.node_mut(parent);
        node.children.insert(name.clone(), ino);
        (node.attr.mtime, node.attr.ctime) = (now, now);
    }

    pub(super) fn take(&mut self, parent: Ino, name: &EntryName, now: Time) {
        let node = self.node_mut(parent);
        node.children.remove(name);
        (node.attr.mtime, node.attr.ctime) = (now, now);
    }

    pub(super) fn named(&mut self, ino: Ino, now: Time) {
        let node = self.node_mut(ino);
        node.attr.ctime = now;
        node.holders.clear();
    }

    pub(super) fn drop_link(&mut self, ino: Ino, holder: Option<SessionId>, now: Time) -> Attr {
        self.node_mut(ino).attr.ctime = now;
        let mut attr = self.attr(ino);
        if attr.kind == FileKind::Directory {
            attr.nlink = 0;
        }
        match (attr.nlink, attr.kind) {
            (0, FileKind::File) => {
                let index = self.index;
                let node = self.node_mut(ino);
                node.unnamed_since = index;
                node.holders.extend(holder);
            }
            (0, _) => drop(self.nodes.remove(&ino)),
            _ => {}
        }
        attr
    }

    pub(super) fn release(&mut self, ino: Ino, session: SessionId) {
        let index = self.index;
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        if node.holders.remove(&session) && node.holders.is_empty() {
            node.unnamed_since = index;
        }
    }

    pub(super) fn write(&mut self, ino: Ino, index: u32, version: Option<Version>) {
        let node = self.node_mut(ino);
        let file = node.attr.file.clone();
        let old = match version {
            Some(version) => node.chunks.insert(index, version).filter(|old| *old != version),
            None => node.chunks.remove(&index),
        };
        if let Some(old) = old {
            assert!(self.dead.insert((old, index), file).is_none(), "{old:?} chunk {index} died twice");
        }
    }
}

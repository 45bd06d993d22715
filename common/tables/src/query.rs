//! Queries. They change nothing, so a clone of the tables can answer them as well.

use chordfs_types::{
    chunk::{ChunkId, Version},
    fs_error::FsError,
    identity::IdentityId,
    namespace::{
        Answer, Attr, DirEntry, EntryName, Extent, FileKind, Ino, MAX_LISTED_EXTENTS, OpenedEntry, PAGE_ITEMS, Query,
    },
};

use super::{Body, Inode, Tables, invalid};

/// A page of a directory ends early when its answer would grow past this.
const PAGE_BYTES: usize = 512 * 1024;
/// The most that one entry's attributes take when encoded, names apart.
const ATTR_BYTES: usize = 160;

impl Tables {
    pub fn query(&self, query: &Query) -> Result<Answer, FsError> {
        match query {
            Query::Lookup { parent, name } => self.lookup(*parent, name).map(|inode| Answer::Attr(inode.attr.clone())),
            Query::GetAttr { ino } => Ok(Answer::Attr(self.inode(*ino)?.attr.clone())),
            Query::Open { ino } => self.open(*ino),
            Query::Extents { ino, from } => {
                self.inode(*ino)?;
                let (extents, more) = self.extent_page(*ino, *from);
                Ok(Answer::Extents { extents, more })
            }
            Query::ReadDir { ino, after } => self.read_dir(*ino, after.as_ref()),
            Query::ReadLink { ino } => self.read_link(*ino),
            Query::Resolve { path } => Ok(Answer::Attr(self.resolve(path)?.clone())),
            Query::StatFs => Ok(Answer::StatFs { inodes: self.inodes.len() as u64, bytes: self.stored_bytes }),
            Query::Dead { before, limit } => Ok(self.dead_page(*before, *limit)),
            Query::Contents { ino, first } => Ok(self.contents_page(*ino, *first)),
            Query::Unreferenced { runs } => self.unreferenced(runs),
            Query::RingConfig => Ok(Answer::RingConfig(self.config)),
            Query::OperatorTokens => Ok(Answer::OperatorTokens(self.operator_tokens())),
            Query::PoolSize => Ok(Answer::PoolSize((*self.pool_size).clone())),
            Query::Identities => Ok(self.identities.list()),
            Query::RevokedIdentities => Ok(Answer::RevokedIdentities(self.identities.revoked())),
            Query::LoggedChunks { ids } => Ok(self.logged_data(ids)),
            Query::Reachable { owner, path, versions } => Ok(self.reachable(*owner, path, versions)),
            Query::ReachableWithoutRoot { owner, path, versions, stores } => {
                Ok(self.reachable_without_root(*owner, path, versions, *stores))
            }
            Query::Xattrs { ino } => self.list_xattrs(*ino),
            Query::Locks { ino } => {
                self.inode(*ino)?;
                Ok(Answer::Locks(self.held_locks(*ino)))
            }
            Query::Clones { versions } => self.describe_clones(versions),
            Query::ReachableByClone { owner, path, without_root, ids } => {
                self.reachable_by_clone(*owner, path, *without_root, ids)
            }
            Query::OpenEntries { ino, after, limit } => self.open_entries(*ino, after.as_ref(), *limit),
        }
    }

    /// Returns whether `PurgeOrphans` with this `before` would have anything to do.
    pub fn has_purgeable(&self, before: u64) -> bool {
        self.has_leftovers() || self.unheld.get_min().is_some_and(|((since, _), ())| *since < before)
    }

    fn reachable(&self, owner: IdentityId, path: &[EntryName], versions: &[Version]) -> Answer {
        let view = self.bound_view(owner, path);
        let reaches = |version: &Version| view.is_some_and(|view| view.reaches_version(*version));
        Answer::Reachable(versions.iter().map(reaches).collect())
    }

    fn reachable_without_root(
        &self,
        owner: IdentityId,
        path: &[EntryName],
        versions: &[Version],
        stores: bool,
    ) -> Answer {
        let view = self.squashed_view(owner, path);
        let reaches = |version: &Version| view.is_some_and(|view| view.reaches_version(*version, stores));
        Answer::Reachable(versions.iter().map(reaches).collect())
    }

    fn reachable_by_clone(
        &self,
        owner: IdentityId,
        path: &[EntryName],
        without_root: bool,
        ids: &[ChunkId],
    ) -> Result<Answer, FsError> {
        if ids.len() > PAGE_ITEMS as usize {
            return Err(invalid(format!("{} chunks; at most {PAGE_ITEMS} are allowed", ids.len())));
        }
        let (bound, squashed) = (self.bound_view(owner, path), self.squashed_view(owner, path));
        let reaches = |id: &ChunkId| {
            let may_read = squashed.is_some_and(|view| view.reaches_by_clone(*id));
            if without_root { may_read } else { bound.is_some_and(|view| view.reaches_by_clone(*id)) }
        };
        Ok(Answer::Reachable(ids.iter().map(reaches).collect()))
    }

    fn lookup(&self, parent: Ino, name: &EntryName) -> Result<&Inode, FsError> {
        self.directory(parent)?;
        self.entry(parent, name).ok_or(FsError::NoEntry)
    }

    fn open(&self, ino: Ino) -> Result<Answer, FsError> {
        let attr = self.inode(ino)?.attr.clone();
        let (extents, more) = self.extent_page(ino, 1);
        Ok(Answer::Open { attr, extents, more })
    }

    fn extent_page(&self, ino: Ino, from: u32) -> (Vec<Extent>, bool) {
        let mut rest = self.extents_from(ino, from);
        let page = rest.by_ref().take(PAGE_ITEMS as usize).collect();
        (page, rest.next().is_some())
    }

    fn read_dir(&self, ino: Ino, after: Option<&EntryName>) -> Result<Answer, FsError> {
        let parent = self.directory(ino)?.parent();
        let (entries, more) = self.entry_page(ino, after, PAGE_ITEMS);
        Ok(Answer::Entries { parent, entries, more })
    }

    fn open_entries(&self, ino: Ino, after: Option<&EntryName>, limit: u32) -> Result<Answer, FsError> {
        self.directory(ino)?;
        let (entries, more) = self.entry_page(ino, after, limit.clamp(1, PAGE_ITEMS));
        let open = |entry: DirEntry| OpenedEntry { extents: self.few_extents(&entry.attr), entry };
        Ok(Answer::OpenedEntries { entries: entries.into_iter().map(open).collect(), more })
    }

    /// At most `limit` entries, and whether there are more.
    fn entry_page(&self, ino: Ino, after: Option<&EntryName>, limit: u32) -> (Vec<DirEntry>, bool) {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for (name, inode) in self.children(ino, after) {
            let entry = DirEntry { name: name.clone(), attr: inode.attr.clone() };
            bytes += encoded_bytes(&entry);
            if entries.len() == limit as usize || (bytes > PAGE_BYTES && !entries.is_empty()) {
                return (entries, true);
            }
            entries.push(entry);
        }
        (entries, false)
    }

    /// The extents of a file that has few.
    fn few_extents(&self, attr: &Attr) -> Option<Vec<Extent>> {
        if attr.kind != FileKind::File {
            return None;
        }
        let extents: Vec<Extent> = self.extents_from(attr.ino, 1).take(MAX_LISTED_EXTENTS + 1).collect();
        (extents.len() <= MAX_LISTED_EXTENTS).then_some(extents)
    }

    fn read_link(&self, ino: Ino) -> Result<Answer, FsError> {
        match &self.inode(ino)?.body {
            Body::Symlink { target, .. } => Ok(Answer::Target(target.clone())),
            _ => Err(invalid("not a symlink")),
        }
    }

    fn resolve(&self, path: &[EntryName]) -> Result<&Attr, FsError> {
        let found = path.iter().try_fold(Ino::ROOT, |at, name| Ok(self.lookup(at, name)?.attr.ino))?;
        Ok(&self.inode(found)?.attr)
    }

    /// The inodes on the way along `path`, the root first, as far as it leads to any.
    pub fn along(&self, path: &[EntryName]) -> Vec<Ino> {
        let mut inos = vec![Ino::ROOT];
        for name in path {
            let Some(found) = inos.last().and_then(|at| self.entry(*at, name)) else { break };
            inos.push(found.attr.ino);
        }
        inos
    }

    /// Returns the oldest dead runs. A run that a file has is never listed, even if it is on the dead list.
    fn dead_page(&self, before: u64, limit: u32) -> Answer {
        let old = self.dead.iter().take_while(|(_, dead)| dead.since < before);
        let old = old.filter(|(_, dead)| !self.is_current(&dead.run));
        Answer::Dead(old.take(limit as usize).map(|(id, dead)| (*id, dead.run.clone())).collect())
    }
}

fn encoded_bytes(entry: &DirEntry) -> usize {
    entry.name.as_bytes().len() + entry.attr.file.as_bytes().len() + ATTR_BYTES
}

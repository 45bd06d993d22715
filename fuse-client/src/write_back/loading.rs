//! Learning directories: when a change in a directory had to go to the leader, all its names are fetched, so that the
//! next ones need not. Changes in it wait meanwhile, which makes the list complete: otherwise busy programs would keep
//! it from ever being so. Where directories are is learnt from the answers that pass by.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
    sync::Arc,
};

use chordfs_net::{clients::ChangeLog, operation, tasks};
use chordfs_types::{
    fs_error::FsError,
    namespace::{Answer, Attr, DirEntry, EntryName, FileKind, Ino, Query},
};
use lru::LruCache;

use super::{WriteBack, WriteBackState, mirror::ListedDirectory, not_in_time};

/// A directory with more entries is not learnt.
const MAX_ENTRIES: usize = 16_384;
/// How many directories are remembered to be too large.
const MAX_TOO_LARGE: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// Which directories are being learnt, and what has changed since that began.
pub(super) struct DirectoryLoads {
    /// Whether something has changed in each since.
    loading: HashMap<Ino, bool>,
    /// Inodes that have changed while any directory was being learnt.
    disturbed: HashSet<Ino>,
    too_large: LruCache<Ino, ()>,
}

impl Default for DirectoryLoads {
    fn default() -> Self {
        Self { loading: HashMap::new(), disturbed: HashSet::new(), too_large: LruCache::new(MAX_TOO_LARGE) }
    }
}

impl DirectoryLoads {
    pub(super) fn is_loading(&self, directory: Ino) -> bool {
        self.loading.contains_key(&directory)
    }

    /// Notes that the inodes change, or have changed.
    pub(super) fn disturb(&mut self, inos: &[Ino]) {
        if self.loading.is_empty() {
            return;
        }
        for ino in inos {
            self.loading.entry(*ino).and_modify(|is_disturbed| *is_disturbed = true);
        }
        self.disturbed.extend(inos);
    }

    pub(super) fn disturb_all(&mut self) {
        self.loading.values_mut().for_each(|is_disturbed| *is_disturbed = true);
    }

    fn begin(&mut self, directory: Ino) -> bool {
        !self.too_large.contains(&directory) && self.loading.insert(directory, false).is_none()
    }

    /// Returns true if nothing has changed in the directory meanwhile.
    fn end(&mut self, directory: Ino) -> bool {
        self.loading.remove(&directory) == Some(false)
    }

    fn forget_disturbances(&mut self) {
        if self.loading.is_empty() {
            self.disturbed.clear();
        }
    }
}

impl WriteBack {
    /// Learns a directory in the background, if this mount holds it alone.
    pub(super) fn load_soon(&self, directory: Ino) {
        let begins = {
            let mut state = self.state.lock();
            let is_worth_it = self.log.is_sole(directory) && !state.mirror.is_complete(directory);
            is_worth_it && !state.busy.contains_key(&directory) && state.loads.begin(directory)
        };
        if begins {
            tasks::spawn(self.this().load(directory));
        }
    }

    pub(super) async fn wait_loaded(&self, directory: Ino) -> Result<(), FsError> {
        let mut loaded = self.loaded.subscribe();
        let is_loaded = |_: &u64| !self.state.lock().loads.is_loading(directory);
        match operation::within(loaded.wait_for(is_loaded)).await {
            Some(_) => Ok(()),
            None => Err(not_in_time("a folder that was not known here is still being listed")),
        }
    }

    async fn load(self: Arc<Self>, directory: Ino) {
        let listed = self.list(directory).await;
        {
            let mut state = self.state.lock();
            let is_current = state.loads.end(directory) && self.is_usable();
            match listed {
                Ok(Some((parent, attr, entries))) if is_current && self.log.is_sole(directory) => {
                    state.learn_listed(directory, parent, attr, entries, &*self.log);
                }
                Ok(None) => drop(state.loads.too_large.put(directory, ())),
                // The next change in it tries again.
                Ok(Some(_)) | Err(_) => {}
            }
            state.loads.forget_disturbances();
        }
        self.loaded.send_modify(|loaded| *loaded += 1);
    }

    /// Returns what `..` is, the attributes, and all entries. `None` if there are too many.
    async fn list(&self, directory: Ino) -> Result<Option<(Ino, Attr, Vec<DirEntry>)>, FsError> {
        let mut entries: Vec<DirEntry> = Vec::new();
        let parent = loop {
            let after = entries.last().map(|entry| entry.name.clone());
            match self.log.query(Query::ReadDir { ino: directory, after }).await? {
                Answer::Entries { parent, entries: page, more } => {
                    entries.extend(page);
                    if entries.len() > MAX_ENTRIES {
                        return Ok(None);
                    }
                    if !more {
                        break parent;
                    }
                }
                other => return Err(unexpected(&other)),
            }
        };
        match self.log.query(Query::GetAttr { ino: directory }).await? {
            Answer::Attr(attr) => Ok(Some((parent, attr, entries))),
            other => Err(unexpected(&other)),
        }
    }
}

impl WriteBackState {
    fn learn_listed(&mut self, directory: Ino, parent: Ino, attr: Attr, entries: Vec<DirEntry>, log: &dyn ChangeLog) {
        let up = self.paths.up(directory).filter(|(above, _)| *above == parent).cloned();
        if up.is_none() && directory != Ino::ROOT {
            return;
        }
        entries.iter().for_each(|entry| self.note_path(directory, &entry.name, &entry.attr));
        self.learn(ListedDirectory { attr, up, entries }, log);
    }

    /// Learns a directory that the leader has just made for this mount: it is empty.
    pub(super) fn learn_new_directory(&mut self, parent: Ino, name: &EntryName, attr: &Attr, log: &dyn ChangeLog) {
        if log.is_sole(attr.ino) {
            let up = Some((parent, name.clone()));
            self.learn(ListedDirectory { attr: attr.clone(), up, entries: Vec::new() }, log);
        }
    }

    fn learn(&mut self, listed: ListedDirectory, log: &dyn ChangeLog) {
        let (busy, queue, disturbed) = (&self.busy, &self.queue, &self.loads.disturbed);
        let is_sole = |ino: Ino| !busy.contains_key(&ino) && !disturbed.contains(&ino) && log.is_sole(ino);
        self.mirror.learn_directory(listed, &is_sole, &|ino| queue.has_unlogged(ino));
    }

    pub(super) fn note_paths(&mut self, query: &Query, answer: &Result<Answer, FsError>) {
        match (query, answer) {
            (Query::Lookup { parent, name }, Ok(Answer::Attr(attr))) => self.note_path(*parent, name, attr),
            (Query::ReadDir { ino, .. }, Ok(Answer::Entries { entries, .. })) => {
                entries.iter().for_each(|entry| self.note_path(*ino, &entry.name, &entry.attr));
            }
            (Query::OpenEntries { ino, .. }, Ok(Answer::OpenedEntries { entries, .. })) => {
                entries.iter().for_each(|opened| self.note_path(*ino, &opened.entry.name, &opened.entry.attr));
            }
            _ => {}
        }
    }

    pub(super) fn note_path(&mut self, parent: Ino, name: &EntryName, attr: &Attr) {
        if attr.kind == FileKind::Directory {
            self.put_path(attr.ino, parent, name);
        }
    }

    /// What is forgotten here is forgotten in the mirror, too: a change might concern it without being noticed.
    pub(super) fn put_path(&mut self, directory: Ino, parent: Ino, name: &EntryName) {
        if let Some(forgotten) = self.paths.put(directory, parent, name.clone()) {
            self.mirror.forget(forgotten);
        }
    }
}

fn unexpected(answer: &Answer) -> FsError {
    FsError::Internal { detail: format!("learning a directory: unexpected reply from the namespace: {answer:?}") }
}

//! Files that are being sent. A download may last for hours; its file stays although its name is removed or replaced.
//!
//! The namespace deletes a file without a name once every session has answered that it does not hold it. So this node
//! holds a file that it is reading as soon as it learns that the last name is gone: from the change feed, or because it
//! removed the name itself. Readers of one file share the hold, because a session holds a file once.

use std::{collections::HashMap, sync::Arc};

use chordfs_log::warn_limited;
use chordfs_net::clients::NamespaceClient;
use chordfs_types::namespace::{Change, Ino, MAX_HOLDS};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::{FileService, whole_upload::release};

/// The files that this node is sending.
#[derive(Default)]
pub struct FilesRead(Mutex<HashMap<Ino, FileReaders>>);

#[derive(Default)]
struct FileReaders {
    count: usize,
    /// True once a hold was requested.
    is_held: bool,
}

impl FilesRead {
    /// Holds those of `inos` that are being read. They have lost their last names.
    pub async fn hold_some(&self, namespace: &dyn NamespaceClient, inos: impl IntoIterator<Item = Ino>) {
        let held = inos.into_iter().filter(|&ino| self.mark_held(ino)).collect();
        hold(namespace, held).await;
    }

    /// Holds all files that are being read and have no name: the feed was interrupted, and events may have been lost.
    pub async fn hold_all(&self, namespace: &dyn NamespaceClient) {
        let all: Vec<Ino> = self.0.lock().keys().copied().collect();
        self.hold_some(namespace, all).await;
    }

    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    pub fn contains(&self, ino: Ino) -> bool {
        self.0.lock().contains_key(&ino)
    }

    fn add(&self, ino: Ino) {
        self.0.lock().entry(ino).or_default().count += 1;
    }

    /// Returns false if nobody reads the file.
    fn mark_held(&self, ino: Ino) -> bool {
        self.0.lock().get_mut(&ino).map(|readers| readers.is_held = true).is_some()
    }

    /// Returns true if that was the last reader of a held file.
    fn remove(&self, ino: Ino) -> bool {
        let mut all = self.0.lock();
        let Some(readers) = all.get_mut(&ino) else { return false };
        readers.count -= 1;
        readers.count == 0 && all.remove(&ino).is_some_and(|readers| readers.is_held)
    }
}

async fn hold(namespace: &dyn NamespaceClient, inos: Vec<Ino>) {
    for some in inos.chunks(MAX_HOLDS) {
        if let Err(error) = namespace.apply(Change::HoldOrphans { inos: some.to_vec() }).await {
            warn_limited!(
                %error, files = some.len(),
                "cannot hold removed files that are being downloaded; downloads may break off"
            );
        }
    }
}

/// Keeps a file until it is dropped.
pub(super) struct ReadingHold {
    service: FileService,
    ino: Ino,
}

impl ReadingHold {
    pub(super) fn new(service: &FileService, ino: Ino) -> Self {
        service.read.add(ino);
        Self { service: service.clone(), ino }
    }
}

impl Drop for ReadingHold {
    fn drop(&mut self) {
        if self.service.read.remove(self.ino)
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(release(Arc::clone(&self.service.namespace), self.ino));
        }
    }
}

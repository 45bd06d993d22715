//! Renaming: one change at the namespace, and its effect on the cached names.

use chordfs_types::{
    fs_error::FsError,
    namespace::{Change, EntryName, Ino, RenameMode, Reply},
};

use super::{FileSystem, unexpected};

/// One end of a rename.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryLocation {
    pub parent: Ino,
    pub name: EntryName,
}

impl FileSystem {
    pub async fn rename(&self, from: &EntryLocation, to: &EntryLocation, mode: RenameMode) -> Result<(), FsError> {
        let stamp = self.cache.stamp();
        let replaced = match mode {
            RenameMode::Replace => self.open_inode(to.parent, &to.name).await,
            RenameMode::NoReplace | RenameMode::Exchange => None,
        };
        let removal = self.begin_removal(replaced);
        let _under_way = (self.begin_own_removal(from.parent, &from.name), self.begin_own_removal(to.parent, &to.name));
        let change = Change::Rename {
            parent: from.parent,
            name: from.name.clone(),
            new_parent: to.parent,
            new_name: to.name.clone(),
            mode,
            hold: removal.holds(),
        };
        let reply = self.namespace.apply(change).await.inspect_err(|error| {
            self.drop_both_names(from, to);
            self.removal_failed(&removal, error);
        })?;
        self.cache.renamed(stamp, (from.parent, &from.name), (to.parent, &to.name), mode == RenameMode::Exchange);
        match reply {
            Reply::Removed { attr } => self.name_removed(stamp, attr, &removal),
            Reply::Done => {}
            other => return Err(unexpected("renaming", &other)),
        }
        Ok(())
    }

    fn drop_both_names(&self, from: &EntryLocation, to: &EntryLocation) {
        self.cache.drop_name(from.parent, &from.name);
        self.cache.drop_name(to.parent, &to.name);
    }
}

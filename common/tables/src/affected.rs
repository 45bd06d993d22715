//! What a change depends on: the inodes that it reads or changes by the tables as they are now, and the names that lead
//! it to them. Whoever answers changes before they are logged needs the inodes for itself, and everybody else has to
//! wait for that session before their change of the inodes is logged.
//!
//! Names lead to other inodes after another change, so what is told here holds only until then. Changes that name the
//! same entry are therefore ordered by the names themselves, and so are moves of directories, whose check that no
//! directory comes to lie inside itself reads the directories above.

use chordfs_types::namespace::{Change, EntryName, Ino, RenameMode};

use super::{Inode, Tables};

/// The directories and names that a change names.
pub fn names_of(change: &Change) -> Vec<(Ino, &EntryName)> {
    match change {
        Change::Make { parent, name, .. }
        | Change::MakeNumbered { parent, name, .. }
        | Change::MakeMasked { parent, name, .. }
        | Change::Publish { parent, name, .. }
        | Change::Link { parent, name, .. }
        | Change::Unlink { parent, name, .. }
        | Change::Rmdir { parent, name } => vec![(*parent, name)],
        Change::Rename { parent, name, new_parent, new_name, .. } => vec![(*parent, name), (*new_parent, new_name)],
        Change::OpenSession { .. }
        | Change::OpenOwnedSession { .. }
        | Change::CloseSession { .. }
        | Change::SuspendSession { .. }
        | Change::ResumeSession { .. }
        | Change::AllocateVersions { .. }
        | Change::AllocateInos { .. }
        | Change::MakeUnnamed { .. }
        | Change::SetAttr { .. }
        | Change::SetXattr { .. }
        | Change::RemoveXattr { .. }
        | Change::PunchHole { .. }
        | Change::CloneRange { .. }
        | Change::Touch { .. }
        | Change::Lock { .. }
        | Change::Unlock { .. }
        | Change::CancelLock { .. }
        | Change::KeepLocks { .. }
        | Change::Commit { .. }
        | Change::CommitWithData { .. }
        | Change::ForgetLogged { .. }
        | Change::Hold { .. }
        | Change::Release { .. }
        | Change::PurgeOrphans { .. }
        | Change::ForgetDead { .. }
        | Change::CollectOrphans { .. }
        | Change::FoundRoot { .. }
        | Change::HoldOrphans { .. }
        | Change::Discard { .. }
        | Change::Configure { .. }
        | Change::AcceptOperatorToken { .. }
        | Change::RevokeOperatorToken { .. }
        | Change::ResizePool { .. }
        | Change::Invite { .. }
        | Change::Admit { .. }
        | Change::RevokeIdentity { .. } => Vec::new(),
    }
}

/// The inodes that a change names by their numbers.
pub fn inodes_of(change: &Change) -> impl Iterator<Item = Ino> + use<> {
    let source = match change {
        Change::CloneRange { from, .. } => Some(*from),
        _ => None,
    };
    inode_of(change).into_iter().chain(source)
}

/// The inode that a change concerns, and names by its number.
fn inode_of(change: &Change) -> Option<Ino> {
    match change {
        Change::Link { ino, .. }
        | Change::Publish { ino, .. }
        | Change::SetAttr { ino, .. }
        | Change::SetXattr { ino, .. }
        | Change::RemoveXattr { ino, .. }
        | Change::PunchHole { ino, .. }
        | Change::CloneRange { ino, .. }
        | Change::Lock { ino, .. }
        | Change::Unlock { ino, .. }
        | Change::CancelLock { ino, .. }
        | Change::KeepLocks { ino, .. }
        | Change::Commit { ino, .. }
        | Change::CommitWithData { ino, .. } => Some(*ino),
        Change::FoundRoot { .. } => Some(Ino::ROOT),
        _ => None,
    }
}

impl Tables {
    /// The inodes that the change reads or changes: the directories of all names in it, what these names refer to, and
    /// the inodes that it names by number; also, for a directory that moves into another one, everything above its new
    /// place. Each once, and only inodes that exist: others can know no inode that is yet to be created.
    pub fn affected(&self, change: &Change) -> Vec<Ino> {
        let mut inos: Vec<Ino> = names_of(change).into_iter().flat_map(|name| self.at_name(name)).collect();
        inos.extend(inodes_of(change));
        if let Change::Rename { parent, new_parent, .. } = change
            && self.moves_directory(change)
        {
            inos.extend(self.above(*parent).chain(self.above(*new_parent)));
        }
        inos.retain(|ino| self.inodes.contains_key(ino));
        inos.sort();
        inos.dedup();
        inos
    }

    /// Whether the change moves a directory into another one.
    pub fn moves_directory(&self, change: &Change) -> bool {
        let Change::Rename { parent, name, new_parent, new_name, mode, .. } = change else { return false };
        let is_directory = |parent: Ino, name: &EntryName| self.entry(parent, name).is_some_and(Inode::is_directory);
        let swaps = *mode == RenameMode::Exchange && is_directory(*new_parent, new_name);
        parent != new_parent && (swaps || is_directory(*parent, name))
    }

    fn at_name(&self, (parent, name): (Ino, &EntryName)) -> impl Iterator<Item = Ino> + use<> {
        [Some(parent), self.entry(parent, name).map(|inode| inode.attr.ino)].into_iter().flatten()
    }

    fn above(&self, directory: Ino) -> impl Iterator<Item = Ino> {
        self.upwards(directory).map(|inode| inode.attr.ino)
    }
}

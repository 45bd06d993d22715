//! Rename, in its three modes. Only names move: contents and NAME stay as they are.

use std::sync::Arc;

use chordfs_types::{
    fs_error::FsError,
    namespace::{Attr, EntryName, Ino, RenameMode, Reply},
};

use super::{Body, Inode, MAX_LINKS, Tables, Transaction};

type DentryRef<'a> = (Ino, &'a EntryName);

impl Transaction<'_> {
    pub(super) fn rename(
        &mut self,
        from: DentryRef,
        to: DentryRef,
        mode: RenameMode,
        hold: bool,
    ) -> Result<Reply, FsError> {
        let tables = &*self.tables;
        tables.directory(from.0)?;
        tables.directory(to.0)?;
        let source = tables.entry(from.0, from.1).ok_or(FsError::NoEntry)?;
        let target = tables.entry(to.0, to.1);
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return Err(FsError::Exists),
            (RenameMode::Exchange, None) => return Err(FsError::NoEntry),
            // Both names refer to one inode: POSIX requires that nothing changes.
            (_, Some(target)) if target.attr.ino == source.attr.ino => return Ok(Reply::Removed { attr: None }),
            _ => {}
        }
        tables.check_not_into(source, to.0)?;
        match (mode, target) {
            (RenameMode::Exchange, Some(target)) => {
                tables.check_not_into(target, from.0)?;
                let (source, target) = (MovedInode::of(source), MovedInode::of(target));
                tables.check_both(source, target, from.0, to.0)?;
                self.exchange(from, source, to, target);
                Ok(Reply::Removed { attr: None })
            }
            (_, target) => {
                check_replaceable(tables, source, target)?;
                let target = target.map(MovedInode::of);
                tables.check_room(MovedInode::of(source), target, from.0, to.0)?;
                let attr = self.replace(from, MovedInode::of(source), to, target, hold);
                Ok(Reply::Removed { attr })
            }
        }
    }

    fn replace(
        &mut self,
        from: DentryRef,
        source: MovedInode,
        to: DentryRef,
        target: Option<MovedInode>,
        hold: bool,
    ) -> Option<Attr> {
        let replaced = target.map(|target| {
            self.remove_name(to.0, to.1, target.is_directory);
            if target.is_directory { self.drop_directory(target.ino) } else { self.drop_link(target.ino, to.0, hold) }
        });
        self.remove_name(from.0, from.1, source.is_directory);
        self.attach(source, to);
        replaced
    }

    fn exchange(&mut self, from: DentryRef, source: MovedInode, to: DentryRef, target: MovedInode) {
        self.remove_name(from.0, from.1, source.is_directory);
        self.remove_name(to.0, to.1, target.is_directory);
        self.attach(source, to);
        self.attach(target, from);
    }

    fn attach(&mut self, moved: MovedInode, to: DentryRef) {
        self.add_name(to.0, to.1, moved.ino, moved.is_directory);
        self.edit(moved.ino, |inode| {
            if let Body::Directory { up } = &mut inode.body {
                *up = Some((to.0, to.1.clone()));
            }
        });
    }
}

/// The properties of an inode that a move depends on.
#[derive(Clone, Copy)]
struct MovedInode {
    ino: Ino,
    is_directory: bool,
}

impl MovedInode {
    fn of(inode: &Inode) -> Self {
        Self { ino: inode.attr.ino, is_directory: inode.is_directory() }
    }
}

impl Tables {
    fn check_not_into(&self, moved: &Inode, directory: Ino) -> Result<(), FsError> {
        let inside = moved.is_directory() && self.upwards(directory).any(|above| above.attr.ino == moved.attr.ino);
        if inside { Err(FsError::IntoItself) } else { Ok(()) }
    }

    /// Refuses the move if the directory that `source` moves to has no room for another subdirectory.
    fn check_room(&self, source: MovedInode, target: Option<MovedInode>, from: Ino, to: Ino) -> Result<(), FsError> {
        let grows = source.is_directory && from != to && !target.is_some_and(|target| target.is_directory);
        let full = self.inodes.get(&to).map(Arc::as_ref).is_some_and(|to| to.attr.nlink >= MAX_LINKS);
        if grows && full { Err(FsError::TooManyLinks) } else { Ok(()) }
    }

    fn check_both(&self, source: MovedInode, target: MovedInode, from: Ino, to: Ino) -> Result<(), FsError> {
        self.check_room(source, Some(target), from, to)?;
        self.check_room(target, Some(source), to, from)
    }
}

fn check_replaceable(tables: &Tables, source: &Inode, target: Option<&Inode>) -> Result<(), FsError> {
    let Some(target) = target else { return Ok(()) };
    match (source.is_directory(), target.is_directory()) {
        (true, false) => Err(FsError::NotDirectory),
        (false, true) => Err(FsError::IsDirectory),
        (true, true) if !tables.is_empty(target.attr.ino) => Err(FsError::NotEmpty),
        _ => Ok(()),
    }
}

//! The tables as snapshots of format 13 hold them: sessions have no owners, and only directories know their parents.

use bytes::Bytes;
use chordfs_types::namespace::{Attr, EntryName, Ino};
use serde::Deserialize;

use super::{
    Body, Inode, LoggedChunks, Tables, format_9::FormerTables, identities::Identities, sessions::SessionRecord,
};

/// Read whole, and then turned into [`Tables`].
#[derive(Deserialize)]
pub struct TablesOfFormat13 {
    former: FormerTables<SessionRecord>,
    logged_chunks: LoggedChunks,
    identities: Identities,
}

impl From<TablesOfFormat13> for Tables {
    fn from(TablesOfFormat13 { former, logged_chunks, identities }: TablesOfFormat13) -> Self {
        Self { logged_chunks, identities, ..former.into() }
    }
}

/// An inode before it knew its parent.
#[derive(Clone, Deserialize)]
pub(super) struct InodeOfFormat13 {
    attr: Attr,
    body: BodyOfFormat13,
}

#[derive(Clone, Deserialize)]
enum BodyOfFormat13 {
    Plain,
    Directory { up: Option<(Ino, EntryName)> },
    Symlink { target: Bytes },
}

impl From<InodeOfFormat13> for Inode {
    fn from(InodeOfFormat13 { attr, body }: InodeOfFormat13) -> Self {
        let body = match body {
            BodyOfFormat13::Plain => Body::Plain { parent: None },
            BodyOfFormat13::Directory { up } => Body::Directory { up },
            BodyOfFormat13::Symlink { target } => Body::Symlink { target, parent: None },
        };
        Self { attr, body }
    }
}

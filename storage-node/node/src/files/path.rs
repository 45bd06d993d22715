//! Resolves paths to attributes, through symlinks.
//!
//! Most paths contain no symlink and cost one round trip. Only a path with a symlink is walked name by name, with the
//! targets of the symlinks spliced in. A target outside the tree, which includes every absolute one, does not resolve:
//! the tree does not know where it is mounted.

use chordfs_net::clients::NamespaceClient;
use std::collections::VecDeque;

use chordfs_types::{
    fs_error::FsError,
    namespace::{Answer, Attr, EntryName, FileKind, Ino, Query},
};

use super::unexpected;

/// The most symlinks in one path.
pub const MAX_SYMLINK_HOPS: u32 = 8;

/// The attributes at a path, never those of a symlink. Errors: `NoEntry` also if a symlink leaves the tree, or if there
/// are too many.
pub async fn resolve(namespace: &dyn NamespaceClient, path: &[EntryName]) -> Result<Attr, FsError> {
    match namespace.query(Query::Resolve { path: path.to_vec() }).await {
        Ok(Answer::Attr(attr)) if attr.kind != FileKind::Symlink => Ok(attr),
        Ok(Answer::Attr(_)) | Err(FsError::NotDirectory) => walk(namespace, path).await,
        Ok(other) => Err(unexpected("Resolve", &other)),
        Err(error) => Err(error),
    }
}

enum PathStep {
    Up,
    Down(EntryName),
}

async fn walk(namespace: &dyn NamespaceClient, path: &[EntryName]) -> Result<Attr, FsError> {
    let mut todo: VecDeque<PathStep> = path.iter().cloned().map(PathStep::Down).collect();
    let mut trail = vec![get_attr(namespace, Ino::ROOT).await?];
    let mut hops = 0;
    while let Some(step) = todo.pop_front() {
        let PathStep::Down(name) = step else {
            trail.pop();
            if trail.is_empty() {
                return Err(FsError::NoEntry);
            }
            continue;
        };
        let parent = trail.last().expect("the root stays on the trail").ino;
        let attr = lookup(namespace, parent, name).await?;
        if attr.kind != FileKind::Symlink {
            trail.push(attr);
            continue;
        }
        hops += 1;
        if hops > MAX_SYMLINK_HOPS {
            return Err(FsError::NoEntry);
        }
        for step in read_link(namespace, attr.ino).await?.into_iter().rev() {
            todo.push_front(step);
        }
    }
    Ok(trail.pop().expect("the root stays on the trail"))
}

async fn get_attr(namespace: &dyn NamespaceClient, ino: Ino) -> Result<Attr, FsError> {
    match namespace.query(Query::GetAttr { ino }).await? {
        Answer::Attr(attr) => Ok(attr),
        other => Err(unexpected("GetAttr", &other)),
    }
}

async fn lookup(namespace: &dyn NamespaceClient, parent: Ino, name: EntryName) -> Result<Attr, FsError> {
    match namespace.query(Query::Lookup { parent, name }).await? {
        Answer::Attr(attr) => Ok(attr),
        other => Err(unexpected("Lookup", &other)),
    }
}

async fn read_link(namespace: &dyn NamespaceClient, ino: Ino) -> Result<Vec<PathStep>, FsError> {
    let target = match namespace.query(Query::ReadLink { ino }).await? {
        Answer::Target(target) => target,
        other => return Err(unexpected("ReadLink", &other)),
    };
    if target.first() == Some(&b'/') {
        return Err(FsError::NoEntry);
    }
    let parts = target.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.map(step).collect()
}

fn step(part: &[u8]) -> Result<PathStep, FsError> {
    match part {
        b".." => Ok(PathStep::Up),
        name => Ok(PathStep::Down(EntryName::new(name.to_vec()).map_err(|_| FsError::NoEntry)?)),
    }
}

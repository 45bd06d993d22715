//! A folder as the root of a tree: callers that are bound to it see nothing above it. Every name that a caller gives
//! begins at the root, so it is enough to put the folder in the root's place.

use std::sync::Arc;

use chordfs_net::clients::{FsResult, NamespaceClient};
use chordfs_types::{
    chunk::Version,
    fs_error::FsError,
    namespace::{Answer, Change, EntryName, FileKind, Ino, Query, Reply},
};

pub(crate) struct RootedNamespace {
    inner: Arc<dyn NamespaceClient>,
    folder: Vec<EntryName>,
}

impl RootedNamespace {
    pub(crate) fn new(inner: Arc<dyn NamespaceClient>, folder: Vec<EntryName>) -> Self {
        Self { inner, folder }
    }

    /// The folder's inode now: it may be renamed or replaced at any time.
    async fn root(&self) -> Result<Ino, FsError> {
        match self.inner.query(Query::Resolve { path: self.folder.clone() }).await {
            Ok(Answer::Attr(attr)) if attr.kind == FileKind::Directory => Ok(attr.ino),
            Ok(_) | Err(FsError::NoEntry | FsError::NotDirectory) => {
                let names: Vec<String> = self.folder.iter().map(ToString::to_string).collect();
                let reason = format!("there is no folder /{}, to which plain connections are bound", names.join("/"));
                Err(FsError::NotPermitted { reason })
            }
            Err(error) => Err(error),
        }
    }

    /// A path that leads nowhere may do so because the folder is missing, which is said instead.
    async fn resolve(&self, path: Vec<EntryName>) -> Result<Answer, FsError> {
        let found = self.inner.query(Query::Resolve { path: [&self.folder[..], &path].concat() }).await;
        if let Err(FsError::NoEntry | FsError::NotDirectory) = found {
            self.root().await?;
        }
        found
    }

    async fn put_folder_at(&self, roots: Vec<&mut Ino>) -> Result<(), FsError> {
        let roots: Vec<&mut Ino> = roots.into_iter().filter(|ino| **ino == Ino::ROOT).collect();
        if !roots.is_empty() {
            let folder = self.root().await?;
            roots.into_iter().for_each(|root| *root = folder);
        }
        Ok(())
    }
}

impl NamespaceClient for RootedNamespace {
    fn apply(&self, mut change: Change) -> FsResult<'_, Reply> {
        Box::pin(async move {
            self.put_folder_at(inodes_of_change(&mut change)).await?;
            self.inner.apply(change).await
        })
    }

    fn query(&self, mut query: Query) -> FsResult<'_, Answer> {
        Box::pin(async move {
            if let Query::Resolve { path } = query {
                return self.resolve(path).await;
            }
            self.put_folder_at(inodes_of_query(&mut query)).await?;
            self.inner.query(query).await
        })
    }

    fn next_version(&self) -> FsResult<'_, Version> {
        self.inner.next_version()
    }
}

fn inodes_of_query(query: &mut Query) -> Vec<&mut Ino> {
    match query {
        Query::Lookup { parent: ino, .. }
        | Query::GetAttr { ino }
        | Query::Open { ino }
        | Query::Extents { ino, .. }
        | Query::ReadDir { ino, .. }
        | Query::OpenEntries { ino, .. }
        | Query::Xattrs { ino }
        | Query::Locks { ino }
        | Query::ReadLink { ino } => vec![ino],
        _ => Vec::new(),
    }
}

fn inodes_of_change(change: &mut Change) -> Vec<&mut Ino> {
    match change {
        Change::Rename { parent, new_parent, .. } => vec![parent, new_parent],
        Change::Make { parent: ino, .. }
        | Change::MakeNumbered { parent: ino, .. }
        | Change::MakeMasked { parent: ino, .. }
        | Change::Publish { parent: ino, .. }
        | Change::Link { parent: ino, .. }
        | Change::Unlink { parent: ino, .. }
        | Change::Rmdir { parent: ino, .. }
        | Change::SetAttr { ino, .. }
        | Change::SetXattr { ino, .. }
        | Change::RemoveXattr { ino, .. }
        | Change::PunchHole { ino, .. } => vec![ino],
        Change::CloneRange { from, ino, .. } => vec![from, ino],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{FileDefaults, FileService, PathTarget, fakes::FakeChunks, fakes::FakeNamespace};

    fn path(text: &str) -> Vec<EntryName> {
        text.split('/').map(|name| EntryName::new(name.to_owned()).unwrap()).collect()
    }

    /// A tree with a folder to which a service is bound, and the service.
    fn bound() -> (Arc<FakeNamespace>, FileService) {
        let namespace = Arc::<FakeNamespace>::default();
        let scripts = namespace.make(Ino::ROOT, "scripts", FileKind::Directory, "");
        namespace.make(Ino::ROOT, "secret", FileKind::File, "");
        namespace.make(scripts, "own", FileKind::File, "");
        namespace.make(scripts, "above", FileKind::Symlink, "../secret");
        namespace.make(scripts, "beside", FileKind::Symlink, "own");
        let rooted = Arc::new(RootedNamespace::new(namespace.clone(), path("scripts")));
        (namespace, FileService::over(rooted, Arc::<FakeChunks>::default(), FileDefaults::default()))
    }

    #[tokio::test]
    async fn nothing_above_the_folder_is_found_by_any_path() {
        let (_, service) = bound();
        for inside in ["own", "beside"] {
            assert!(matches!(service.open(&path(inside)).await, Ok(PathTarget::File(_))), "{inside}");
        }
        for outside in ["secret", "scripts", "above", "scripts/own"] {
            assert!(matches!(service.open(&path(outside)).await, Err(FsError::NoEntry)), "{outside}");
        }
        let mut walk = service.walk(Ino::ROOT);
        let mut names = Vec::new();
        while let Some(batch) = walk.next_batch().await.unwrap() {
            names.extend(batch.entries.into_iter().map(|entry| entry.name.to_string()));
        }
        assert_eq!(names, ["above", "beside", "own"]);
    }

    #[tokio::test]
    async fn what_is_written_and_removed_lies_in_the_folder() {
        let (namespace, service) = bound();
        for name in ["new", "secret", "deep/new"] {
            let mut upload = service.begin_upload(&path(name)).await.unwrap();
            upload.complete().await.unwrap();
            upload.publish(&path(name), crate::files::PublishMode::Replace).await.unwrap();
        }
        service.remove(&path("own")).await.unwrap();
        let listed = service.list(Ino::ROOT, None).await.unwrap();
        let names: Vec<String> = listed.entries.iter().map(|entry| entry.name.to_string()).collect();
        assert_eq!(names, ["above", "beside", "deep", "new", "secret"]);
        assert!(namespace.attr("new").is_none() && namespace.attr("deep").is_none());
        assert!(service.remove(&path("scripts")).await.is_err() && namespace.attr("scripts").is_some());
    }

    #[tokio::test]
    async fn without_the_folder_it_is_said_which_one_is_missing() {
        let (namespace, service) = bound();
        namespace.rename("scripts", "elsewhere");
        let listed = service.list(Ino::ROOT, None).await.map(drop);
        let opened = service.open(&path("own")).await.map(drop);
        for refused in [listed, opened] {
            assert!(refused.as_ref().is_err_and(|error| error.to_string().contains("/scripts")), "{refused:?}");
        }
    }
}

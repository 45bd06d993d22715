//! Files without a name that are open here: the namespace keeps their contents while this mount holds them. A single
//! task sends the holds and releases, in the order in which they were requested and many in one change, and repeats
//! each until it is answered: a hold that is given up loses the contents of an open file, and a release that is given
//! up keeps a deleted file on the nodes until this mount ends.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use chordfs_log::warn_limited;
use chordfs_net::{clients::NamespaceClient, session::EventReceipt};
use chordfs_types::{
    fs_error::FsError,
    namespace::{Change, Ino, MAX_HOLDS, Reply},
};
use tokio::{sync::mpsc, time::sleep};
use tracing::debug;

use super::FileSystem;

/// How long to wait after a change without an answer. The session has then waited for its own deadline.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

pub(super) enum HoldRequest {
    Hold {
        inos: Vec<Ino>,
        /// Belongs to the event that caused the request: until it is dropped, the namespace purges none of the files.
        _receipt: Option<Arc<EventReceipt>>,
    },
    Release(Ino),
}

/// A change of this mount that removes a name.
pub(super) struct Removal {
    /// The file that the name stands for, if it was open here before: the change itself then holds it.
    open: Option<Ino>,
    /// Otherwise, until this is dropped, the namespace purges no file. Another program of this mount may open or create
    /// the file while the change is under way.
    pub receipt: Option<Arc<EventReceipt>>,
}

impl Removal {
    /// Whether the change makes the namespace keep the contents.
    pub(super) fn holds(&self) -> bool {
        self.open.is_some()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Hold,
    Release,
}

impl FileSystem {
    /// Requests that the namespace keep those of these open files that have no name.
    pub(super) fn hold_at_namespace(&self, inos: Vec<Ino>, receipt: Option<Arc<EventReceipt>>) {
        self.request(HoldRequest::Hold { inos, _receipt: receipt });
    }

    pub(super) fn release_at_namespace(&self, ino: Ino) {
        self.request(HoldRequest::Release(ino));
    }

    pub(super) fn begin_removal(&self, open: Option<Ino>) -> Removal {
        let receipt = open.is_none().then(|| Arc::new(self.namespace.own_change_receipt()));
        Removal { open, receipt }
    }

    /// If the outcome is unknown, the name may be gone. A hold then has to be released like any other; releasing a file
    /// that is not held has no effect. Without one, any file that is open or being created here may have lost its name.
    pub(super) fn removal_failed(&self, removal: &Removal, error: &FsError) {
        if !is_unanswered(error) {
            return;
        }
        match (removal.open, &removal.receipt) {
            (Some(ino), _) => self.note_held(ino),
            (None, Some(receipt)) => {
                self.creations.note_event(None, receipt);
                self.hold_at_namespace(self.opens.inos(), Some(receipt.clone()));
            }
            (None, None) => {}
        }
    }

    fn request(&self, request: HoldRequest) {
        if self.holds.send(request).is_err() {
            debug!("not sent: the mount is ending, and closing its session releases all files");
        }
    }

    /// Records that the namespace keeps the file for this mount. One that was closed meanwhile is released, unless it
    /// may be one that is being created: its answer may be on its way still.
    pub(super) fn note_held(&self, ino: Ino) {
        // A creation that ends in between has opened its file before it ends.
        let is_kept = self.opens.hold(ino) || self.creations.put_off_release(ino) || self.opens.hold(ino);
        if !is_kept {
            self.release_at_namespace(ino);
        }
    }
}

/// Sends the requests until the file system ends.
pub(super) async fn send_holds(
    fs: Weak<FileSystem>,
    namespace: Arc<dyn NamespaceClient>,
    mut requests: mpsc::UnboundedReceiver<HoldRequest>,
) {
    let mut batch = Vec::new();
    while requests.recv_many(&mut batch, MAX_HOLDS).await > 0 {
        let wishes = latest_wishes(&batch);
        let inos = |wanted: Wish| -> Vec<Ino> {
            wishes.iter().filter(|(_, wish)| **wish == wanted).map(|(ino, _)| *ino).collect()
        };
        for part in inos(Wish::Hold).chunks(MAX_HOLDS) {
            let held = send_until_answered(&*namespace, Change::HoldOrphans { inos: part.to_vec() }).await;
            if let (Some(Reply::Held { inos }), Some(fs)) = (held, fs.upgrade()) {
                for ino in inos {
                    fs.cache.drop_attr(ino);
                    fs.note_held(ino);
                }
            }
        }
        for part in inos(Wish::Release).chunks(MAX_HOLDS) {
            send_until_answered(&*namespace, Change::Release { inos: part.to_vec() }).await;
        }
        // Drops the receipts.
        batch.clear();
    }
}

/// Returns the last request about each file; the earlier ones no longer matter.
fn latest_wishes(requests: &[HoldRequest]) -> BTreeMap<Ino, Wish> {
    let mut wishes = BTreeMap::new();
    for request in requests {
        match request {
            HoldRequest::Hold { inos, .. } => wishes.extend(inos.iter().map(|ino| (*ino, Wish::Hold))),
            HoldRequest::Release(ino) => drop(wishes.insert(*ino, Wish::Release)),
        }
    }
    wishes
}

/// Returns the reply; `None` if the session has ended, and with it all its holds. A new session resets the feed, after
/// which all open files are held again.
async fn send_until_answered(namespace: &dyn NamespaceClient, change: Change) -> Option<Reply> {
    loop {
        match namespace.apply(change.clone()).await {
            Ok(reply) => return Some(reply),
            Err(FsError::NoSession) => return None,
            Err(failure) if is_unanswered(&failure) => {
                warn_limited!("deleted files that are open here are not held or released yet, trying again: {failure}");
                sleep(RETRY_PAUSE).await;
            }
            Err(failure) => {
                warn_limited!("the namespace refused to hold or release deleted files: {failure}");
                return None;
            }
        }
    }
}

/// Whether the change may have been applied although it returned this error.
fn is_unanswered(error: &FsError) -> bool {
    matches!(error, FsError::NoQuorum { .. } | FsError::NoSession | FsError::OutOfOrder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_request_about_a_file_counts() {
        let requests = [
            HoldRequest::Hold { inos: vec![Ino(5), Ino(6)], _receipt: None },
            HoldRequest::Release(Ino(6)),
            HoldRequest::Release(Ino(7)),
            HoldRequest::Hold { inos: vec![Ino(7)], _receipt: None },
        ];
        let wishes = latest_wishes(&requests);
        assert_eq!(
            wishes.into_iter().collect::<Vec<_>>(),
            [(Ino(5), Wish::Hold), (Ino(6), Wish::Release), (Ino(7), Wish::Hold)]
        );
    }
}

//! One operation of a program while it is under way: how long it takes, and whether it has a reason to fail.

use std::{sync::Arc, time::Duration};

use chordfs_types::{fs_error::FsError, namespace::Ino};

use crate::mount::Mount;

/// No operation takes longer: it waits for a few things one after the other, each with its deadline of 30 s.
const LONGEST: Duration = Duration::from_secs(300);

pub(crate) struct Operation {
    mount: Arc<Mount>,
    what: String,
    ino: Ino,
    began: Duration,
    /// Since when nothing is wrong, if that was so when it began.
    calm_since: Option<Duration>,
}

impl Operation {
    pub(crate) fn begin(mount: &Arc<Mount>, what: &str, ino: Ino) -> Self {
        let world = &mount.world;
        world.note(format!("mount {}: {what} of inode {} begins", mount.number, ino.0));
        let (began, calm_since) = (world.now(), world.calm_since());
        Self { mount: mount.clone(), what: what.to_owned(), ino, began, calm_since }
    }

    pub(crate) fn failed(&self, error: &FsError) {
        let Mount { world, oracle, number, .. } = &*self.mount;
        world.note(format!("mount {number}: {} of inode {} fails: {error}", self.what, self.ino.0));
        if matches!(error, FsError::Conflict { .. }) {
            // A commit that was still refused when its time was up. The failures of requests are noted where they fail.
            oracle.trouble_with(*number, self.ino, false);
        }
        if self.calm_since.is_some() && self.calm_since == world.calm_since() {
            oracle.check_error(*number, self.ino, &self.what, error);
        }
    }

    /// It was answered, with success or not.
    pub(crate) fn ended(&self) {
        let Mount { world, number, .. } = &*self.mount;
        let took = world.now() - self.began;
        world.note(format!("mount {number}: {} of inode {} took {took:?}", self.what, self.ino.0));
        if took > LONGEST {
            world.fail(format!("{} of inode {} took {took:?}", self.what, self.ino.0));
        }
    }
}

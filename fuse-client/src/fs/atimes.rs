//! When files were read last (atime). By default as Linux does with `relatime`: the time is noted only if the file has
//! changed since it was read last, or a day has passed. Many are logged at a time, a little later, and without telling
//! other mounts, so that reading stays as fast as without.
//!
//! The kernel serves what it has in its pages by itself, so that a file is opened for reading counts as well.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    time::Duration,
};

use chordfs_net::session::EventAcknowledgement;
use chordfs_types::namespace::{Attr, Change, Ino, MAX_TOUCHED, Time};
use parking_lot::Mutex;
use tokio::time::sleep;
use tracing::debug;

use super::FileSystem;
use crate::options::AtimeMode;

/// How long times are collected.
const COLLECTED_FOR: Duration = Duration::from_secs(1);
/// Beyond so many, further reads are not noted until these are logged.
const MAX_PENDING: usize = 1 << 16;
const DAY_SECS: i64 = 24 * 60 * 60;

#[derive(Default)]
pub(super) struct Atimes {
    /// An [`AtimeMode`].
    mode: AtomicU8,
    /// Times that are not logged.
    pending: Mutex<BTreeMap<Ino, Time>>,
}

impl Atimes {
    fn mode(&self) -> AtimeMode {
        match self.mode.load(Relaxed) {
            0 => AtimeMode::Never,
            1 => AtimeMode::Relative,
            _ => AtimeMode::Always,
        }
    }

    /// Puts a time that is not logged over the namespace's.
    pub(super) fn overlay(&self, attr: &mut Attr) {
        if let Some(atime) = self.pending.lock().get(&attr.ino) {
            attr.atime = attr.atime.max(*atime);
        }
    }

    /// A program has set the time itself.
    pub(super) fn forget(&self, ino: Ino) {
        self.pending.lock().remove(&ino);
    }

    /// Notes that an inode is read now, if that counts. Returns whether it does.
    fn note(&self, attr: &Attr, now: Time) -> bool {
        if !is_due(self.mode(), attr, now) {
            return false;
        }
        let mut pending = self.pending.lock();
        let has_room = pending.len() < MAX_PENDING || pending.contains_key(&attr.ino);
        if has_room {
            pending.insert(attr.ino, now);
        }
        has_room
    }

    fn take_part(&self) -> Vec<(Ino, Time)> {
        self.pending.lock().iter().take(MAX_TOUCHED).map(|(ino, atime)| (*ino, *atime)).collect()
    }

    fn note_logged(&self, atimes: &[(Ino, Time)]) {
        let mut pending = self.pending.lock();
        for (ino, atime) in atimes {
            // It may have been read again since.
            if pending.get(ino) == Some(atime) {
                pending.remove(ino);
            }
        }
    }
}

fn is_due(mode: AtimeMode, attr: &Attr, now: Time) -> bool {
    match mode {
        AtimeMode::Never => false,
        AtimeMode::Always => attr.atime < now,
        AtimeMode::Relative => {
            attr.atime <= attr.mtime || attr.atime <= attr.ctime || attr.atime.secs + DAY_SECS <= now.secs
        }
    }
}

impl FileSystem {
    /// Which reads are noted; none at first.
    pub fn note_atimes(self: &Arc<Self>, mode: AtimeMode) {
        self.atimes.mode.store(mode as u8, Relaxed);
        if mode != AtimeMode::Never {
            chordfs_net::tasks::spawn(log_regularly(Arc::downgrade(self)));
        }
    }

    /// Whether every single read of a file is noted.
    pub(super) fn notes_each_read(&self) -> bool {
        self.atimes.mode() == AtimeMode::Always
    }

    /// Notes that a program opens a file to read it. If the kernel has its pages, it may ask for nothing else, and has
    /// to be told that it does not know the time any longer.
    pub fn note_opened(&self, ino: Ino, has_pages: bool) {
        if self.note_read(ino) && has_pages {
            self.notices.attr(ino, EventAcknowledgement::none());
        }
    }

    /// Notes that a program reads a file, a directory or a symlink. Returns whether that counts.
    pub(super) fn note_read(&self, ino: Ino) -> bool {
        if self.atimes.mode() == AtimeMode::Never {
            return false;
        }
        let of_open = self.opens.get(ino).map(|file| file.latest_attr());
        let Some(mut attr) = of_open.or_else(|| self.cache.attr_maybe_touched(ino)) else { return false };
        if let Some(data) = self.live_data(ino) {
            data.overlay(&mut attr);
        }
        self.atimes.overlay(&mut attr);
        self.atimes.note(&attr, Time::now())
    }

    /// Logs the times that are not logged yet. Nobody depends on them, so a failure costs no more than these.
    pub(super) async fn log_atimes(&self) {
        loop {
            let atimes = self.atimes.take_part();
            if atimes.is_empty() {
                return;
            }
            let logged = self.namespace.apply(Change::Touch { atimes: atimes.clone() }).await;
            match logged {
                Ok(_) => self.cache.touch_read(&atimes),
                Err(error) if error.is_unanswered() => return,
                Err(error) => debug!(%error, "when files were read is not noted"),
            }
            self.atimes.note_logged(&atimes);
        }
    }
}

/// Ends with the mount.
async fn log_regularly(fs: Weak<FileSystem>) {
    loop {
        sleep(COLLECTED_FOR).await;
        let Some(fs) = fs.upgrade() else { return };
        fs.log_atimes().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples_test::attr;

    fn at(secs: i64) -> Time {
        Time { secs, nanos: 0 }
    }

    #[test]
    fn a_read_counts_once_after_each_change_and_once_a_day() {
        let is_due = |atime, mtime, ctime, now| {
            let attr = Attr { atime: at(atime), mtime: at(mtime), ctime: at(ctime), ..attr(7, 1) };
            is_due(AtimeMode::Relative, &attr, at(now))
        };
        assert!(is_due(10, 10, 10, 11), "it was never read since it was created");
        assert!(!is_due(11, 10, 10, 20) && is_due(11, 15, 15, 20) && is_due(11, 10, 15, 20));
        assert!(!is_due(11, 10, 10, DAY_SECS + 10) && is_due(11, 10, 10, DAY_SECS + 11));
    }

    #[test]
    fn a_time_is_shown_until_it_is_logged_or_set_by_a_program() {
        let atimes = Atimes::default();
        let file = Attr { atime: at(5), mtime: at(9), ctime: at(9), ..attr(7, 1) };
        assert!(!atimes.note(&file, at(20)), "nothing is noted at first");
        atimes.mode.store(AtimeMode::Relative as u8, Relaxed);
        let shown = || {
            let mut shown = file.clone();
            atimes.overlay(&mut shown);
            shown.atime
        };
        assert!(atimes.note(&file, at(20)));
        assert_eq!((shown(), atimes.take_part()), (at(20), vec![(file.ino, at(20))]));
        assert!(atimes.note(&file, at(21)));
        atimes.note_logged(&[(file.ino, at(20))]);
        assert_eq!(shown(), at(21), "it was read again");
        atimes.note_logged(&[(file.ino, at(21))]);
        assert_eq!(shown(), at(5));
        assert!(atimes.note(&file, at(30)));
        atimes.forget(file.ino);
        assert_eq!(shown(), at(5));
    }
}

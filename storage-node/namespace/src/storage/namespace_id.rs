//! The id of the namespace that this node belongs to. Two nodes that each founded a namespace must never become members
//! of one cluster, although the ring connects them: their trees, sessions and versions are unrelated.
//!
//! The id is created with the namespace and stored beside its log. A member learns it with the first message of a
//! leader that added it, before the message has any effect.

use std::{
    io,
    path::{Path, PathBuf},
};

use chordfs_types::namespace::Time;
use parking_lot::Mutex;

use super::{log_file::damaged, small_file};

const FILE: &str = "namespace";
const RANDOM_BITS: u32 = 22;

pub(crate) struct NamespaceId {
    dir: PathBuf,
    known: Mutex<Option<u64>>,
}

impl NamespaceId {
    /// Reads the id from the folder. A `pristine` folder belongs to no namespace, even if an interrupted start left an
    /// id.
    pub(crate) fn open(dir: &Path, pristine: bool) -> io::Result<Self> {
        let known = if pristine { None } else { small_file::read(dir, FILE)? };
        if !pristine && known.is_none() {
            let what = "it does not name the namespace of the log beside it";
            return Err(damaged(&dir.join(FILE), what));
        }
        Ok(Self { dir: dir.to_owned(), known: Mutex::new(known) })
    }

    pub(crate) fn get(&self) -> Option<u64> {
        *self.known.lock()
    }

    /// Founds a namespace. Its id is the time in milliseconds above random bits, so that the older of two namespaces
    /// has the smaller id.
    pub(crate) fn found(&self) -> io::Result<()> {
        let now = Time::now();
        let millis = u64::try_from(now.secs).unwrap_or(0) * 1000 + u64::from(now.nanos / 1_000_000);
        let id = millis << RANDOM_BITS | u64::from(rand::random::<u32>() >> (32 - RANDOM_BITS));
        self.learn(id).map(drop)
    }

    /// Makes the node belong to `id`, unless it belongs to another namespace. Returns the one that it belongs to.
    pub(crate) fn learn(&self, id: u64) -> io::Result<u64> {
        let mut known = self.known.lock();
        if let Some(known) = *known {
            return Ok(known);
        }
        small_file::write(&self.dir, FILE, &id)?;
        *known = Some(id);
        Ok(id)
    }
}

//! The tables as snapshots of format 10 hold them: sessions have no inode numbers.

use serde::Deserialize;

use super::{
    format_9::{FormerTables, SessionRecordOfFormat9},
    sessions::SessionRecord,
};

/// Read whole, and then turned into [`Tables`](super::Tables).
pub type TablesOfFormat10 = FormerTables<SessionRecordOfFormat10>;

/// A session before it had inode numbers.
#[derive(Clone, Deserialize)]
pub struct SessionRecordOfFormat10 {
    former: SessionRecordOfFormat9,
    holds_leases: bool,
}

impl From<SessionRecordOfFormat10> for SessionRecord {
    fn from(SessionRecordOfFormat10 { former, holds_leases }: SessionRecordOfFormat10) -> Self {
        Self { holds_leases, ..former.into() }
    }
}

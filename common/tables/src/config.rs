//! The configuration of the ring: one value, replaced as a whole.

use chordfs_types::{fs_error::FsError, namespace::Reply, ring_config::RingConfig};

use super::{Transaction, invalid};

impl Transaction<'_> {
    /// Replaces the configuration if it still has the version from which `config` was made: of two operators who change
    /// it at the same time, the second one has to look again.
    pub(super) fn configure(&mut self, config: &RingConfig) -> Result<Reply, FsError> {
        config.check().map_err(|error| invalid(error.to_string()))?;
        let current = &mut self.tables.config;
        let changed = config.version == current.version;
        if changed {
            *current = RingConfig { version: config.version + 1, ..*config };
        }
        Ok(Reply::Configured { config: *current, changed })
    }
}

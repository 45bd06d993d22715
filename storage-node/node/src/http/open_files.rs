//! The limit of open files, which includes connections.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::{debug, warn};

/// Raises the soft limit to the hard one. The soft limit is often 1024, for programs that use `select(2)`; a node opens
/// a file for each segment that it reads and for each connection of every mount and peer. If raising it is not
/// permitted, the node continues with the present limit.
pub fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok((soft, hard))
    });
    match raised {
        Ok((before, now)) => debug!(before, now, "limit of open files raised"),
        Err(error) => warn!(%error, "cannot raise the limit of open files"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_to_what_the_system_allows() {
        let hard = getrlimit(Resource::RLIMIT_NOFILE).unwrap().1;
        // Only one below it, because other tests of this process need their files.
        setrlimit(Resource::RLIMIT_NOFILE, hard - 1, hard).unwrap();
        raise_limit();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    }
}

//! How many files, connections among them, the process may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::{debug, warn};

/// Raises the soft limit to the hard one. The soft one is often 1024, for the sake of programs that use `select(2)`; a
/// node has a file for each segment it reads and for each connection of every mount and peer. Without leave it goes on
/// with what there is.
pub fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok((soft, hard))
    });
    match raised {
        Ok((before, now)) => debug!(before, now, "limit of open files raised"),
        Err(error) => warn!(%error, "the limit of open files stays as it is"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_the_system_allows_is_taken() {
        let hard = getrlimit(Resource::RLIMIT_NOFILE).unwrap().1;
        // Only just below it: other tests of this process need their files.
        setrlimit(Resource::RLIMIT_NOFILE, hard - 1, hard).unwrap();
        raise_limit();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    }
}

//! No core dumps: they would contain private keys and the contents of files, and often end up where others may read them.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Makes the kernel write no core file of this process. An operator who needs one raises the limit again while the
/// process runs (`prlimit --core=unlimited --pid PID`).
pub fn forbid_core_dumps() -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_CORE)?;
    Ok(setrlimit(Resource::RLIMIT_CORE, 0, hard)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_zero_and_can_be_raised_again() {
        let (_, hard) = getrlimit(Resource::RLIMIT_CORE).unwrap();
        forbid_core_dumps().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap(), (0, hard));
    }
}

//! The failure of a mount: one line on stderr and the exit code that mount(8) documents.

use std::fmt;

/// The reason why mounting or serving failed. `message` is one line and says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct MountError {
    pub code: ExitCode,
    pub message: String,
}

/// The exit codes that mount(8) lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    Usage = 1,
    System = 2,
    InternalBug = 4,
    Interrupted = 8,
    MountFailure = 32,
}

impl MountError {
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(ExitCode::Usage, message)
    }

    pub fn system(message: impl fmt::Display) -> Self {
        Self::new(ExitCode::System, message)
    }

    pub fn bug(message: impl fmt::Display) -> Self {
        Self::new(ExitCode::InternalBug, message)
    }

    pub fn interrupted() -> Self {
        Self::new(ExitCode::Interrupted, "interrupted; nothing is mounted")
    }

    pub fn failure(message: impl fmt::Display) -> Self {
        Self::new(ExitCode::MountFailure, message)
    }

    /// Joins the lines of `message` into one, since texts of libraries may have several.
    fn new(code: ExitCode, message: impl fmt::Display) -> Self {
        let text = message.to_string();
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        Self { code, message: lines.join("; ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line() {
        let error = MountError::failure("fusermount3: no\n  such thing\n");
        assert_eq!(error.message, "fusermount3: no; such thing");
    }

    #[test]
    fn the_codes_are_those_of_mount_8() {
        let codes = [MountError::usage(""), MountError::system(""), MountError::bug(""), MountError::interrupted()];
        assert_eq!(codes.map(|error| error.code as u8), [1, 2, 4, 8]);
        assert_eq!(MountError::failure("").code as u8, 32);
    }
}

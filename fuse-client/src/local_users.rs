//! The users of this machine, as the ring sees them.
//!
//! Where the ring gives root of this machine no power over root's files (root squash), root acts for nobody. The kernel
//! lets root pass all checks of permissions, so what it does is checked by the ring. Only an open has to be checked
//! here: the ring hears of one for writing no earlier than at the first commit, and of one from memory not at all.

use crate::fs::Caller;

/// The user and the group that nobody has, as in `nfsnobody`.
const NOBODY: u32 = 65534;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalUsers {
    pub squashes_root: bool,
}

impl LocalUsers {
    /// Whether the user is root without power.
    pub fn has_no_power(self, uid: u32) -> bool {
        self.squashes_root && uid == 0
    }

    /// To whom something belongs that the user creates.
    pub fn creator(self, uid: u32, gid: u32) -> Caller {
        let squashed = |id: u32| if self.squashes_root && id == 0 { NOBODY } else { id };
        Caller { uid: squashed(uid), gid: squashed(gid) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_creates_for_nobody_only_where_it_has_no_power() {
        let (usual, squashed) = (LocalUsers::default(), LocalUsers { squashes_root: true });
        assert_eq!(usual.creator(0, 0), Caller { uid: 0, gid: 0 });
        assert_eq!(squashed.creator(0, 0), Caller { uid: NOBODY, gid: NOBODY });
        assert_eq!(squashed.creator(1000, 0), Caller { uid: 1000, gid: NOBODY });
        assert_eq!(squashed.creator(1000, 100), Caller { uid: 1000, gid: 100 });
        assert!(squashed.has_no_power(0) && !squashed.has_no_power(1) && !usual.has_no_power(0));
    }
}

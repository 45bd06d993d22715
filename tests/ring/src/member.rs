//! The common interface of the two kinds of members in a simulated network.

use chordfs_ring::Ring;
use chordfs_types::ring_id::{Neighbours, NodeRef};

use crate::foreign::Foreign;

#[derive(Clone)]
pub(crate) enum Member {
    Ours(Box<Ring>),
    Foreign(Box<Foreign>),
}

impl Member {
    pub(crate) fn me(&self) -> NodeRef {
        match self {
            Self::Ours(ring) => ring.me(),
            Self::Foreign(foreign) => foreign.me(),
        }
    }

    pub(crate) fn neighbours(&self) -> Neighbours {
        match self {
            Self::Ours(ring) => ring.neighbours(),
            Self::Foreign(foreign) => foreign.neighbours(),
        }
    }

    pub(crate) fn is_in_ring(&self) -> bool {
        match self {
            Self::Ours(ring) => ring.is_in_ring(),
            Self::Foreign(foreign) => foreign.is_in_ring(),
        }
    }

    pub(crate) fn is_foreign(&self) -> bool {
        matches!(self, Self::Foreign(_))
    }
}

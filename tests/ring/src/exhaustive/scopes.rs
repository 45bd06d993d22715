//! The scopes: short ones for every check, larger ones for the report. Each is about as large as can be searched
//! completely: one more event of any kind makes it three to ten times as large.

use super::scope::{Budget, Quarantine, Scope};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Some seconds in all.
    Short,
    /// Some minutes in all.
    Long,
}

pub fn scopes(size: Size) -> Vec<Scope> {
    match size {
        Size::Short => short(),
        Size::Long => long(),
    }
}

fn short() -> Vec<Scope> {
    vec![
        stabilizing(2, Scope { joins: 1, ..Scope::new("oo+o", 2) }),
        stabilizing(2, Scope { joins: 1, crashes: 1, ..Scope::new("oo+oo", 2) }),
        stabilizing(2, without_quarantine(Scope { joins: 1, crashes: 1, ..Scope::new("oo+oo", 2) })),
        stabilizing(1, Scope { joins: 1, crashes: 2, ..Scope::new("oo+ooo", 2) }),
        stabilizing(2, Scope { joins: 1, crashes: 1, ..Scope::new("oo+ooo", 3) }),
        stabilizing(1, Scope { joins: 2, ..Scope::new("o+oo+o", 2) }),
        stabilizing(1, checking(1, Scope { joins: 1, crashes: 1, doubled: 1, ..Scope::new("oo+oo", 2) })),
        stabilizing(1, Scope { leaves: 1, lost: 1, doubled: 1, ..Scope::new("oooo", 2) }),
        stabilizing(1, Scope { crashes: 1, restarts: 1, ..Scope::new("oooo", 2) }),
        ticking(1, Scope { joins: 1, ..Scope::new("oo+oo", 2) }),
        stabilizing(1, Scope { joins: 2, ..Scope::new("o++", 2) }),
    ]
}

fn long() -> Vec<Scope> {
    vec![
        stabilizing(3, Scope { joins: 1, crashes: 1, ..Scope::new("oo+oo", 2) }),
        stabilizing(2, Scope { joins: 1, crashes: 2, ..Scope::new("oo+ooo", 2) }),
        stabilizing(2, without_quarantine(Scope { joins: 1, crashes: 2, ..Scope::new("oo+ooo", 2) })),
        stabilizing(3, Scope { joins: 1, crashes: 1, ..Scope::new("oo+ooo", 3) }),
        stabilizing(2, Scope { joins: 2, ..Scope::new("o+oo+o", 2) }),
        stabilizing(1, Scope { joins: 2, crashes: 1, ..Scope::new("oo++oo", 2) }),
        stabilizing(2, checking(1, Scope { joins: 1, ..Scope::new("oo+oo", 2) })),
        stabilizing(1, Scope { joins: 1, leaves: 1, ..Scope::new("oo+oo", 2) }),
        stabilizing(1, Scope { crashes: 1, restarts: 1, joins: 2, ..Scope::new("oooo", 2) }),
        ticking(1, Scope { joins: 1, crashes: 1, ..Scope::new("oo+oo", 2) }),
        ticking(1, Scope { crashes: 2, ..Scope::new("ooooo", 2) }),
        Scope { joins: 3, ..Scope::new("o+++", 2) },
        stabilizing(2, Scope { joins: 2, ..Scope::new("o++", 2) }),
        stabilizing(1, ticking(1, Scope { joins: 1, ..Scope::new("oo+", 2) })),
    ]
}

/// Allows `all` stabilize steps, one for each node at most.
fn stabilizing(all: u8, scope: Scope) -> Scope {
    Scope { stabilize: Budget { each: 1, all }, ..scope }
}

fn checking(all: u8, scope: Scope) -> Scope {
    Scope { check_predecessor: Budget { each: 1, all }, ..scope }
}

fn ticking(all: u8, scope: Scope) -> Scope {
    Scope { tick: Budget { each: 1, all }, ..scope }
}

/// Allows dead nodes to be adopted again as soon as another node names them.
fn without_quarantine(scope: Scope) -> Scope {
    Scope { quarantine: Quarantine::None, ..scope }
}

//! Every interleaving of a small ring: the model checker `stateright` drives the shipping code (`chordfs_ring::Ring`)
//! through every order of requests, answers, notifications, joins, crashes and periodic steps, and checks each state
//! that can be reached. Answers may be as late and as outdated as the order allows; notifications may be lost or arrive
//! twice.
//!
//! # What is assumed
//! As in Zave 2017: a call to a dead node fails and one to a live node never does; nodes crash only if each member
//! keeps a live successor and r + 1 principals stay (r: the length of a list). In the paper a request and the use of
//! its answer are one step; here they are not, so two of her conditions must also count lists in flight:
//!
//! - A crash must leave a live node in each list that will be taken, not only in each list that a member holds
//!   (`CrashRule::ListsAndAnswers`). Only the first r names of an answer count: an answer of r + 1 names loses its
//!   last. With the paper's own rule a member can be left without a live successor (`CrashRule::Lists`; two crashes
//!   within one call are enough for r = 2).
//! - A member is *established* when no list skips it, held or in flight. (Two more things count as lists in flight: the
//!   owners of a position named to a node that is about to take it, and the answer of a lone node, which drops it from
//!   the list of the node that receives it.) Until then an older answer may skip the member once more.
//!
//! # What is checked in each state
//! There is one ordered ring, and each member has a live successor. No established member is skipped while it is alive.
//! Once there are r + 1 established members, r + 1 principals stay. If no message is in flight, quiet periods make the
//! ring ideal, `periods_max` at most.
//!
//! # From which size on All of this holds from r + 1 established members on, however the ring reached that size: also
//! for rings that grew from one node. Below that, one ordered ring, live successors and convergence still hold as long
//! as no node crashes or leaves. A crash there may remove the only neighbour of a node, and is not tried.
//!
//! Below that size members may be skipped. A node that was alone may have answered so, and that answer may arrive after
//! a newer answer of the same node. The late answer then looks like that of a restarted node, and drops a live member
//! from a list until its quarantine ends. Example: 30 joins the ring of one 10 and ticks meanwhile, so that two calls
//! to 10 are pending, one for each way of joining. 10 answers the first, accepts 20, and answers the second. 30 takes
//! the second answer (10 20), then the first, and is left with 20 alone. The ring stays one, and quiet periods repair
//! it.
//!
//! # What is left out
//! Two nodes with one id, partitions, and fingers that were looked up (the first few, which the successor covers, are
//! included). The random histories of `network` cover them.

mod properties;
mod quiescent;
mod scope;
mod scopes;
mod state;
mod steps;
mod trace;

use std::{
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use stateright::{Checker, HasDiscoveries, Model};

pub use self::{
    properties::{BASE, CONVERGES, NOT_SKIPPED, ONE_RING},
    scope::{Budget, CrashRule, Network, Quarantine, Scope},
    scopes::{Size, scopes},
};

/// The outcome of a search.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Steps tried.
    pub states: usize,
    /// Distinct states reached.
    pub unique: usize,
    /// The longest path from the initial state.
    pub depth: usize,
    pub took: Duration,
    /// True if everything that the scope allows was tried; false if a counterexample ended the search.
    pub complete: bool,
    /// The violated property, if any.
    pub violated: Option<&'static str>,
    /// The steps that led to the violation.
    pub counterexample: Option<String>,
}

/// Tries everything that the scope allows.
pub fn run(scope: &Scope) -> Outcome {
    search(scope, |scope| checker(scope).threads(2).spawn_dfs().join())
}

/// Like `run`, but breadth-first in one thread: the counterexample is as short as possible and the same each time.
/// Takes more time and memory.
pub fn run_shortest_first(scope: &Scope) -> Outcome {
    search(scope, |scope| checker(scope).spawn_bfs().join())
}

fn checker(scope: &Scope) -> stateright::CheckerBuilder<Scope> {
    let checker = scope.clone().checker().finish_when(HasDiscoveries::AnyFailures);
    match NonZeroUsize::new(scope.steps_max) {
        Some(most) => checker.target_state_count(most.get()),
        None => checker,
    }
}

fn search<C: Checker<Scope>>(scope: &Scope, search: impl Fn(&Scope) -> C) -> Outcome {
    let begun = Instant::now();
    let checker = search(scope);
    let found = checker.discoveries().into_iter().min_by_key(|(name, _)| *name);
    let violated = found.as_ref().map(|(property, _)| *property);
    let counterexample = found.map(|(property, path)| trace::describe_counterexample(scope, property, path));
    Outcome {
        states: checker.state_count(),
        unique: checker.unique_state_count(),
        depth: checker.max_depth(),
        took: begun.elapsed(),
        complete: violated.is_none() && checker.state_count() < scope.steps_max,
        violated,
        counterexample,
    }
}

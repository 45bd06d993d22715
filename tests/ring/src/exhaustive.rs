//! Every interleaving of a small ring: the model checker `stateright` drives the machine that ships
//! (`chordfs_ring::Ring`) through every order in which questions, answers, notifications, joins, crashes and
//! periodic steps can come, and judges each state that can be reached. Answers may be as late and as out of date as the
//! order allows; notifications may be lost or come twice.
//!
//! # What is assumed
//! As in Zave 2017: a call to a dead node fails, one to a live node never does; and nodes crash only so far that each
//! member keeps a live successor and r + 1 principals stay (r: how long a list is). In the paper to ask and to take
//! what was answered is one step; here it is not, and so two of her conditions have to count lists that are on their
//! way:
//! - A crash has to leave a live node in each list that will be taken, not only in those that are held
//!   (`CrashRule::ListsAndAnswers`). Of an answer only the first r names count: one that comes with r + 1 loses its
//!   last. With the paper's own rule a member is left without a live successor (`CrashRule::Lists`; two crashes within
//!   one call are enough for r = 2).
//! - A member is *established* when no list skips it that is held or on its way. (On its way is also who was named the
//!   owner of a place to a node that is about to take it, and the word of a node that it is a ring of one, which drops
//!   it from the list of whoever hears it.) Until then an older answer may skip it once more.
//!
//! # What is checked in each state
//! There is one ring, in order, and each member has a live successor. Nobody who is established is skipped while it
//! lives. Once there are r + 1 established, r + 1 principals stay. If nothing is on its way, quiet periods make the
//! ring ideal, `periods_max` at most.
//!
//! # From which size on
//! All of it holds from r + 1 established members on, however the ring came to them: also for rings that grew from one
//! node. Below that, one ordered ring, live successors and convergence hold all the same, as long as nobody crashes or
//! leaves: a crash there may take the only neighbour that somebody has, and is not tried.
//!
//! What does not hold below is that nobody is skipped. A node that was a ring of one may have said so in an answer that
//! is still on its way when a newer answer of the same node has arrived; the late one then looks like that of a node
//! that was started again, and drops a live member from a list for as long as the silence lasts. Example: 30 joins the
//! ring of one 10 and ticks meanwhile, so that two questions to 10 are open, one for each way in; 10 answers the first,
//! takes 20 in, and answers the second; 30 takes the second answer (10 20), then the first, and is left with 20 alone.
//! The ring stays one, and quiet periods mend it.
//!
//! # What is left out
//! Two nodes with one id, partitions, fingers that were looked up (the first few, which the successor covers, are
//! there). `network` and its random lives have them.

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

/// Of a search.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Steps tried.
    pub states: usize,
    /// Different states they led to.
    pub unique: usize,
    /// The longest way from the beginning.
    pub depth: usize,
    pub took: Duration,
    /// Everything that the scope allows was tried. Not so if a counterexample ended it.
    pub complete: bool,
    /// ReportTable property was found not to hold.
    pub violated: Option<&'static str>,
    /// The steps that led there.
    pub counterexample: Option<String>,
}

/// Tries everything that the scope allows.
pub fn run(scope: &Scope) -> Outcome {
    search(scope, |scope| checker(scope).threads(2).spawn_dfs().join())
}

/// As `run`, the shortest ways first and one after another: its counterexample is as short as can be, and the same each
/// time. Takes more time and memory.
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
    let counterexample = found.map(|(property, path)| trace::tell(scope, property, path));
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

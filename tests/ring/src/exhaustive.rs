//! Every interleaving of a small ring.

mod calm;
mod properties;
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
    scope::{Budget, CrashRule, Network, Scope, Silence},
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
    /// Which property was found not to hold.
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

//! Every interleaving of small rings, and proof that the search notices broken assumptions.

use ring_tests::exhaustive::*;

#[test]
fn the_invariants_hold_in_every_interleaving() {
    for scope in scopes(Size::Short) {
        let outcome = run(&scope);
        if let Some(counterexample) = outcome.counterexample {
            panic!("{counterexample}");
        }
        assert!(outcome.complete, "{}: stopped after {} steps", scope.name(), outcome.states);
    }
}

/// Checks that a scope that breaks an assumption of the proof violates the property `wanted`.
#[track_caller]
fn check_is_noticed(scope: Scope, wanted: &'static str) {
    let outcome = run_shortest_first(&scope);
    assert_eq!(outcome.violated, Some(wanted), "{}: {outcome:?}", scope.name());
    let steps = outcome.counterexample.unwrap_or_default();
    assert!(steps.lines().count() > 3, "no steps are described: {steps}");
}

fn stabilizing(all: u8, scope: Scope) -> Scope {
    Scope { stabilize: Budget { each: 1, all }, ..scope }
}

#[test]
fn a_live_node_that_is_taken_for_dead_is_noticed() {
    let network = Network::FalseSuspicions(1);
    check_is_noticed(stabilizing(2, Scope { joins: 1, network, ..Scope::new("oo+oo", 2) }), NOT_SKIPPED);
}

/// If dead nodes answer, contacting a node before it is adopted is useless.
#[test]
fn a_dead_node_that_answers_is_noticed() {
    let network = Network::DeadNodesAnswer;
    let scope = Scope { joins: 1, crashes: 2, network, ..Scope::new("oo+ooo", 2) };
    check_is_noticed(stabilizing(2, scope), ONE_RING);
}

#[test]
fn too_many_crashes_are_noticed() {
    let scope = Scope { crashes: 2, crash_rule: CrashRule::Never, ..Scope::new("ooooo", 2) };
    check_is_noticed(stabilizing(2, scope), ONE_RING);
}

/// The paper's condition for a crash considers only the members' lists. Where answers take time, a list in flight needs
/// a live node as well: all r nodes that it names may be dead when it is taken.
#[test]
fn a_list_whose_nodes_all_die_in_flight_is_noticed() {
    let scope = Scope { joins: 1, crashes: 2, crash_rule: CrashRule::Lists, ..Scope::new("oo+ooo", 2) };
    check_is_noticed(stabilizing(1, scope), ONE_RING);
}

#[test]
fn a_ring_that_takes_too_long_is_noticed() {
    check_is_noticed(Scope { joins: 1, periods_max: 0, ..Scope::new("oo+oo", 2) }, CONVERGES);
}

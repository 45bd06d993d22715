//! What an operator's request means for the pool as it is now.
#![deny(clippy::disallowed_methods)]

use chordfs_types::{
    admin::{PoolNodes, PoolTarget},
    namespace::{PoolDecider, PoolStep},
    ring_config::PoolMode,
};

/// One node more than are wanted, or than there are while nobody has chosen. The error says why not.
pub(super) fn one_more(target: &PoolTarget, nodes: &PoolNodes) -> Result<PoolStep, String> {
    check_mode(target)?;
    let to = (size_now(target, nodes) + 1).max(target.smallest);
    if to > target.largest {
        return Err(format!("the pool has its largest size: pool.largest is {}", target.largest));
    }
    Ok(step(nodes, Some(to), "an operator asked for one more node"))
}

/// One node less. It is refused while the last step is under way, because copies may be missing then.
pub(super) fn one_less(target: &PoolTarget, nodes: &PoolNodes) -> Result<PoolStep, String> {
    check_mode(target)?;
    let to = size_now(target, nodes).saturating_sub(1).min(target.largest);
    if to < target.smallest {
        return Err(format!("the pool has its smallest size: pool.smallest is {}", target.smallest));
    }
    match nodes.obstacle_to_shrinking() {
        Some(obstacle) => Err(format!("the pool does not shrink now, because {obstacle}")),
        None => Ok(step(nodes, Some(to), "an operator asked for one node less")),
    }
}

/// Each pool follows its own settings again.
pub(super) fn release(target: &PoolTarget, nodes: &PoolNodes) -> Result<PoolStep, String> {
    check_mode(target)?;
    match target.wanted {
        None => Err("nobody has chosen a size of the pool: every pool follows its own settings already".into()),
        Some(_) => Ok(step(nodes, None, "an operator released the pool: it follows its own settings again")),
    }
}

/// The namespace checks this too, against the mode at that moment; here it comes before all other reasons.
fn check_mode(target: &PoolTarget) -> Result<(), String> {
    match target.mode {
        PoolMode::Manual => Ok(()),
        PoolMode::Automatic => Err("the scaler chooses the size of the pool; set pool.mode to manual first".into()),
    }
}

fn size_now(target: &PoolTarget, nodes: &PoolNodes) -> u32 {
    target.wanted.unwrap_or_else(|| nodes.staying())
}

fn step(nodes: &PoolNodes, to: Option<u32>, reason: &str) -> PoolStep {
    let (by, reason) = (PoolDecider::Operator, reason.to_owned());
    PoolStep { from: nodes.serving, to, by, reason, miss_rate: None, fullest_disk: None }
}

#[cfg(test)]
mod tests {
    use chordfs_types::{
        namespace::{PoolSize, Time},
        ring_config::RingConfig,
    };

    use super::*;

    fn target(wanted: Option<u32>, settings: &[(&str, &str)]) -> PoolTarget {
        let config = RingConfig::default().with(settings.iter().copied()).unwrap();
        PoolTarget::new(&config.pool, &PoolSize { wanted, ..PoolSize::default() }, Time::default())
    }

    fn serving(count: u32) -> PoolNodes {
        PoolNodes { serving: count, missing_copies: Some(0), ..PoolNodes::default() }
    }

    #[test]
    fn a_step_counts_from_the_wanted_size_and_before_a_choice_from_the_nodes() {
        let to = |step: Result<PoolStep, String>| step.unwrap().to.unwrap();
        let (chosen, open) = (target(Some(5), &[]), target(None, &[]));
        assert_eq!((to(one_more(&chosen, &serving(3))), to(one_less(&chosen, &serving(3)))), (6, 4));
        assert_eq!((to(one_more(&open, &serving(3))), to(one_less(&open, &serving(3)))), (4, 2));
        let silent = PoolNodes { silent: 1, arriving: 1, draining: 1, ..serving(3) };
        assert_eq!(to(one_more(&open, &silent)), 6, "a node that does not answer is still a node");
        assert_eq!(one_more(&open, &serving(3)).unwrap().from, 3);
        assert_eq!(release(&chosen, &serving(5)).unwrap().to, None);
    }

    #[test]
    fn limits_and_mode_are_named() {
        let refused = |step: Result<PoolStep, String>, text: &str| {
            let reason = step.unwrap_err();
            assert!(reason.contains(text), "{reason}");
        };
        let narrow = |wanted| target(Some(wanted), &[("pool.smallest", "2"), ("pool.largest", "4")]);
        refused(one_more(&narrow(4), &serving(4)), "pool.largest is 4");
        refused(one_less(&narrow(2), &serving(2)), "pool.smallest is 2");
        assert_eq!(one_more(&target(None, &[("pool.smallest", "3")]), &serving(1)).unwrap().to, Some(3));
        assert_eq!(one_less(&target(None, &[("pool.largest", "3")]), &serving(8)).unwrap().to, Some(3));
        refused(release(&target(None, &[]), &serving(1)), "already");
        let automatic = target(Some(3), &[("pool.mode", "automatic")]);
        for step in [one_more, one_less, release] {
            refused(step(&automatic, &serving(3)), "set pool.mode to manual first");
        }
    }

    #[test]
    fn the_pool_does_not_shrink_while_a_step_is_under_way() {
        let obstacles = [
            (PoolNodes { draining: 1, ..serving(3) }, "1 node is still draining"),
            (PoolNodes { arriving: 2, ..serving(3) }, "2 nodes are still arriving"),
            (PoolNodes { filling: 1, ..serving(3) }, "1 node is still being filled"),
            (PoolNodes { silent: 1, ..serving(3) }, "1 node is not answering"),
        ];
        for (nodes, text) in obstacles {
            let reason = one_less(&target(Some(4), &[]), &nodes).unwrap_err();
            assert!(reason.contains(text), "{reason}");
            one_more(&target(Some(4), &[]), &nodes).unwrap();
        }
    }
}

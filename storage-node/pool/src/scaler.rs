//! The policy over time: once a period it takes the pool's usage and returns the step to take now.
#![deny(clippy::disallowed_methods)]

use std::time::Instant;

use super::{
    alarm::{Alarm, AlarmState, Threshold},
    policy::{HoldReason, Policy, PoolUsage},
};

#[derive(Clone, Debug, PartialEq)]
pub enum ScalingStep {
    /// No step is due, or it is held back for the reason.
    Hold(Option<HoldReason>),
    Grow {
        by: usize,
    },
    /// Drain one node.
    Shrink,
}

pub struct Scaler {
    policy: Policy,
    high: Alarm,
    low: Option<Alarm>,
    last_step: Option<Instant>,
}

impl Scaler {
    pub fn new(policy: Policy) -> Self {
        let low = policy.shrink_below.map(|percent| Alarm::new(Threshold::Below(percent), policy.periods));
        Self { high: Alarm::new(Threshold::Above(policy.grow_above), policy.periods), low, last_step: None, policy }
    }

    /// To be called at the end of each period. A step that is returned counts as taken.
    pub fn next(&mut self, at: Instant, now: &PoolUsage) -> ScalingStep {
        let measured = self.policy.measure(&now.used_percent);
        let high = self.high.next(measured) == AlarmState::Raised;
        let low = self.low.as_mut().is_some_and(|low| low.next(measured) == AlarmState::Raised);
        let step = match (self.policy.missing(now.nodes), high, low) {
            // Below the minimum the pool grows at once, even in a cooldown.
            (by @ 1.., ..) => ScalingStep::Grow { by },
            (_, false, false) => ScalingStep::Hold(None),
            _ if self.cools_down(at) => ScalingStep::Hold(Some(HoldReason::Cooldown)),
            (_, true, _) => self
                .policy
                .growth(now)
                .map_or_else(|reason| ScalingStep::Hold(Some(reason)), |by| ScalingStep::Grow { by }),
            (_, _, true) => self
                .policy
                .shrinkage(now)
                .map_or_else(|reason| ScalingStep::Hold(Some(reason)), |()| ScalingStep::Shrink),
        };
        if !matches!(step, ScalingStep::Hold(_)) {
            self.last_step = Some(at);
        }
        step
    }

    /// To be called when a step is complete, because a node was added or has left. The cooldown counts from here.
    pub fn step_ended(&mut self, at: Instant) {
        self.last_step = Some(at);
    }

    fn cools_down(&self, at: Instant) -> bool {
        self.last_step.is_some_and(|last| at.saturating_duration_since(last) < self.policy.cooldown)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::policy::ScaleOn, *};

    struct Story {
        scaler: Scaler,
        at: Instant,
    }

    impl Story {
        fn new(min: usize, max: usize) -> Self {
            let policy = Policy {
                min,
                max,
                scale_on: ScaleOn::Max,
                grow_above: 70.0,
                shrink_below: Some(30.0),
                periods: 2,
                period: Duration::from_secs(60),
                cooldown: Duration::from_secs(180),
                grow_by: 1,
            };
            #[allow(clippy::disallowed_methods, reason = "a test may begin now")]
            Self { scaler: Scaler::new(policy), at: Instant::now() }
        }

        fn minute(&mut self, used: &[f64]) -> ScalingStep {
            self.with(PoolUsage { used_percent: used.to_vec(), nodes: used.len(), ..PoolUsage::default() })
        }

        fn with(&mut self, now: PoolUsage) -> ScalingStep {
            self.at += Duration::from_secs(60);
            self.scaler.next(self.at, &now)
        }
    }

    const COOL: ScalingStep = ScalingStep::Hold(Some(HoldReason::Cooldown));

    #[test]
    fn a_full_disk_grows_the_pool_once_in_a_cooldown() {
        let mut story = Story::new(1, 8);
        assert_eq!(story.minute(&[71.0]), ScalingStep::Hold(None));
        assert_eq!(story.minute(&[72.0]), ScalingStep::Grow { by: 1 });
        assert_eq!([story.minute(&[80.0, 0.0]), story.minute(&[80.0, 0.0])], [COOL, COOL]);
        assert_eq!(story.minute(&[80.0, 40.0]), ScalingStep::Grow { by: 1 });
        assert_eq!(story.minute(&[40.0, 40.0, 40.0]), ScalingStep::Hold(None));
    }

    #[test]
    fn empty_disks_shrink_the_pool_to_its_minimum() {
        let mut story = Story::new(3, 8);
        let empty = [10.0; 5];
        let steps: Vec<_> = (0..8).map(|_| story.minute(&empty)).collect();
        let shrinks: Vec<_> = steps.iter().map(|step| *step == ScalingStep::Shrink).collect();
        assert_eq!(shrinks, [false, true, false, false, true, false, false, true]);
        let at_floor: Vec<_> = (0..6).map(|_| story.minute(&empty[..3])).collect();
        assert!(!at_floor.contains(&ScalingStep::Shrink), "{at_floor:?}");
    }

    #[test]
    fn below_the_minimum_the_pool_grows_at_once() {
        let mut story = Story::new(3, 8);
        assert_eq!(story.minute(&[]), ScalingStep::Grow { by: 3 });
        assert_eq!(story.minute(&[1.0, 1.0]), ScalingStep::Grow { by: 1 });
        assert_eq!(story.minute(&[1.0; 3]), COOL, "the pool has its minimum, and the cooldown holds any step");
    }

    #[test]
    fn an_unresponsive_node_is_not_an_empty_one() {
        let mut story = Story::new(1, 8);
        for _ in 0..5 {
            let step = story.with(PoolUsage { used_percent: vec![20.0, 20.0], nodes: 3, ..PoolUsage::default() });
            assert!(matches!(step, ScalingStep::Hold(_)), "{step:?}");
        }
        // One period without an answer changes nothing; after two the state is unknown.
        assert_eq!(
            story.with(PoolUsage { nodes: 3, ..PoolUsage::default() }),
            ScalingStep::Hold(Some(HoldReason::Unresponsive))
        );
        assert_eq!(story.with(PoolUsage { nodes: 3, ..PoolUsage::default() }), ScalingStep::Hold(None));
    }

    #[test]
    fn the_cooldown_counts_from_the_end_of_a_step() {
        let mut story = Story::new(1, 8);
        story.minute(&[10.0, 10.0]);
        assert_eq!(story.minute(&[10.0, 10.0, 10.0]), ScalingStep::Shrink);
        for _ in 0..4 {
            let draining = PoolUsage { used_percent: vec![10.0, 10.0], nodes: 2, draining: 1, ..PoolUsage::default() };
            assert!(matches!(story.with(draining), ScalingStep::Hold(Some(_))));
        }
        story.scaler.step_ended(story.at);
        assert_eq!(story.minute(&[10.0, 10.0]), COOL);
    }
}

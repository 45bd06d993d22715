//! The policy over time: once a period it is told what the pool looks like, and says what is to be done now.
#![deny(clippy::disallowed_methods)]

use std::time::Instant;

use super::{
    alarm::{Alarm, State, Threshold},
    policy::{Against, Now, Policy},
};

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing asks for a step, or something stands against the one that is asked for.
    Hold(Option<Against>),
    Grow {
        by: usize,
    },
    /// One node is to be drained.
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

    /// A period is over. A step that is returned counts as taken.
    pub fn next(&mut self, at: Instant, now: &Now) -> Step {
        let measured = self.policy.measure(&now.used_percent);
        let high = self.high.next(measured) == State::Raised;
        let low = self.low.as_mut().is_some_and(|low| low.next(measured) == State::Raised);
        let step = match (self.policy.missing(now.nodes), high, low) {
            // Below the minimum nothing else counts, not even a step a moment ago.
            (by @ 1.., ..) => Step::Grow { by },
            (_, false, false) => Step::Hold(None),
            _ if self.cools_down(at) => Step::Hold(Some(Against::Cooldown)),
            (_, true, _) => self.policy.growth(now).map_or_else(|why| Step::Hold(Some(why)), |by| Step::Grow { by }),
            (_, _, true) => self.policy.shrinkage(now).map_or_else(|why| Step::Hold(Some(why)), |()| Step::Shrink),
        };
        if !matches!(step, Step::Hold(_)) {
            self.last_step = Some(at);
        }
        step
    }

    /// A step took its time, and the cooldown counts from its end: a node that was added is there, or one has gone.
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

        fn minute(&mut self, used: &[f64]) -> Step {
            self.with(Now { used_percent: used.to_vec(), nodes: used.len(), ..Now::default() })
        }

        fn with(&mut self, now: Now) -> Step {
            self.at += Duration::from_secs(60);
            self.scaler.next(self.at, &now)
        }
    }

    const COOL: Step = Step::Hold(Some(Against::Cooldown));

    #[test]
    fn a_full_disk_grows_the_pool_once_in_a_cooldown() {
        let mut story = Story::new(1, 8);
        assert_eq!(story.minute(&[71.0]), Step::Hold(None));
        assert_eq!(story.minute(&[72.0]), Step::Grow { by: 1 });
        assert_eq!([story.minute(&[80.0, 0.0]), story.minute(&[80.0, 0.0])], [COOL, COOL]);
        assert_eq!(story.minute(&[80.0, 40.0]), Step::Grow { by: 1 });
        assert_eq!(story.minute(&[40.0, 40.0, 40.0]), Step::Hold(None));
    }

    #[test]
    fn empty_disks_shrink_it_down_to_the_floor() {
        let mut story = Story::new(3, 8);
        let empty = [10.0; 5];
        let steps: Vec<_> = (0..8).map(|_| story.minute(&empty)).collect();
        let shrinks: Vec<_> = steps.iter().map(|step| *step == Step::Shrink).collect();
        assert_eq!(shrinks, [false, true, false, false, true, false, false, true]);
        let at_floor: Vec<_> = (0..6).map(|_| story.minute(&empty[..3])).collect();
        assert!(!at_floor.contains(&Step::Shrink), "{at_floor:?}");
    }

    #[test]
    fn below_the_minimum_nothing_else_counts() {
        let mut story = Story::new(3, 8);
        assert_eq!(story.minute(&[]), Step::Grow { by: 3 });
        assert_eq!(story.minute(&[1.0, 1.0]), Step::Grow { by: 1 });
        assert_eq!(story.minute(&[1.0; 3]), COOL, "too small to shrink, and too soon besides");
    }

    #[test]
    fn a_node_that_is_silent_is_not_empty() {
        let mut story = Story::new(1, 8);
        for _ in 0..5 {
            let step = story.with(Now { used_percent: vec![20.0, 20.0], nodes: 3, ..Now::default() });
            assert!(matches!(step, Step::Hold(_)), "{step:?}");
        }
        // One period without a word from anybody says nothing; after two of them nothing is known any more.
        assert_eq!(story.with(Now { nodes: 3, ..Now::default() }), Step::Hold(Some(Against::Silent)));
        assert_eq!(story.with(Now { nodes: 3, ..Now::default() }), Step::Hold(None));
    }

    #[test]
    fn the_cooldown_counts_from_the_end_of_a_step() {
        let mut story = Story::new(1, 8);
        story.minute(&[10.0, 10.0]);
        assert_eq!(story.minute(&[10.0, 10.0, 10.0]), Step::Shrink);
        for _ in 0..4 {
            let draining = Now { used_percent: vec![10.0, 10.0], nodes: 2, draining: 1, ..Now::default() };
            assert!(matches!(story.with(draining), Step::Hold(Some(_))));
        }
        story.scaler.step_ended(story.at);
        assert_eq!(story.minute(&[10.0, 10.0]), COOL);
    }
}

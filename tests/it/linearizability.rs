//! Whether what several programs saw of one name could have happened one after the other: each operation takes effect
//! at one moment between its beginning and its end (Herlihy and Wing 1990). The search is that of Wing and Gong, with
//! the visited states remembered.

use std::collections::HashSet;

use std::time::Instant;

/// What an operation found, and what it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NameOp {
    /// `None`: it succeeds in either case.
    pub(crate) before: Option<bool>,
    /// `None`: it changes nothing.
    pub(crate) after: Option<bool>,
}

impl NameOp {
    pub(crate) const CREATED: Self = Self { before: Some(false), after: Some(true) };
    pub(crate) const REMOVED: Self = Self { before: Some(true), after: Some(false) };

    /// It found the name there or not, and changed nothing.
    pub(crate) const fn saw(there: bool) -> Self {
        Self { before: Some(there), after: None }
    }
}

/// One operation on a name, as the program saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observation {
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
    pub(crate) op: NameOp,
}

/// Whether there is an order of the operations on one name, absent at first, that explains them all. At most 128.
pub(crate) fn is_linearizable(observations: &[Observation]) -> bool {
    assert!(observations.len() <= 128, "{} operations are too many for one name", observations.len());
    let mut visited = HashSet::new();
    let mut open = vec![(0u128, false)];
    while let Some((done, there)) = open.pop() {
        if done.count_ones() as usize == observations.len() {
            return true;
        }
        let is_done = |index: usize| done & (1 << index) != 0;
        let pending = || observations.iter().enumerate().filter(|(index, _)| !is_done(*index));
        let Some(first_end) = pending().map(|(_, it)| it.ended).min() else { return true };
        for (index, observation) in pending() {
            // Another one had ended before this one began.
            if observation.begun > first_end || observation.op.before.is_some_and(|before| before != there) {
                continue;
            }
            let next = (done | (1 << index), observation.op.after.unwrap_or(there));
            if visited.insert(next) {
                open.push(next);
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn history(ops: &[(u64, u64, NameOp)]) -> bool {
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let observations: Vec<Observation> = ops
            .iter()
            .map(|(begun, ended, op)| Observation { begun: at(*begun), ended: at(*ended), op: *op })
            .collect();
        is_linearizable(&observations)
    }

    #[test]
    fn what_overlaps_may_take_effect_in_either_order() {
        assert!(history(&[(0, 10, NameOp::CREATED), (5, 15, NameOp::saw(false))]));
        assert!(history(&[(0, 10, NameOp::CREATED), (5, 15, NameOp::saw(true)), (20, 30, NameOp::REMOVED)]));
        assert!(history(&[(0, 10, NameOp::CREATED), (0, 10, NameOp::REMOVED), (11, 12, NameOp::CREATED)]));
    }

    #[test]
    fn a_stale_name_is_noticed() {
        assert!(!history(&[(0, 10, NameOp::CREATED), (11, 15, NameOp::saw(false))]));
        assert!(!history(&[(0, 1, NameOp::CREATED), (2, 3, NameOp::REMOVED), (4, 5, NameOp::saw(true))]));
        // One program had seen that it is gone, and then another one found it.
        let gone =
            [(0, 1, NameOp::CREATED), (2, 20, NameOp::REMOVED), (3, 5, NameOp::saw(false)), (6, 8, NameOp::saw(true))];
        assert!(!history(&gone));
    }

    #[test]
    fn two_exclusive_creators_cannot_both_win() {
        assert!(!history(&[(0, 10, NameOp::CREATED), (0, 10, NameOp::CREATED)]));
        assert!(history(&[(0, 10, NameOp::CREATED), (0, 10, NameOp::saw(true))]));
    }
}

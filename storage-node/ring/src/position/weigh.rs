//! What the arcs weigh, found from what the nodes hold that keep them.

use super::{Member, circle::Circle};

/// Finds masses that explain the loads: even ones at first, then each arc's corrected by the mean of what its holders
/// hold too much or too little (as Richardson and Lucy sharpen a picture). The mean is weighted by itself: a node that
/// lacks something says less than one that has it. A thousandth of the ring's mean is laid over all, so that an empty
/// ring is divided evenly. `members` are those of the circle, in its order.
pub(super) fn weigh(circle: &mut Circle, members: &[Member]) {
    let total: f64 = members.iter().map(|member| member.load_bytes as f64).sum();
    let density = (total / CIRCLE).max(1.0 / CIRCLE);
    let even: Vec<f64> = (0..circle.len()).map(|at| density * circle.positions(at) as f64).collect();
    circle.arcs.iter_mut().zip(&even).for_each(|(arc, even)| arc.mass = *even);
    for _ in 0..ROUNDS {
        let ratios = ratios(circle, members);
        if ratios.iter().all(|ratio| (ratio - 1.0).abs() < EXPLAINED) {
            break;
        }
        (0..circle.len()).for_each(|at| circle.arcs[at].mass *= correction(circle.holders(at), &ratios));
    }
    circle.arcs.iter_mut().zip(&even).for_each(|(arc, even)| arc.mass += even / 1000.0);
    if total > 0.0 {
        let ratios = ratios(circle, members);
        circle.arcs.iter_mut().zip(ratios).for_each(|(arc, ratio)| arc.unexplained = ratio);
    }
}

fn ratios(circle: &Circle, members: &[Member]) -> Vec<f64> {
    let ratio = |(load, member): (f64, &Member)| member.load_bytes as f64 / load.max(f64::MIN_POSITIVE);
    circle.loads().into_iter().zip(members).map(ratio).collect()
}

fn correction(holders: &[usize], ratios: &[f64]) -> f64 {
    let of_holders = || holders.iter().map(|&node| ratios[node]);
    let sum: f64 = of_holders().sum();
    if sum > 0.0 { of_holders().map(|ratio| ratio * ratio).sum::<f64>() / sum } else { 1e-3 }
}

const CIRCLE: f64 = 4_294_967_296.0;
/// How often the masses are corrected, at most, and when they explain the loads well enough.
const ROUNDS: usize = 32;
const EXPLAINED: f64 = 1e-2;

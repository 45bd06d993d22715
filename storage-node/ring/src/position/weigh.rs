//! Estimates the masses of the arcs from the loads of the nodes that hold them.

use super::{Member, circle::Circle};

/// Finds masses that explain the loads: starts with even ones and repeatedly corrects each arc by the mean ratio of
/// real to predicted load of its holders (Richardson-Lucy deconvolution). The mean is weighted by the ratios
/// themselves: a node with too little load is weaker evidence than one with too much. A thousandth of the even mass is
/// added to every arc, so that an empty ring is divided evenly. `members` are those of the circle, in its order.
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
/// The most corrections of the masses, and the error below which they explain the loads well enough.
const ROUNDS: usize = 32;
const EXPLAINED: f64 = 1e-2;

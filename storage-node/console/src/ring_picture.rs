//! The ring as a picture: where each node stands, the arc that it owns, its state, its zone, who votes and who leads.
//!
//! Everything that a colour tells is told by a shape or a letter, too: the state of a node by the dashes of its arc, a
//! vote by a second circle, the leader by a star. Each node has the number of its row in the table.

use std::f64::consts::TAU;

use chordfs_types::{
    admin::{NodeLine, RingNodeState, RingStatus},
    ring_id::RingArc,
};
use maud::{Markup, html};

use crate::node_table::votes;

const SIZE: f64 = 360.0;
const RADIUS: f64 = 118.0;
/// Where the zones are named.
const ZONE_RADIUS: f64 = 138.0;
/// Arcs end a little early, so that neighbours are told apart.
const GAP: f64 = 0.012;
/// Longer names of zones are cut; the table has them whole.
const ZONE_CHARS: usize = 8;

const STATES: [RingNodeState; 5] = [
    RingNodeState::Up,
    RingNodeState::Joining,
    RingNodeState::Draining,
    RingNodeState::Unreachable,
    RingNodeState::Foreign,
];

pub(crate) fn body(status: &RingStatus) -> Markup {
    let in_ring = || status.nodes.iter().enumerate().filter_map(|(at, node)| Some((at, node, node.arc?)));
    let outside: Vec<String> =
        status.nodes.iter().filter(|node| node.arc.is_none()).map(|node| node.address.to_string()).collect();
    html! {
        figure.ring {
            svg viewBox={ "0 0 " (SIZE) " " (SIZE) } role="img" aria-labelledby="ring-title ring-text" {
                title #ring-title { "The ring: " (in_ring().count()) " nodes by their positions" }
                desc #ring-text { @for (at, node, _) in in_ring() { (describe(at, node)) ". " } }
                @for (_, node, arc) in in_ring() { (piece(node, arc)) }
                path.zero d={ "M" (SIZE / 2.0) " " (SIZE / 2.0 - RADIUS + 5.0) "v12" } {}
                text x=(SIZE / 2.0) y=(SIZE / 2.0 - RADIUS + 26.0) { "position 0" }
                text x=(SIZE / 2.0) y=(SIZE / 2.0) { (in_ring().count()) " nodes" }
                @for (at, node, arc) in in_ring() { (dot(at, node, arc)) }
            }
            figcaption { (legend()) }
        }
        @if !outside.is_empty() { p { "Voters outside the ring: " (outside.join(", ")) "." } }
    }
}

fn describe(at: usize, node: &NodeLine) -> String {
    let share = node.share.map_or(String::new(), |share| format!(", {:.1}% of the ring", share * 100.0));
    let vote = match votes(node) {
        "leader" => ", leads the namespace",
        "yes" => ", votes",
        _ => "",
    };
    let zone = node.zone.as_ref().map_or(String::new(), |zone| format!(", zone {zone}"));
    format!("{}: {}, {}{share}{vote}{zone}", at + 1, node.address, node.state.label())
}

fn piece(node: &NodeLine, arc: RingArc) -> Markup {
    html! { path.arc data-state=(node.state.label()) d=(arc_path(arc)) {} }
}

/// Clockwise from the position before the arc to its own.
fn arc_path(arc: RingArc) -> String {
    let share = arc.len() as f64 / (1_u64 << 32) as f64;
    let end = angle(arc.upto.0);
    let length = (share * TAU - 2.0 * GAP).max(GAP);
    // A whole circle has to be drawn in two pieces.
    let points = [1.0, 0.5, 0.0].map(|part| point(end - GAP - part * length, RADIUS));
    let [(ax, ay), (bx, by), (cx, cy)] = points;
    format!("M{ax:.1} {ay:.1}A{RADIUS} {RADIUS} 0 0 1 {bx:.1} {by:.1}A{RADIUS} {RADIUS} 0 0 1 {cx:.1} {cy:.1}")
}

fn dot(at: usize, node: &NodeLine, arc: RingArc) -> Markup {
    let (x, y) = point(angle(arc.upto.0), RADIUS);
    let (zone_x, zone_y) = point(angle(arc.upto.0), ZONE_RADIUS);
    let zone = node.zone.as_ref().map(|zone| zone.chars().take(ZONE_CHARS).collect::<String>());
    html! {
        g.node data-state=(node.state.label()) {
            title { (describe(at, node)) }
            @if node.voter { circle.vote cx=(coordinate(x)) cy=(coordinate(y)) r="16" {} }
            circle.dot cx=(coordinate(x)) cy=(coordinate(y)) r="12" {}
            text x=(coordinate(x)) y=(coordinate(y)) { (at + 1) }
            @if node.leader { text.star x=(coordinate(x + 17.0)) y=(coordinate(y - 15.0)) { "★" } }
            @if let Some(zone) = zone {
                text.zone data-side=(side(zone_x)) x=(coordinate(zone_x)) y=(coordinate(zone_y)) { (zone) }
            }
        }
    }
}

/// Names grow away from the circle.
fn side(x: f64) -> &'static str {
    match x - SIZE / 2.0 {
        left if left < -20.0 => "left",
        right if right > 20.0 => "right",
        _ => "middle",
    }
}

fn legend() -> Markup {
    html! {
        ul.legend {
            @for state in STATES {
                li {
                    svg.key viewBox="0 0 32 8" aria-hidden="true" { path.arc data-state=(state.label()) d="M0 4H32" {} }
                    " " (state.label())
                }
            }
            li { svg.key viewBox="0 0 32 32" aria-hidden="true" { circle.vote cx="16" cy="16" r="12" {} } " votes" }
            li { span.star aria-hidden="true" { "★" } " leads the namespace" }
            li { "Numbers are those of the table; names outside are zones." }
        }
    }
}

/// Position 0 is at the top, and positions grow clockwise.
fn angle(position: u32) -> f64 {
    f64::from(position) / (1_u64 << 32) as f64 * TAU
}

fn point(angle: f64, radius: f64) -> (f64, f64) {
    (SIZE / 2.0 + radius * angle.sin(), SIZE / 2.0 - radius * angle.cos())
}

fn coordinate(value: f64) -> String {
    format!("{value:.1}")
}

#[cfg(test)]
mod tests {
    use chordfs_types::ring_id::RingId;

    use super::*;

    #[test]
    fn a_quarter_of_the_ring_is_a_quarter_of_the_circle() {
        let quarter = arc_path(RingArc::new(RingId(0), RingId(1 << 30)));
        assert!(quarter.starts_with("M181.4 62.0A118 118 0 0 1 26"), "{quarter}");
        assert!(quarter.ends_with(" 298.0 178.6"), "{quarter}");
    }

    #[test]
    fn one_node_owns_the_whole_circle() {
        let whole = arc_path(RingArc::new(RingId(7), RingId(7)));
        assert!(whole.contains("A118 118 0 0 1 180.0 298.0A"), "{whole}");
    }
}

//! The verdict on the ring with its reasons, in the words of `storage-node status`, and the ring at a glance.

use chordfs_types::{
    admin::{HealthLevel, INSECURE, RingStatus},
    byte_size::human,
};
use maud::{Markup, html};

pub(crate) fn body(status: &RingStatus) -> Markup {
    let health = &status.health;
    html! {
        p.verdict data-level=(health.level) { (sign(health.level)) " " (health.level) ": " (meaning(health.level)) }
        @if !health.reasons.is_empty() {
            ul.reasons { @for reason in &health.reasons { li data-level=(reason.level) { (reason) } } }
        }
        (glance(status))
    }
}

fn glance(status: &RingStatus) -> Markup {
    let copies = status.under_replicated.map_or("not known yet".into(), |copies| format!("{copies} copies"));
    let voters: Vec<String> = status.namespace.voters.iter().map(|voter| status.voter_text(*voter)).collect();
    html! {
        dl {
            dt { "Under-replicated" } dd { (copies) }
            @if let Some(space) = status.space {
                dt { "Room for files" } dd { (human(space.free_bytes)) " free of " (human(space.capacity_bytes)) }
            }
            dt { "Cache" } dd { (status.cache().text()) }
            dt { "Namespace leader" }
            dd { @if let Some(leader) = status.namespace.leader { (leader) } @else { "none" } }
            dt { "Namespace voters" } dd { @if voters.is_empty() { "none" } @else { (voters.join(", ")) } }
            @if status.insecure { dt { "Security" } dd data-level=(HealthLevel::Warn) { "⚠ " (INSECURE) } }
        }
    }
}

/// The level must not be told by colour alone.
fn sign(level: HealthLevel) -> &'static str {
    match level {
        HealthLevel::Ok => "✔",
        HealthLevel::Warn => "⚠",
        HealthLevel::Error => "✖",
    }
}

fn meaning(level: HealthLevel) -> &'static str {
    match level {
        HealthLevel::Ok => "nothing needs attention",
        HealthLevel::Warn => "everything works, with less redundancy or room than it should have",
        HealthLevel::Error => "something does not work",
    }
}

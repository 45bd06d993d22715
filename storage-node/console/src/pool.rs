//! The size of the pool: what is wanted, what there is, by which rule it changes, and the decisions so far.

use chordfs_types::{
    admin::{PoolDecisionLine, PoolNodes, PoolStatus, PoolTarget},
    ring_config::{PoolConfig, PoolMode},
};
use maud::{Markup, html};

use crate::time;

const UNKNOWN: &str = "-";
/// The decisions that are shown at once; the older ones unfold.
const SHOWN_DECISIONS: usize = 10;

pub(crate) fn body(pool: &Result<PoolStatus, String>, config: &PoolConfig) -> Markup {
    match pool {
        Err(reason) => html! { p { "The size of the pool is not known at present: " (reason) "." } },
        Ok(pool) => html! { (size(&pool.target, &pool.nodes)) (rule(&pool.target, config)) (history(&pool.decisions)) },
    }
}

fn size(target: &PoolTarget, nodes: &PoolNodes) -> Markup {
    let more = [
        ("Arriving", nodes.arriving),
        ("Being filled", nodes.filling),
        ("Draining", nodes.draining),
        ("Not answering", nodes.silent),
    ];
    html! {
        dl {
            dt { "Wanted" }
            dd #wanted { @match target.nodes() {
                Some(wanted) => { (wanted) }
                None => { "nobody has chosen a size" }
            } }
            dt { "Serving" }
            dd #serving { (nodes.serving) }
            @for (what, count) in more.into_iter().filter(|(_, count)| *count > 0) { dt { (what) } dd { (count) } }
        }
    }
}

fn rule(target: &PoolTarget, config: &PoolConfig) -> Markup {
    let PoolTarget { smallest, largest, .. } = target;
    html! {
        @match target.mode {
            PoolMode::Manual => p { "Mode manual: an operator grows and shrinks the pool, between " (smallest) " and " (largest) " nodes." }
            PoolMode::Automatic => {
                p { "Mode automatic: the scaler grows and shrinks the pool, between " (smallest) " and " (largest) " nodes, once a minute." }
                ul {
                    li { "Above a miss rate of " (config.max_miss_rate) " it multiplies the number of nodes by " (config.expand_ratio) " and rounds up." }
                    li { "Below a miss rate of " (config.min_miss_rate) " it multiplies the number of nodes by " (config.shrink_ratio) " and rounds down, if no copy is missing and the disks of the others have room." }
                    li { "While the fullest disk is used by more than " (config.max_disk_use) " it adds a node. Without any reads, it removes one while all disks are used by less than " (config.min_disk_use) "." }
                }
                p.note { "The miss rate is the mean over the nodes in the last minute." }
            }
        }
        @if target.wanted.is_none() {
            p.note {
                "Until somebody chooses a size, the pool follows the settings that it was started with: a local pool its thresholds of \
                 disk use, an Auto Scaling group its alarms."
            }
        }
    }
}

fn history(decisions: &[PoolDecisionLine]) -> Markup {
    let (shown, older) = decisions.split_at(decisions.len().min(SHOWN_DECISIONS));
    html! {
        @if shown.is_empty() {
            p { "No decision so far." }
        } @else {
            (table("The last decisions, newest first", shown))
        }
        @if !older.is_empty() {
            details { summary { "Older decisions" } (table("Older decisions, newest first", older)) }
        }
    }
}

fn table(caption: &str, decisions: &[PoolDecisionLine]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(caption) {
            table {
                caption { (caption) }
                thead {
                    tr {
                        th.number scope="col" { "Number" }
                        th scope="col" { "Time (UTC)" }
                        th scope="col" { "Nodes" }
                        th scope="col" { "By" }
                        th scope="col" { "Reason" }
                        th.number scope="col" { "Miss rate" }
                        th.number scope="col" { "Fullest disk" }
                    }
                }
                tbody { @for decision in decisions { (row(decision)) } }
            }
        }
    }
}

fn row(decision: &PoolDecisionLine) -> Markup {
    let share = |value: Option<f64>| value.map_or(UNKNOWN.into(), |value| format!("{value:.2}"));
    let to = decision.to.map_or("its own settings".into(), |to| to.to_string());
    html! {
        tr {
            th.number scope="row" { (decision.serial) }
            td { (time::day_and_second(decision.time)) }
            td { (decision.from) " → " (to) }
            td { (decision.by) }
            td { (decision.reason) }
            td.number { (share(decision.miss_rate)) }
            td.number { (share(decision.fullest_disk)) }
        }
    }
}

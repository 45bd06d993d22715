//! The charts of the last 30 minutes, of the whole ring or of one node.
//!
//! | file | what |
//! |---|---|
//! | `slots` | the points of a minute, of all nodes or of one |
//! | `catalog` | which charts there are, and how their values follow from points |
//! | `unit` | how values are written and scaled |
//! | `drawing` | a chart as SVG, by `plotters` |

mod catalog;
mod drawing;
mod slots;
mod unit;

use std::net::SocketAddr;

use chordfs_types::admin::{HistorySource, RingHistory};
use maud::{Markup, PreEscaped, html};

use self::{catalog::charts, slots::Slots, unit::Unit};
use crate::{time, view::ConsoleQuery};

/// A chart: a line for each series, over the same minutes.
pub(crate) struct Chart {
    /// Unique on the page.
    pub id: &'static str,
    pub title: String,
    pub unit: Unit,
    pub series: Vec<Series>,
    pub minutes: Vec<ShownMinute>,
}

pub(crate) struct Series {
    pub name: &'static str,
    /// A value for each minute; `None` is a gap.
    pub values: Vec<Option<f64>>,
}

/// A minute on the axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShownMinute {
    /// `14:05`.
    pub label: String,
    /// Set if some nodes of the ring have no point in this minute, so that a sum lacks theirs.
    pub missing: Option<String>,
}

pub(crate) fn body(history: &RingHistory, query: &ConsoleQuery) -> Markup {
    let slots = Slots::of(history, query.node);
    html! {
        (scopes(history, query))
        p.note {
            @match query.node {
                None => "All nodes together: sums, or what is said in the title. ",
                Some(node) => { "Of " strong { (node) } " alone. " (source_note(history, node)) }
            }
            "One point a minute, times in UTC. A gap is a minute without a report. Point at a chart for its values."
        }
        div.charts { @for chart in charts(&slots, query.node.is_some()) { (figure(&chart)) } }
    }
}

/// The choice between the ring and each node.
fn scopes(history: &RingHistory, query: &ConsoleQuery) -> Markup {
    let current = |is_current: bool| is_current.then_some("true");
    html! {
        nav aria-label="Charts of" {
            ul.scopes {
                li { a href={ (query.href_of(None)) "#charts" } aria-current=[current(query.node.is_none())] { "Whole ring" } }
                @for node in &history.nodes {
                    li {
                        a href={ (query.href_of(Some(node.address))) "#charts" }
                            aria-current=[current(query.node == Some(node.address))] { (node.address) }
                    }
                }
            }
        }
    }
}

fn source_note(history: &RingHistory, node: SocketAddr) -> &'static str {
    match history.nodes.iter().find(|known| known.address == node).map(|known| known.source) {
        Some(HistorySource::Answered) => "",
        Some(HistorySource::Unresponsive) => "It does not answer; this is what it reported before. ",
        Some(HistorySource::Left) => "It has left the ring; this is what it reported before. ",
        None => "No node of this address is known. ",
    }
}

fn figure(chart: &Chart) -> Markup {
    html! {
        figure id={ "chart-" (chart.id) } data-chart=(chart.id) {
            figcaption { h3 { (chart.title) } }
            (drawing::svg(chart))
            p.readout aria-hidden="true" {}
            (legend(chart))
            (table(chart))
        }
    }
}

/// The name of each series with its last value.
fn legend(chart: &Chart) -> Markup {
    let last = |series: &Series| series.values.last().copied().flatten();
    html! {
        ul.legend {
            @for (at, series) in chart.series.iter().enumerate() {
                li {
                    svg.key viewBox="0 0 32 8" aria-hidden="true" {
                        path fill="none" stroke=(drawing::color_code(at)) stroke-width="3" d="M0 4H32" {}
                    }
                    " " (series.name) ": "
                    span.value { @if let Some(value) = last(series) { (chart.unit.text(value)) } @else { "–" } }
                }
            }
        }
    }
}

/// For those who cannot point at a chart.
fn table(chart: &Chart) -> Markup {
    html! {
        details data-keep=(chart.id) {
            summary { "Values" span.hidden { " of " (chart.title) } }
            table {
                caption.hidden { (chart.title) }
                thead { tr { th scope="col" { "UTC" } @for series in &chart.series { th.number scope="col" { (series.name) } } } }
                tbody {
                    @for (at, minute) in chart.minutes.iter().enumerate().rev() {
                        tr {
                            th scope="row" { (minute.label) }
                            @for series in &chart.series {
                                td.number { @if let Some(value) = series.values[at] { (chart.unit.text(value)) } @else { "–" } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What is shown while one points at a minute.
fn readout(chart: &Chart, at: usize) -> Option<String> {
    let minute = &chart.minutes[at];
    let value = |series: &Series| Some(format!("{} {}", series.name, chart.unit.text(series.values[at]?)));
    let values: Vec<String> = chart.series.iter().filter_map(value).collect();
    let missing = minute.missing.as_ref().map_or(String::new(), |missing| format!(" ({missing})"));
    (!values.is_empty()).then(|| format!("{} UTC: {}{missing}", minute.label, values.join(", ")))
}

/// What the chart shows, for those who do not see it.
fn describe(chart: &Chart) -> String {
    let series = chart.series.iter().map(|series| {
        let values = || series.values.iter().copied().flatten();
        let Some(last) = values().next_back() else { return format!("{}: no value yet.", series.name) };
        let [least, most] = [values().fold(f64::MAX, f64::min), values().fold(f64::MIN, f64::max)];
        let [last, least, most] = [last, least, most].map(|value| chart.unit.text(value));
        format!("{}: last {last}, between {least} and {most}.", series.name)
    });
    std::iter::once("The last 30 minutes, one point a minute.".to_owned()).chain(series).collect::<Vec<_>>().join(" ")
}

fn svg_figure(chart: &Chart, width: u32, height: u32, inner: &str) -> Markup {
    let (title_id, text_id) = (format!("title-{}", chart.id), format!("text-{}", chart.id));
    html! {
        svg.chart viewBox={ "0 0 " (width) " " (height) } role="img" aria-labelledby={ (title_id) " " (text_id) } {
            title id=(title_id) { (chart.title) }
            desc id=(text_id) { (describe(chart)) }
            (PreEscaped(inner))
        }
    }
}

pub(crate) fn shown_minutes(slots: &Slots<'_>) -> Vec<ShownMinute> {
    let minute = |at: usize, time: u64| ShownMinute {
        label: time::period(time, slots.period_seconds),
        missing: slots.missing(at),
    };
    slots.times.iter().enumerate().map(|(at, time)| minute(at, *time)).collect()
}

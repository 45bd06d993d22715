//! The page of rings of one and of eight nodes, and of one with a node that does not answer.

use std::net::SocketAddr;

use chordfs_history::known::Minutes;
use chordfs_types::{
    admin::{
        CacheMinute, DiskMinute, Health, HealthFacts, HistoryPoint, HistorySource, LatencySummary, NamespaceStatus,
        NodeLine, PoolDecisionLine, PoolNodes, PoolStatus, PoolTarget, RingHistory, RingNodeHistory, RingNodeState,
        RingStatus, SessionStatus,
    },
    namespace::{PoolDecider, PoolSize, Time},
    ring_config::{CONFIG_FIELDS, RingConfig},
    ring_id::{RingArc, RingId},
};

use crate::{
    ConsoleQuery, Fragment, OperatorView, RingView, SCRIPT, STYLE, fragments, log_in_section, operator_sections,
    outcome_page, page, section,
};

const CHARTS: [&str; 14] = [
    "nodes",
    "hit-rate",
    "items",
    "cache-bytes",
    "requests",
    "disk",
    "bytes",
    "repair-chunks",
    "repair-bytes",
    "operations",
    "read-latency",
    "write-latency",
    "name-latency",
    "log-latency",
];
const NOW: u64 = 1_800_000_030;

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 5057))
}

fn line(number: u8, count: u8, state: RingNodeState) -> NodeLine {
    let id = |number: u8| RingId((u64::from(number) * (1 << 32) / u64::from(count)) as u32);
    NodeLine {
        id: Some(id(number)),
        arc: Some(RingArc::new(id((number + count - 1) % count), id(number))),
        share: Some(1.0 / f64::from(count)),
        chunks: Some(u64::from(number) * 10),
        data_bytes: Some(1 << 20),
        free_bytes: Some(1 << 30),
        capacity_bytes: Some(2 << 30),
        voter: number < 3,
        leader: number == 0,
        zone: Some("rack 7".into()),
        ..NodeLine::without_status(address(number), state)
    }
}

fn point(time: u64, nodes: u8) -> HistoryPoint {
    let latency = LatencySummary { count: 6, p50_us: None, p99_us: None, buckets: vec![(1000, 5), (9000, 1)] };
    HistoryPoint {
        time,
        seconds: 60.0,
        nodes: Some(nodes.into()),
        cache: CacheMinute { hits: 9, misses: 3, items: 5, bytes: 1 << 20, capacity_bytes: 4 << 20 },
        requests: 120,
        read_bytes: 60 << 10,
        written_bytes: 0,
        disk: DiskMinute { used_bytes: 1 << 30, capacity_bytes: 4 << 30 },
        reads: latency.clone(),
        writes: latency.clone(),
        names: latency.clone(),
        log: Some(latency),
        ..HistoryPoint::default()
    }
}

/// A ring of `count` nodes, in which those of `silent` do not answer and have reported nothing in the last ten minutes.
fn view(count: u8, silent: &[u8]) -> RingView {
    let minutes: Vec<u64> = Minutes { now: NOW, period_seconds: 60 }.shown().collect();
    let state = |number| if silent.contains(&number) { RingNodeState::Unreachable } else { RingNodeState::Up };
    let history = |number: u8| {
        let is_silent = silent.contains(&number);
        let reported = if is_silent { &minutes[..20] } else { &minutes };
        RingNodeHistory {
            address: address(number),
            source: if is_silent { HistorySource::Unresponsive } else { HistorySource::Answered },
            points: reported.iter().map(|time| point(*time, count)).collect(),
        }
    };
    let mut status = RingStatus {
        asked: address(0),
        nodes: (0..count).map(|number| line(number, count, state(number))).collect(),
        under_replicated: Some(0),
        space: None,
        namespace: NamespaceStatus {
            known: true,
            leader: Some(address(0)),
            leader_confirmed: true,
            voters: (0..count.min(3)).map(address).collect(),
            ..NamespaceStatus::default()
        },
        insecure: false,
        health: Health::default(),
    };
    status.health = Health::judge(&HealthFacts::of_ring(&status));
    let session = SessionStatus {
        id: 7,
        client: "<b>host</b>:/mnt".into(),
        addresses: vec![address(99)],
        silent_seconds: 2,
        lease_seconds_left: 58,
        held_files: 0,
        is_mount: true,
        is_suspended: false,
        leases: 12,
        recalls: 1,
        dirty_bytes: Some(3 << 20),
        open_files: None,
        unlogged_changes: Some(57),
        oldest_unlogged_millis: Some(420),
    };
    let nodes = (0..count).map(history).collect();
    let history = RingHistory { asked: address(0), time: NOW, period_seconds: 60, nodes };
    RingView { status, history, sessions: Ok(vec![session]), pool: Ok(pool(count)), config: RingConfig::default() }
}

/// A pool that has grown by one node twelve times; the last decision is the scaler's.
fn pool(count: u8) -> PoolStatus {
    let decisions = (1..=12).rev().map(|serial| PoolDecisionLine {
        serial,
        time: NOW as i64 - 3600,
        from: serial as u32 - 1,
        to: Some(serial as u32),
        by: if serial == 12 { PoolDecider::Scaler } else { PoolDecider::Operator },
        reason: format!("decision <{serial}>"),
        miss_rate: (serial == 12).then_some(0.625),
        fullest_disk: None,
    });
    let config = RingConfig::default();
    let size = PoolSize { serial: 12, wanted: Some(5), ..PoolSize::default() };
    PoolStatus {
        target: PoolTarget::new(&config.pool, &size, Time::default()),
        nodes: PoolNodes { serving: count.into(), draining: 1, ..PoolNodes::default() },
        decisions: decisions.collect(),
    }
}

fn render(view: &RingView, query: &ConsoleQuery) -> String {
    let sections: Vec<_> = fragments(view, query).iter().map(section).collect();
    page(view, &sections).into_string()
}

fn fragment(view: &RingView, query: &ConsoleQuery, id: &str) -> String {
    let found = fragments(view, query).into_iter().find(|fragment| fragment.id == id);
    found.map(|Fragment { html, .. }| html).expect("it is there")
}

/// The part of the page about one chart.
fn chart(html: &str, id: &str) -> String {
    let begin = html.find(&format!("<figure id=\"chart-{id}\"")).unwrap_or_else(|| panic!("no chart {id}"));
    html[begin..].split_once("</figure>").expect("it ends").0.to_owned()
}

#[test]
fn every_chart_is_there_with_axis_unit_legend_and_values_for_one_node_and_for_eight() {
    for count in [1, 8] {
        let view = view(count, &[]);
        for node in [None, Some(address(0))] {
            let html = render(&view, &ConsoleQuery { node, ..ConsoleQuery::default() });
            for id in CHARTS {
                let chart = chart(&html, id);
                assert!(chart.contains("<title id=") && chart.contains("<desc id="), "{id} is described");
                assert!(chart.contains("polyline") && chart.contains("stroke=\"#020001\""), "{id} has a line");
                assert_eq!(chart.matches("<rect class=\"minute\"").count(), 30, "{id} has values on hover");
                assert!(chart.contains("class=\"legend\""), "{id}");
            }
            assert_eq!(html.matches("<figure id=\"chart-").count(), CHARTS.len());
        }
    }
}

#[test]
fn the_values_of_the_ring_are_those_of_all_nodes_together() {
    let charts = fragment(&view(8, &[]), &ConsoleQuery::default(), "charts");
    for (id, text) in [
        ("nodes", "UTC: nodes 8"),
        ("hit-rate", "hits 75.0%, misses 25.0%"),
        ("items", "chunks 40"),
        ("cache-bytes", "used 8.00 MiB, capacity 32.0 MiB"),
        ("requests", "requests 960/min"),
        ("disk", "fullest node 25.0%, mean of all 25.0%"),
        ("bytes", "read 8.00 KiB/s, written 0 B/s"),
        ("operations", "reads 0.80/s"),
        ("read-latency", "p50 1.0"),
        ("log-latency", "p99 9.2"),
    ] {
        let chart = chart(&charts, id);
        assert!(chart.contains(text), "{id} lacks {text}: {chart}");
    }
}

#[test]
fn a_node_that_does_not_answer_leaves_a_gap_and_the_page_usable() {
    let view = view(3, &[1]);
    let silent = ConsoleQuery { node: Some(address(1)), ..ConsoleQuery::default() };
    let alone = fragment(&view, &silent, "charts");
    assert_eq!(chart(&alone, "requests").matches("<rect class=\"minute\"").count(), 20, "ten minutes are missing");
    assert!(chart(&alone, "requests").contains("requests: <span class=\"value\">–</span>"), "and not zero");
    assert!(alone.contains("It does not answer"));
    let all = fragment(&view, &ConsoleQuery::default(), "charts");
    assert_eq!(chart(&all, "requests").matches("2 of 3 nodes reported").count(), 10);
    let health = fragment(&view, &ConsoleQuery::default(), "health");
    assert!(health.contains("1 of 3 voters does not answer: 10.0.0.1:5057"), "the words of `status`: {health}");
    assert!(fragment(&view, &ConsoleQuery::default(), "nodes").contains("unreachable"));
}

#[test]
fn a_ring_without_a_single_point_has_empty_charts() {
    let mut view = view(1, &[]);
    view.history.nodes[0].points.clear();
    let charts = fragment(&view, &ConsoleQuery::default(), "charts");
    assert!(chart(&charts, "bytes").contains("read: no value yet."));
    assert_eq!(charts.matches("class=\"minute").count(), 0);
}

#[test]
fn the_table_is_sorted_as_the_address_of_the_page_says() {
    let order = |query: &[(&str, &str)]| {
        let mut view = view(3, &[]);
        view.status.nodes[1].chunks = None;
        let html = fragment(&view, &ConsoleQuery::of(query.iter().copied()), "nodes");
        let rows = html.split("<tr data-state=").skip(1);
        rows.map(|row| row.split("10.0.0.").nth(1).and_then(|rest| rest.chars().next()).unwrap()).collect::<String>()
    };
    assert_eq!(order(&[]), "012");
    assert_eq!(order(&[("sort", "node"), ("dir", "desc")]), "210");
    assert_eq!(order(&[("sort", "chunks")]), "021", "unknown values come last");
    assert_eq!(order(&[("sort", "chunks"), ("dir", "desc")]), "201");
    assert_eq!(order(&[("sort", "<script>"), ("node", "nowhere")]), "012", "a stranger's query is ignored");
}

#[test]
fn what_clients_send_is_escaped_and_nothing_comes_from_elsewhere() {
    let html = render(&view(8, &[]), &ConsoleQuery::default());
    assert!(html.contains("&lt;b&gt;host&lt;/b&gt;") && !html.contains("<b>"));
    assert!(html.contains("<td class=\"number\">3.00 MiB</td><td class=\"number\">-</td>"), "of the session");
    assert!(!html.contains("http://") && !html.contains("https://") && !html.contains(" style="));
    assert!(!STYLE.contains("url(") && !SCRIPT.contains("http"));
}

#[test]
fn every_code_of_a_colour_has_its_colour() {
    let html = render(&view(8, &[]), &ConsoleQuery::default());
    let codes: std::collections::BTreeSet<&str> =
        html.match_indices("\"#0").map(|(at, _)| &html[at + 1..at + 8]).collect();
    assert!(codes.len() >= 6, "{codes:?}");
    let missing: Vec<_> = codes.iter().filter(|code| !STYLE.contains(&format!("=\"{code}\"]"))).collect();
    assert!(missing.is_empty(), "console.css lacks {missing:?}");
}

#[test]
fn headings_captions_and_labels_lead_through_the_page() {
    let html = render(&view(3, &[]), &ConsoleQuery::default());
    for id in ["health", "ring", "nodes", "pool", "charts", "sessions"] {
        assert!(html.contains(&format!("href=\"#{id}\"")), "the navigation leads to {id}");
        assert!(html.contains(&format!("<section id=\"{id}\" aria-labelledby=\"{id}-heading\">")), "{id}");
        assert!(html.contains(&format!("data-live=\"{id}\"")), "{id}");
    }
    assert_eq!(html.matches("<table").count(), html.matches("<caption").count());
    assert_eq!(html.matches("role=\"img\"").count(), html.matches("<desc id=").count());
    assert!(html.contains("<noscript><meta http-equiv=\"refresh\""));
}

#[test]
fn the_decisions_about_the_size_are_told_with_their_reasons() {
    let mut view = view(3, &[]);
    let html = fragment(&view, &ConsoleQuery::default(), "pool");
    for text in [
        "<dd id=\"wanted\">5</dd>",
        "<dd id=\"serving\">3</dd>",
        "<dt>Draining</dt><dd>1</dd>",
        "an operator grows and shrinks the pool, between 1 and 8 nodes",
        "<td>2027-01-15 07:00:30</td><td>11 → 12</td><td>scaler</td><td>decision &lt;12&gt;</td><td class=\"number\">0.62</td>",
    ] {
        assert!(html.contains(text), "{text} is not in {html}");
    }
    let (shown, older) = html.split_once("<details>").expect("two decisions unfold");
    assert_eq!((shown.matches("decision &lt;").count(), older.matches("decision &lt;").count()), (10, 2));
    view.config = RingConfig::default().with([("pool.mode", "automatic")]).unwrap();
    if let Ok(pool) = &mut view.pool {
        (pool.target.mode, pool.target.wanted) = (view.config.pool.mode, None);
        pool.decisions.clear();
    }
    let html = fragment(&view, &ConsoleQuery::default(), "pool");
    for text in [
        "multiplies the number of nodes by 2 and rounds up",
        "by 0.5 and rounds down",
        "No decision so far",
        "its alarms",
    ] {
        assert!(html.contains(text), "{text} is not in {html}");
    }
    view.pool = Err("no <leader> is known".into());
    assert!(fragment(&view, &ConsoleQuery::default(), "pool").contains("no &lt;leader&gt; is known"));
}

#[test]
fn only_a_manual_pool_has_buttons() {
    let page = |mode: &str| {
        let config = RingConfig::default().with([("pool.mode", mode)]).unwrap();
        let view = OperatorView { config, nodes: Vec::new(), deletion: None };
        operator_sections(&view).into_iter().map(|section| section.body.into_string()).collect::<String>()
    };
    let (manual, automatic) = (page("manual"), page("automatic"));
    for action in ["grow", "shrink", "release"] {
        let button = format!("<button name=\"action\" value=\"{action}\">");
        assert!(manual.contains(&button) && !automatic.contains(&button), "{action}");
    }
    assert!(automatic.contains("Set pool.mode to manual"));
}

fn operator_page(deletion: Option<&str>) -> String {
    let config = RingConfig::default().with([("ring.name", "prod-7"), ("cache.policy", "random")]).unwrap();
    let view = OperatorView { config, nodes: vec![address(0), address(1)], deletion: deletion.map(str::to_owned) };
    operator_sections(&view).into_iter().map(|section| section.body.into_string()).collect()
}

#[test]
fn every_setting_has_a_labelled_field_with_its_value() {
    let page = operator_page(None);
    for field in &CONFIG_FIELDS {
        let name = field.name;
        assert!(page.contains(&format!("<label for=\"{name}\">")), "{name}");
        assert!(page.contains(&format!("id=\"{name}\" name=\"{name}\"")), "{name}");
    }
    assert!(page.contains("<option value=\"random\" selected>"));
    assert!(page.contains("name=\"ring.name\" value=\"prod-7\""));
    assert_eq!(page.matches("type=\"hidden\" name=\"version\" value=\"0\"").count(), 3, "one in each group");
}

/// Without a script the page loads itself anew, and took away what somebody was typing into it.
#[test]
fn a_page_with_forms_is_not_loaded_anew() {
    let operator = OperatorView { config: RingConfig::default(), nodes: vec![address(0)], deletion: None };
    let html = page(&view(1, &[]), &operator_sections(&operator)).into_string();
    assert!(html.contains("<form") && !html.contains("http-equiv=\"refresh\""));
}

#[test]
fn what_cannot_be_undone_asks_for_the_rings_name() {
    let page = operator_page(Some("7 <files>"));
    assert_eq!(page.matches("<strong>prod-7</strong>").count(), 2);
    assert!(page.contains("7 &lt;files&gt;"));
    assert!(log_in_section().body.into_string().contains("href=\"/login\""));
    let refused = outcome_page(false, "\"<b>\" is not the name", "maintenance").into_string();
    assert!(refused.contains("&lt;b&gt;") && refused.contains("href=\"/#maintenance\"") && refused.contains("alert"));
}

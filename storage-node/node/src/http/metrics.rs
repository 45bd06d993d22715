//! Counting requests, and the recorder that `/metrics` renders.
//!
//! Only counters and gauges: they take constant memory even if the metrics are never scraped.

use std::sync::OnceLock;

use axum::{extract::Request, http::Method, middleware::Next, response::Response};
use chordfs_types::admin::{CacheStatus, Health, HealthCode, LeaseStatus, LoggedStatus, RepairStatus};
use metrics::{counter, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

static RECORDER: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();

/// Installs the process's recorder at the first call; every call returns its handle. Fails if another recorder is
/// installed.
pub fn install_recorder() -> Result<PrometheusHandle, String> {
    let install = || PrometheusBuilder::new().install_recorder().map_err(|error| error.to_string());
    RECORDER.get_or_init(install).clone()
}

/// Middleware for the routes of 5058.
pub async fn count_files(request: Request, next: Next) -> Response {
    count("files", request, next).await
}

/// Middleware for the routes of 5059.
pub async fn count_admin(request: Request, next: Next) -> Response {
    count("admin", request, next).await
}

/// Records the verdict on this node: 0 for OK, 1 for WARN, 2 for ERROR, and each possible reason as 0 or 1.
pub fn record_health(health: &Health) {
    gauge!("chordfs_health").set(f64::from(health.level.exit_code()));
    for code in HealthCode::ALL {
        gauge!("chordfs_health_reason", "code" => code.label()).set(f64::from(u8::from(health.has(code))));
    }
}

/// Records the progress of filling this node (`incoming`) and of repairing others (`outgoing`).
pub fn record_repair(status: &RepairStatus) {
    for (way, flow) in [("incoming", &status.incoming), ("outgoing", &status.outgoing)] {
        gauge!("chordfs_repair_chunks_left", "way" => way).set(flow.chunks_left as f64);
        gauge!("chordfs_repair_bytes_left", "way" => way).set(flow.bytes_left as f64);
        gauge!("chordfs_repair_bytes_per_second", "way" => way).set(flow.bytes_per_second as f64);
        gauge!("chordfs_repair_seconds_left", "way" => way).set(flow.seconds_left.map_or(f64::NAN, |left| left as f64));
        counter!("chordfs_repair_chunks_total", "way" => way).absolute(flow.chunks_moved);
        counter!("chordfs_repair_bytes_total", "way" => way).absolute(flow.bytes_moved);
    }
}

/// Records the leases of mounts, and what the leader of the namespace has asked mounts to let go.
pub fn record_leases(status: &LeaseStatus) {
    gauge!("chordfs_sessions").set(status.sessions as f64);
    gauge!("chordfs_leases").set(status.held as f64);
    let LeaseStatus { changed, recalled, revoked, wanted, .. } = *status;
    for (kind, count) in [("changed", changed), ("recalled", recalled), ("revoked", revoked), ("wanted", wanted)] {
        counter!("chordfs_lease_notices_total", "kind" => kind).absolute(count);
    }
    counter!("chordfs_lease_waits_total").absolute(status.waits);
    counter!("chordfs_lease_wait_milliseconds_total").absolute(status.waited_millis);
}

/// Records the chunks that the log of the namespace keeps until their holders have them.
pub fn record_logged(status: &LoggedStatus) {
    gauge!("chordfs_logged_chunks").set(status.chunks as f64);
    gauge!("chordfs_logged_bytes").set(status.bytes as f64);
}

/// Records the cache of chunks.
pub fn record_cache(status: &CacheStatus) {
    counter!("chordfs_cache_hits_total").absolute(status.hits);
    counter!("chordfs_cache_misses_total").absolute(status.misses);
    counter!("chordfs_cache_inserts_total").absolute(status.inserts);
    counter!("chordfs_cache_evictions_total").absolute(status.evictions);
    gauge!("chordfs_cache_items").set(status.items as f64);
    gauge!("chordfs_cache_bytes").set(status.bytes as f64);
    gauge!("chordfs_cache_capacity_bytes").set(status.capacity_bytes as f64);
    gauge!("chordfs_config_version").set(status.config_version as f64);
}

async fn count(plane: &'static str, request: Request, next: Next) -> Response {
    let method = method_label(request.method());
    let response = next.run(request).await;
    let status = response.status().as_str().to_owned();
    counter!("chordfs_http_requests_total", "plane" => plane, "method" => method, "status" => status).increment(1);
    response
}

/// Maps unknown methods to one label: clients can make up methods, and the number of labels must stay bounded.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

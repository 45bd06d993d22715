//! How a status reads, for people: in `storage-node status` and on the console.

use std::net::SocketAddr;

use super::{CacheStatus, RingNodeState, RingStatus, ScrubWork, TransferWork, Work};
use crate::byte_size::human;

/// A voter that answers is always some entries behind.
const SHOWN_LAG: u64 = 100;

impl RingNodeState {
    /// As in JSON.
    pub fn label(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Joining => "joining",
            Self::Draining => "draining",
            Self::Unreachable => "unreachable",
            Self::Foreign => "foreign",
        }
    }
}

/// What a ring without identities is, wherever it is shown.
pub const INSECURE: &str =
    "none: whoever reaches the ports of a node may read, change and delete everything (--insecure)";

impl RingStatus {
    /// The caches of all nodes that report theirs, as one.
    pub fn cache(&self) -> CacheStatus {
        let mut reported = self.nodes.iter().filter_map(|node| node.cache);
        let first = reported.next().unwrap_or_default();
        reported.fold(first, |mut all, cache| {
            all.add(&cache);
            all
        })
    }

    /// The voter, and how far it is behind the leader's log.
    pub fn voter_text(&self, voter: SocketAddr) -> String {
        let silent = self.nodes.iter().any(|node| node.address == voter && node.state == RingNodeState::Unreachable);
        let lag = self.namespace.lags.iter().find(|lag| lag.voter == voter).map_or(0, |lag| lag.entries);
        match (silent, lag) {
            (true, 0) => format!("{voter} (no answer)"),
            (true, lag) => format!("{voter} (no answer, lags by {lag} entries)"),
            (false, lag) if lag >= SHOWN_LAG => format!("{voter} (lags by {lag} entries)"),
            _ => voter.to_string(),
        }
    }
}

impl CacheStatus {
    /// `1200 chunks, 4.90 MiB of 1.50 GiB, lru; 83.0% of 5120 reads`, and a remark if the memory is too small.
    pub fn text(&self) -> String {
        if self.capacity_bytes == 0 {
            return "off".into();
        }
        let reads = self.hits + self.misses;
        let rate =
            self.hit_rate().map_or("no reads yet".into(), |rate| format!("{:.1}% of {reads} reads", rate * 100.0));
        let (bytes, capacity) = (human(self.bytes), human(self.capacity_bytes));
        let reduced = self.reduced_from_bytes.map_or(String::new(), |configured| {
            format!("; too little memory for the configured {} on each node", human(configured))
        });
        format!("{} chunks, {bytes} of {capacity}, {}; {rate}{reduced}", self.items, self.policy)
    }
}

impl Work {
    /// All parts that have something to do; `None` if none has.
    pub fn text(&self) -> Option<String> {
        let moving = [("repair", &self.repair), ("filling", &self.filling), ("drain", &self.drain)];
        let moving =
            moving.into_iter().filter_map(|(name, moving)| Some(format!("{name}{}", progress(moving.as_ref()?))));
        let parts: Vec<String> = moving.chain(self.scrub.as_ref().and_then(scrub)).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

fn progress(moving: &TransferWork) -> String {
    let is_stuck = moving.chunks_left.is_some() && moving.bytes_per_second.is_none() && moving.problem.is_none();
    let parts = [
        moving.chunks_left.map(|chunks| format!("{chunks} chunks left")),
        moving.bytes_left.map(|bytes| format!("{} left", human(bytes))),
        moving.bytes_per_second.map(|rate| format!("{}/s", human(rate))),
        moving.seconds_left.map(|seconds| format!("about {seconds} s")),
        is_stuck.then(|| "nothing moves at the moment".to_owned()),
        moving.problem.clone(),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) }
}

/// Between two passes only the damage that was found is shown.
fn scrub(scrub: &ScrubWork) -> Option<String> {
    let percent = scrub.checked_bytes.zip(scrub.total_bytes).map(|(done, all)| done * 100 / all.max(1));
    let parts = [
        percent.map(|percent| format!("{percent}%")),
        scrub.damaged.filter(|damaged| *damaged > 0).map(|damaged| format!("{damaged} damaged")),
        scrub.repaired.filter(|repaired| *repaired > 0).map(|repaired| format!("{repaired} repaired")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| format!("scrub: {}", parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_one_cell() {
        let drain = TransferWork { bytes_left: Some(3 << 20), seconds_left: Some(9), ..TransferWork::default() };
        let scrub = ScrubWork { checked_bytes: Some(1), total_bytes: Some(4), ..ScrubWork::default() };
        let all = Work { drain: Some(drain), scrub: Some(scrub), ..Work::default() };
        assert_eq!(all.text().unwrap(), "drain: 3.00 MiB left, about 9 s; scrub: 25%");
        assert_eq!(Work::default().text(), None);
        let stuck = TransferWork { chunks_left: Some(7), ..TransferWork::default() };
        let filling = Work { filling: Some(stuck), ..Work::default() };
        assert_eq!(filling.text().unwrap(), "filling: 7 chunks left, nothing moves at the moment");
    }

    #[test]
    fn too_little_memory_for_the_configured_cache_is_shown() {
        let small =
            CacheStatus { capacity_bytes: 3 << 30, reduced_from_bytes: Some(4 << 30), ..CacheStatus::default() };
        let mut all = CacheStatus { capacity_bytes: 4 << 30, ..CacheStatus::default() };
        assert_eq!(all.text(), "0 chunks, 0 B of 4.00 GiB, lru; no reads yet");
        all.add(&small);
        let text = all.text();
        assert!(text.contains("of 7.00 GiB") && text.ends_with("for the configured 4.00 GiB on each node"), "{text}");
    }
}

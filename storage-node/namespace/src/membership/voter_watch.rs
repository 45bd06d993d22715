//! Logs which voters do not answer, and a lost majority: one line at the change, and one a minute while it lasts. Raft
//! itself would log every message that it cannot send.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::raft::{handle::RaftHandle, leader::LeaderTracking};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A voter that has confirmed nothing for this long does not answer. An election takes less.
const SILENCE: Duration = Duration::from_secs(5);
const REMIND_EVERY: Duration = Duration::from_secs(60);

/// A line for the log.
#[derive(Debug, PartialEq)]
enum LogLine {
    Problem(String),
    Solved,
}

/// The problem that was logged last, and when.
#[derive(Default)]
struct ProblemLog(Option<(String, Instant)>);

impl ProblemLog {
    /// The line that is due, if any.
    fn due(&mut self, problem: Option<String>, now: Instant) -> Option<LogLine> {
        match (&self.0, problem) {
            (Some((old, at)), Some(new)) if *old == new && now.saturating_duration_since(*at) < REMIND_EVERY => None,
            (_, Some(new)) => {
                self.0 = Some((new.clone(), now));
                Some(LogLine::Problem(new))
            }
            (Some(_), None) => {
                self.0 = None;
                Some(LogLine::Solved)
            }
            (None, None) => None,
        }
    }
}

/// Runs until it is dropped. Only voters report.
pub(crate) async fn report(raft: Arc<RaftHandle>, leader: Arc<LeaderTracking>) {
    let (mut log, mut led) = (ProblemLog::default(), Instant::now());
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if raft.has_lease() || leader.is_confirmed() || !raft.is_voter_by_log() {
            led = Instant::now();
        }
        match log.due(problem(&raft.voter_lags(), raft.has_lease(), led.elapsed()), Instant::now()) {
            Some(LogLine::Problem(problem)) => tracing::warn!("{problem}"),
            Some(LogLine::Solved) => tracing::info!("all voters of the namespace answer this node again"),
            None => {}
        }
    }
}

/// `lags`: see [`RaftHandle::voter_lags`]. `without_leader`: for how long no leader had a majority.
fn problem(lags: &[(SocketAddr, u64, Duration)], leads: bool, without_leader: Duration) -> Option<String> {
    if !leads && without_leader >= SILENCE {
        return Some("no majority of the namespace's voters answers: nothing can be read or written".into());
    }
    let silent: Vec<String> =
        lags.iter().filter(|(_, _, silence)| *silence >= SILENCE).map(|(voter, ..)| voter.to_string()).collect();
    let count = lags.len() + 1;
    (leads && !silent.is_empty())
        .then(|| format!("{} of {count} voters of the namespace do not answer: {}", silent.len(), silent.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_logged_at_the_change_and_once_a_minute() {
        let (mut log, start) = (ProblemLog::default(), Instant::now());
        let mut due =
            |problem: Option<&str>, secs| log.due(problem.map(str::to_owned), start + Duration::from_secs(secs));
        let line = |text: &str| Some(LogLine::Problem(text.to_owned()));
        assert_eq!(due(None, 0), None);
        assert_eq!(due(Some("a"), 1), line("a"));
        let lines = (2..=121).filter(|second| due(Some("a"), *second).is_some()).count();
        assert_eq!(lines, 2, "one a minute");
        assert_eq!(due(Some("b"), 122), line("b"), "at the change");
        assert_eq!(due(None, 123), Some(LogLine::Solved));
        assert_eq!(due(None, 124), None);
    }

    #[test]
    fn silent_voters_are_named_by_the_leader_only() {
        let voter = |number: u8| SocketAddr::from(([10, 0, 0, number], 5057));
        let lags = |silence| [(voter(2), 0, Duration::ZERO), (voter(3), 9, Duration::from_secs(silence))];
        assert_eq!(problem(&lags(4), true, Duration::ZERO), None);
        let named = problem(&lags(5), true, Duration::ZERO);
        assert_eq!(named.as_deref(), Some("1 of 3 voters of the namespace do not answer: 10.0.0.3:5057"));
        assert_eq!(problem(&lags(5), false, Duration::ZERO), None, "another may lead");
        assert!(problem(&lags(5), false, SILENCE).unwrap().starts_with("no majority"));
    }
}

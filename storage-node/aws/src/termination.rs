//! Leaving when the group or EC2 terminates the instance: detects it, waits for this node's turn to drain, drains, and
//! only then completes the lifecycle hook.
//!
//! The only result that the group receives is `CONTINUE`, and only once every chunk has its holders elsewhere. Until
//! then heartbeats keep the hook open, up to the limit that the group itself sets. A node that cannot be drained,
//! because too few others would remain, reports that and keeps trying.

use std::time::{Duration, Instant};

use chordfs_net::backoff::Backoff;
use chordfs_node::drain::{Drain, DrainOptions, ExclusiveStart};
use chordfs_replication::drain::DrainError;
use chordfs_types::{admin::DrainPhase, chunk_api::REPLICAS, rate_limit::RateLimit};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    AwsContext,
    cloud::{CallError, HeldInstance, Hook},
    health::Topic,
};

/// The metadata service is local, so it is polled often; the group's state is a call to AWS.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
const GROUP_POLL_INTERVAL: Duration = Duration::from_secs(15);
/// Pauses while the instance is being terminated.
const STEP_INTERVAL: Duration = Duration::from_millis(500);
const BEGIN_INTERVAL: Duration = Duration::from_secs(2);
/// Pause before a refused drain is retried.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);
/// How long the node tries to complete the hook after its drain.
const COMPLETION_TIMEOUT: Duration = Duration::from_secs(600);

const TERMINATING_WAIT: &str = "Terminating:Wait";

/// What EC2 and the group announce about the instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TerminationSignals {
    /// `autoscaling/target-lifecycle-state` of the metadata service.
    pub target: Option<String>,
    /// The lifecycle state at the last poll of the group.
    pub lifecycle: Option<String>,
    pub spot: bool,
    pub rebalance: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TerminationReason {
    /// The group is terminating the instance.
    GroupTermination,
    /// EC2 reclaims the instance in two minutes.
    SpotInterruption,
    /// EC2 may reclaim the instance soon.
    RebalanceRecommendation,
}

/// Returns why the instance has to leave, or `None` if it may stay.
pub(crate) fn termination_reason(signals: &TerminationSignals) -> Option<TerminationReason> {
    let by_group = signals.lifecycle.as_deref().is_some_and(|state| state.starts_with("Terminat"));
    match signals {
        _ if by_group || signals.target.as_deref() == Some("Terminated") => Some(TerminationReason::GroupTermination),
        TerminationSignals { spot: true, .. } => Some(TerminationReason::SpotInterruption),
        TerminationSignals { rebalance: true, .. } => Some(TerminationReason::RebalanceRecommendation),
        _ => None,
    }
}

/// Returns whether the instance may end within minutes. The drain then has no rate limit. An instance that a hook
/// holds, or that EC2 may only reclaim later, drains at the usual rate, which leaves bandwidth for clients.
pub(crate) fn is_urgent(signals: &TerminationSignals, hooks: &[Hook]) -> bool {
    signals.spot || (termination_reason(signals) == Some(TerminationReason::GroupTermination) && hooks.is_empty())
}

/// Returns the options for the drain. An operator may cancel a drain that was begun for a rebalance recommendation.
/// Fewer than three nodes stay only if somebody has chosen such a size: the group's own limits do not know of copies.
pub(crate) fn drain_options(signals: &TerminationSignals, hooks: &[Hook], chosen_size: Option<u32>) -> DrainOptions {
    let rate = is_urgent(signals, hooks).then_some(RateLimit(None));
    DrainOptions {
        rate,
        must_go: termination_reason(signals) != Some(TerminationReason::RebalanceRecommendation),
        allow_fewer_copies: chosen_size.is_some_and(|nodes| (nodes as usize) < REPLICAS),
    }
}

/// Returns whether a hook currently holds the instance.
pub(crate) fn is_held(signals: &TerminationSignals) -> bool {
    signals.lifecycle.as_deref() == Some(TERMINATING_WAIT)
}

/// Selects the termination hooks that this node keeps open and completes.
pub(crate) fn own_hooks(hooks: Vec<Hook>, named: Option<&str>) -> Vec<Hook> {
    hooks.into_iter().filter(|hook| named.is_none_or(|name| hook.name == name)).collect()
}

/// Returns a third of the shortest heartbeat timeout, so that two lost heartbeats do no harm.
pub(crate) fn heartbeat_interval(hooks: &[Hook]) -> Duration {
    let shortest = hooks.iter().map(|hook| hook.heartbeat_secs).min().unwrap_or(3600);
    Duration::from_secs(shortest.max(3)) / 3
}

/// Polls until `stop`, or until the instance has to leave; then drains the node and completes the hook.
pub(crate) async fn watch(aws: &AwsContext, drain: &Drain, stop: &CancellationToken) {
    let mut watcher = TerminationWatcher::new(aws);
    loop {
        let signals = tokio::select! {
            signals = watcher.poll() => signals,
            () = stop.cancelled() => return,
        };
        if let Some(reason) = termination_reason(&signals) {
            info!(?reason, ?signals, "this instance has to leave");
            return InstanceTermination::new(aws, drain, stop, watcher, reason).run().await;
        }
        tokio::select! {
            () = sleep(POLL_INTERVAL) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Polls for a node without data; returns after the group has begun to terminate the instance and its hook is complete.
pub(crate) async fn watch_without_data(aws: &AwsContext) {
    let mut watcher = TerminationWatcher::new(aws);
    while termination_reason(&watcher.poll().await) != Some(TerminationReason::GroupTermination) {
        sleep(POLL_INTERVAL).await;
    }
    info!("the group is terminating this instance before it has joined a ring");
    complete_hook(aws, &mut watcher, TerminationReason::GroupTermination).await;
}

struct TerminationWatcher<'a> {
    aws: &'a AwsContext,
    signals: TerminationSignals,
    asked_group: Option<Instant>,
}

impl<'a> TerminationWatcher<'a> {
    fn new(aws: &'a AwsContext) -> Self {
        Self { aws, signals: TerminationSignals::default(), asked_group: None }
    }

    async fn poll(&mut self) -> TerminationSignals {
        // A signal that cannot be read keeps its last value.
        if let Some((target, spot, rebalance)) = self.aws.health.record(Topic::Metadata, self.ask_metadata().await) {
            let (spot, rebalance) = (spot.is_some(), rebalance.is_some());
            self.signals = TerminationSignals { target, spot, rebalance, ..std::mem::take(&mut self.signals) };
        }
        let ending = self.signals.target.as_deref() == Some("Terminated") && !is_held(&self.signals);
        if ending || self.asked_group.is_none_or(|at| at.elapsed() >= GROUP_POLL_INTERVAL) {
            self.ask_group().await;
        }
        self.signals.clone()
    }

    /// Returns the target state, the spot notice and the rebalance recommendation. The last two exist only on spot
    /// instances, and only once they have been announced.
    async fn ask_metadata(&self) -> Result<(Option<String>, Option<String>, Option<String>), CallError> {
        let ask = |path| self.aws.cloud.metadata(path);
        let target = ask("autoscaling/target-lifecycle-state").await?;
        Ok((target, ask("spot/instance-action").await?, ask("events/recommendations/rebalance").await?))
    }

    async fn ask_group(&mut self) {
        self.asked_group = Some(Instant::now());
        let answer = self.aws.cloud.membership(&self.aws.identity.instance).await;
        if let Some(found) = self.aws.health.record(Topic::Lifecycle, answer) {
            self.signals.lifecycle = found.map(|found| found.lifecycle);
        }
    }

    /// Returns no hooks if they cannot be read at the moment.
    async fn hooks(&self) -> Vec<Hook> {
        let hooks = self.aws.health.record(Topic::Hook, self.aws.cloud.hooks(&self.aws.group).await);
        let hooks = own_hooks(hooks.unwrap_or_default(), self.aws.settings.hook.as_deref());
        if hooks.len() > 1 {
            let names: Vec<&str> = hooks.iter().map(|hook| hook.name.as_str()).collect();
            warn!(
                "the group has several termination hooks, and this node will complete all of them: {names:?}; select one \
                 with --hook"
            );
        }
        hooks
    }

    fn hold(&self, hook: &Hook) -> HeldInstance {
        HeldInstance {
            group: self.aws.group.clone(),
            hook: hook.name.clone(),
            instance: self.aws.identity.instance.clone(),
        }
    }
}

/// The drain of an instance that has to leave, and the completion of its hook.
struct InstanceTermination<'a> {
    aws: &'a AwsContext,
    drain: &'a Drain,
    stop: &'a CancellationToken,
    watcher: TerminationWatcher<'a>,
    reason: TerminationReason,
    hooks: Vec<Hook>,
    last_heartbeat: Option<Instant>,
    polled: Instant,
    next_try: Instant,
    /// Whether this task, and not an operator, began the last drain.
    began_drain: bool,
}

impl<'a> InstanceTermination<'a> {
    fn new(
        aws: &'a AwsContext,
        drain: &'a Drain,
        stop: &'a CancellationToken,
        watcher: TerminationWatcher<'a>,
        reason: TerminationReason,
    ) -> Self {
        let now = Instant::now();
        Self {
            aws,
            drain,
            stop,
            watcher,
            reason,
            hooks: Vec::new(),
            last_heartbeat: None,
            polled: now,
            next_try: now,
            began_drain: false,
        }
    }

    async fn run(mut self) {
        self.hooks = self.watcher.hooks().await;
        while !self.is_over() {
            self.keep_alive().await;
            self.advance_drain().await;
            tokio::select! {
                () = sleep(STEP_INTERVAL) => {}
                () = self.drain.finished() => {}
                () = self.stop.cancelled() => {}
            }
        }
        if self.has_left() {
            self.finish().await;
        }
    }

    /// Returns whether the process is stopping: the drain has ended, or the node was asked to stop.
    fn is_over(&self) -> bool {
        self.stop.is_cancelled()
    }

    fn phase(&self) -> Option<DrainPhase> {
        self.drain.status().map(|status| status.phase)
    }

    fn has_left(&self) -> bool {
        self.phase() == Some(DrainPhase::Left)
    }

    async fn keep_alive(&mut self) {
        if self.polled.elapsed() >= POLL_INTERVAL {
            self.polled = Instant::now();
            let signals = self.watcher.poll().await;
            self.reason = termination_reason(&signals).unwrap_or(self.reason);
        }
        let due = self.last_heartbeat.is_none_or(|at| at.elapsed() >= heartbeat_interval(&self.hooks));
        if !is_held(&self.watcher.signals) || !due {
            return;
        }
        self.last_heartbeat = Some(Instant::now());
        if self.hooks.is_empty() {
            self.hooks = self.watcher.hooks().await;
        }
        let mut beats = Ok(());
        for hook in &self.hooks {
            let last_heartbeat = self.aws.cloud.heartbeat(&self.watcher.hold(hook)).await;
            beats = beats.and(last_heartbeat);
        }
        self.aws.health.record(Topic::Heartbeat, beats);
    }

    /// Begins the drain once it is this node's turn, and updates a drain that is under way.
    async fn advance_drain(&mut self) {
        let options = drain_options(&self.watcher.signals, &self.hooks, *self.aws.chosen_size.lock());
        match self.phase() {
            Some(DrainPhase::Left) => return self.aws.health.clear(Topic::Drain),
            Some(phase) if phase.is_under_way() => return self.update_drain(options),
            Some(DrainPhase::Cancelled) if self.began_drain && !options.must_go => {
                let activity =
                    "not draining: EC2 may reclaim this instance soon, but an operator has cancelled the drain";
                return self.aws.health.set_activity(activity.to_owned());
            }
            _ => {}
        }
        if Instant::now() < self.next_try {
            return self.report_refusal();
        }
        self.next_try = Instant::now() + BEGIN_INTERVAL;
        match self.drain.begin_exclusively(options).await {
            Ok(ExclusiveStart::Started) => self.began_drain = true,
            Ok(ExclusiveStart::Waiting { others }) => {
                let others: Vec<String> = others.iter().map(|node| node.ring_address().to_string()).collect();
                self.aws.health.set_activity(format!("waiting for its turn to drain, after {}", others.join(", ")));
            }
            Err(DrainError::NotServing { .. }) => {}
            Err(error) => self.aws.health.set(Topic::Drain, &error),
        }
    }

    /// Applies the current options to the running drain: a newer signal may lift the rate limit or forbid cancelling.
    fn update_drain(&mut self, options: DrainOptions) {
        self.next_try = Instant::now() + REFUSED_PAUSE;
        match self.drain.begin(options) {
            Ok(()) => {
                self.aws.health.clear(Topic::Drain);
                self.aws.health.set_activity("draining, because this instance has to leave".to_owned());
            }
            // The drain has just ended, or is being cancelled.
            Err(error) => self.aws.health.set(Topic::Drain, &error),
        }
    }

    fn report_refusal(&self) {
        let Some(status) = self.drain.status().filter(|status| status.phase == DrainPhase::Refused) else { return };
        let reason = status.reason.unwrap_or_default();
        let until = match self
            .hooks
            .iter()
            .map(|hook| hook.global_secs)
            .min()
            .filter(|_| is_held(&self.watcher.signals))
        {
            Some(limit) => format!(
                "the node keeps retrying and sends heartbeats, but the group terminates the instance {} s after the start \
                 of its termination at the latest",
                limit
            ),
            None => "no hook holds the instance, so it may end at any moment".to_owned(),
        };
        self.aws.health.set_activity("cannot drain yet".to_owned());
        self.aws.health.set(Topic::Drain, &format!("this instance has to leave and cannot drain: {reason}; {until}"));
    }

    async fn finish(&mut self) {
        self.aws.health.set_activity("drained; completing the lifecycle hook".to_owned());
        complete_hook(self.aws, &mut self.watcher, self.reason).await;
    }
}

/// Completes the hook, and retries until the group confirms it. SIGTERM ends the attempt too: the machine is shutting
/// down.
async fn complete_hook(aws: &AwsContext, watcher: &mut TerminationWatcher<'_>, reason: TerminationReason) {
    let completion = async {
        match signal(SignalKind::terminate()) {
            Ok(mut term) => tokio::select! {
                () = complete_until_confirmed(aws, watcher, reason) => {}
                _ = term.recv() => info!("stopped by SIGTERM before the lifecycle hook was complete"),
            },
            Err(_) => complete_until_confirmed(aws, watcher, reason).await,
        }
    };
    if timeout(COMPLETION_TIMEOUT, completion).await.is_err() {
        warn!(
            "the group has not terminated this instance within {COMPLETION_TIMEOUT:?}; its data is safe on other nodes"
        );
    }
}

async fn complete_until_confirmed(aws: &AwsContext, watcher: &mut TerminationWatcher<'_>, reason: TerminationReason) {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
    let mut held = false;
    loop {
        watcher.ask_group().await;
        let lifecycle = watcher.signals.lifecycle.as_deref();
        match lifecycle {
            Some(TERMINATING_WAIT) => {
                held = true;
                let hooks = watcher.hooks().await;
                let mut done = !hooks.is_empty();
                for hook in &hooks {
                    let completed = aws.cloud.complete(&watcher.hold(hook)).await;
                    done &= aws.health.record(Topic::Completion, completed).is_some();
                }
                if done {
                    info!("completed the lifecycle hook with CONTINUE");
                    return;
                }
            }
            // The hook timed out, there was none, or the instance has left the group.
            None => return,
            Some(state)
                if held || state == "Terminating" || state == "Terminating:Proceed" || state == "Terminated" =>
            {
                return;
            }
            // The group is terminating the instance, but does not report that state yet.
            Some(_) if reason == TerminationReason::GroupTermination => {}
            // The group is not terminating the instance. It replaces only instances that are marked unhealthy.
            Some(_) => {
                let marked = aws.cloud.mark_unhealthy(&aws.identity.instance).await;
                aws.health.record(Topic::Completion, marked);
            }
        }
        sleep(backoff.pause()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signals(target: Option<&str>, lifecycle: Option<&str>) -> TerminationSignals {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        TerminationSignals { target: owned(target), lifecycle: owned(lifecycle), ..TerminationSignals::default() }
    }

    #[test]
    fn every_termination_signal_counts() {
        for (target, lifecycle, wanted) in [
            (None, None, None),
            (Some("InService"), Some("InService"), None),
            (Some("InService"), Some("Pending:Wait"), None),
            (Some("Standby"), Some("EnteringStandby"), None),
            (Some("Terminated"), Some("InService"), Some(TerminationReason::GroupTermination)),
            (None, Some("Terminating:Wait"), Some(TerminationReason::GroupTermination)),
            (Some("InService"), Some("Terminating"), Some(TerminationReason::GroupTermination)),
            (None, Some("Terminated"), Some(TerminationReason::GroupTermination)),
        ] {
            assert_eq!(termination_reason(&signals(target, lifecycle)), wanted, "{target:?} {lifecycle:?}");
        }
        let spot = TerminationSignals { spot: true, rebalance: true, ..signals(None, None) };
        assert_eq!(termination_reason(&spot), Some(TerminationReason::SpotInterruption));
        assert_eq!(
            termination_reason(&TerminationSignals { spot: false, ..spot.clone() }),
            Some(TerminationReason::RebalanceRecommendation)
        );
        let both = TerminationSignals { lifecycle: Some("Terminating:Wait".into()), ..spot };
        assert_eq!(termination_reason(&both), Some(TerminationReason::GroupTermination));
    }

    #[test]
    fn fewer_than_three_nodes_stay_only_if_somebody_has_chosen_that() {
        let held = signals(Some("Terminated"), Some("Terminating:Wait"));
        let allows = |chosen| drain_options(&held, &[], chosen).allow_fewer_copies;
        assert_eq!([None, Some(1), Some(2), Some(3), Some(8)].map(allows), [false, true, true, false, false]);
    }

    #[test]
    fn an_instance_that_ends_within_minutes_drains_without_a_rate_limit() {
        let hook = |name: &str| Hook { name: name.into(), heartbeat_secs: 60, global_secs: 6000 };
        let held = signals(Some("Terminated"), Some("Terminating:Wait"));
        assert_eq!(drain_options(&held, &[hook("drain")], None).rate, None, "the hook waits");
        assert_eq!(drain_options(&held, &[], None).rate, Some(RateLimit(None)), "no hook waits");
        let spot = TerminationSignals { spot: true, ..held.clone() };
        assert_eq!(
            drain_options(&spot, &[hook("drain")], None).rate,
            Some(RateLimit(None)),
            "EC2 does not wait for hooks"
        );
        let rebalance = TerminationSignals { rebalance: true, ..TerminationSignals::default() };
        assert_eq!(drain_options(&rebalance, &[], None).rate, None);
        for (signals, must_go) in [(held, true), (spot, true), (rebalance, false)] {
            assert_eq!(drain_options(&signals, &[], None).must_go, must_go, "{signals:?}");
        }
    }

    #[test]
    fn only_a_waiting_instance_is_held() {
        assert!(is_held(&signals(None, Some("Terminating:Wait"))));
        for state in ["Terminating", "Terminating:Proceed", "InService", "Pending:Wait"] {
            assert!(!is_held(&signals(Some("Terminated"), Some(state))));
        }
    }

    #[test]
    fn heartbeats_come_in_time() {
        let hook = |name: &str, heartbeat_secs| Hook { name: name.into(), heartbeat_secs, global_secs: 172_800 };
        let hooks = vec![hook("a", 300), hook("b", 60)];
        assert_eq!(heartbeat_interval(&hooks), Duration::from_secs(20));
        assert_eq!(heartbeat_interval(&[hook("c", 0)]), Duration::from_secs(1));
        assert_eq!(own_hooks(hooks.clone(), None), hooks);
        assert_eq!(own_hooks(hooks.clone(), Some("b")), [hook("b", 60)]);
        assert!(own_hooks(hooks, Some("x")).is_empty());
    }
}

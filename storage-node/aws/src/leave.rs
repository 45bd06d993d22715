//! Going when the group, or EC2, says so: notice it, wait for the turn, drain, and only then let the instance go.
//!
//! The group is told nothing but `CONTINUE`, and that only once every chunk has its holders elsewhere; until then the
//! hook is kept alive by heartbeats, however long it takes, up to the limit that the group itself sets. A node that
//! cannot be drained (too few others would stay) says so and goes on trying.

use chordfs_net::backoff::Backoff;
use std::time::{Duration, Instant};

use chordfs_node::drain::{Drain, DrainOptions, ExclusiveStart};
use chordfs_replication::drain::DrainError;
use chordfs_types::{admin::DrainPhase, rate_limit::RateLimit};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Context,
    board::Topic,
    cloud::{CallError, Hold, Hook},
};

/// The metadata service is on the machine itself, so it may be asked often; the group's state is a call to AWS.
const LOOK_EVERY: Duration = Duration::from_secs(2);
const ASK_GROUP_EVERY: Duration = Duration::from_secs(15);
/// While the instance is on its way out.
const STEP_EVERY: Duration = Duration::from_millis(500);
const TURN_EVERY: Duration = Duration::from_secs(2);
/// A drain that was refused is tried again after this.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);
/// How long the group is told that it may go on, and waited for to let this instance go.
const FAREWELL: Duration = Duration::from_secs(600);

const WAITING: &str = "Terminating:Wait";

/// What was found out about the instance's future.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// `autoscaling/target-lifecycle-state` of the metadata service.
    pub target: Option<String>,
    /// The state in the group, when it was last asked.
    pub lifecycle: Option<String>,
    pub spot: bool,
    pub rebalance: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The group ends the instance.
    Termination,
    /// EC2 takes it back in two minutes.
    Spot,
    /// EC2 may take it back soon.
    Rebalance,
}

/// Whether the instance has to go.
pub fn why(signs: &Signs) -> Option<Why> {
    let by_group = signs.lifecycle.as_deref().is_some_and(|state| state.starts_with("Terminat"));
    match signs {
        _ if by_group || signs.target.as_deref() == Some("Terminated") => Some(Why::Termination),
        Signs { spot: true, .. } => Some(Why::Spot),
        Signs { rebalance: true, .. } => Some(Why::Rebalance),
        _ => None,
    }
}

/// The instance is gone in minutes, or at any moment: then the drain is all that counts, and takes what the network has.
/// An instance that a hook holds, or that EC2 may only soon take back, has the time to spare the programs that read.
pub fn is_pressed(signs: &Signs, hooks: &[Hook]) -> bool {
    signs.spot || (why(signs) == Some(Why::Termination) && hooks.is_empty())
}

/// How to drain now. EC2's recommendation is one, so an operator may cancel a drain that was begun for it.
pub fn options(signs: &Signs, hooks: &[Hook]) -> DrainOptions {
    let rate = is_pressed(signs, hooks).then_some(RateLimit(None));
    DrainOptions { rate, must_go: why(signs) != Some(Why::Rebalance), ..DrainOptions::default() }
}

/// A hook holds the instance at this moment.
pub fn is_held(signs: &Signs) -> bool {
    signs.lifecycle.as_deref() == Some(WAITING)
}

/// Of the group's hooks on termination those that are this node's to keep alive and to complete.
pub fn own_hooks(hooks: Vec<Hook>, named: Option<&str>) -> Vec<Hook> {
    hooks.into_iter().filter(|hook| named.is_none_or(|name| hook.name == name)).collect()
}

/// Three heartbeats fit into the time after which one is missed.
pub fn heartbeat_every(hooks: &[Hook]) -> Duration {
    let shortest = hooks.iter().map(|hook| hook.heartbeat_secs).min().unwrap_or(3600);
    Duration::from_secs(shortest.max(3)) / 3
}

/// Watches until the instance has to go or `stop`, and in the first case sees it out.
pub async fn watch(aws: &Context, drain: &Drain, stop: &CancellationToken) {
    let mut watcher = Watcher::new(aws);
    loop {
        let signs = tokio::select! {
            signs = watcher.look() => signs,
            () = stop.cancelled() => return,
        };
        if let Some(why) = why(&signs) {
            info!(?why, ?signs, "this instance has to go");
            return Leaving::new(aws, drain, stop, watcher, why).run().await;
        }
        tokio::select! {
            () = sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// For a node that has no data yet: returns when the group ends the instance, after letting it go.
pub async fn watch_without_data(aws: &Context) {
    let mut watcher = Watcher::new(aws);
    while why(&watcher.look().await) != Some(Why::Termination) {
        sleep(LOOK_EVERY).await;
    }
    info!("the group ends this instance before it had a part in the ring");
    farewell(aws, &mut watcher, Why::Termination).await;
}

struct Watcher<'a> {
    aws: &'a Context,
    signs: Signs,
    asked_group: Option<Instant>,
}

impl<'a> Watcher<'a> {
    fn new(aws: &'a Context) -> Self {
        Self { aws, signs: Signs::default(), asked_group: None }
    }

    async fn look(&mut self) -> Signs {
        // What cannot be asked at the moment is as it was.
        if let Some((target, spot, rebalance)) = self.aws.board.note(Topic::Metadata, self.ask_metadata().await) {
            let (spot, rebalance) = (spot.is_some(), rebalance.is_some());
            self.signs = Signs { target, spot, rebalance, ..std::mem::take(&mut self.signs) };
        }
        let ending = self.signs.target.as_deref() == Some("Terminated") && !is_held(&self.signs);
        if ending || self.asked_group.is_none_or(|at| at.elapsed() >= ASK_GROUP_EVERY) {
            self.ask_group().await;
        }
        self.signs.clone()
    }

    /// The last two are only there on instances that can be interrupted, and when it comes to that.
    async fn ask_metadata(&self) -> Result<(Option<String>, Option<String>, Option<String>), CallError> {
        let ask = |path| self.aws.cloud.metadata(path);
        let target = ask("autoscaling/target-lifecycle-state").await?;
        Ok((target, ask("spot/instance-action").await?, ask("events/recommendations/rebalance").await?))
    }

    async fn ask_group(&mut self) {
        self.asked_group = Some(Instant::now());
        let answer = self.aws.cloud.membership(&self.aws.identity.instance).await;
        if let Some(found) = self.aws.board.note(Topic::Lifecycle, answer) {
            self.signs.lifecycle = found.map(|found| found.lifecycle);
        }
    }

    /// Empty if they cannot be read now.
    async fn hooks(&self) -> Vec<Hook> {
        let hooks = self.aws.board.note(Topic::Hook, self.aws.cloud.hooks(&self.aws.group).await);
        let hooks = own_hooks(hooks.unwrap_or_default(), self.aws.settings.hook.as_deref());
        if hooks.len() > 1 {
            let names: Vec<&str> = hooks.iter().map(|hook| hook.name.as_str()).collect();
            warn!(
                "the group has several hooks on termination, and this node keeps and completes all of them: {names:?}; \
                   --hook says which one is its own"
            );
        }
        hooks
    }

    fn hold(&self, hook: &Hook) -> Hold {
        Hold { group: self.aws.group.clone(), hook: hook.name.clone(), instance: self.aws.identity.instance.clone() }
    }
}

/// From the first sign until the end.
struct Leaving<'a> {
    aws: &'a Context,
    drain: &'a Drain,
    stop: &'a CancellationToken,
    watcher: Watcher<'a>,
    why: Why,
    hooks: Vec<Hook>,
    beat: Option<Instant>,
    looked: Instant,
    next_try: Instant,
    /// The last drain was begun here.
    began: bool,
}

impl<'a> Leaving<'a> {
    fn new(aws: &'a Context, drain: &'a Drain, stop: &'a CancellationToken, watcher: Watcher<'a>, why: Why) -> Self {
        let now = Instant::now();
        Self { aws, drain, stop, watcher, why, hooks: Vec::new(), beat: None, looked: now, next_try: now, began: false }
    }

    async fn run(mut self) {
        self.hooks = self.watcher.hooks().await;
        while !self.is_over() {
            self.keep_alive().await;
            self.get_on().await;
            tokio::select! {
                () = sleep(STEP_EVERY) => {}
                () = self.drain.finished() => {}
                () = self.stop.cancelled() => {}
            }
        }
        if self.has_left() {
            self.see_out().await;
        }
    }

    /// The process ends after this: the drain has ended, or somebody stopped the node.
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
        if self.looked.elapsed() >= LOOK_EVERY {
            self.looked = Instant::now();
            let signs = self.watcher.look().await;
            self.why = why(&signs).unwrap_or(self.why);
        }
        let due = self.beat.is_none_or(|at| at.elapsed() >= heartbeat_every(&self.hooks));
        if !is_held(&self.watcher.signs) || !due {
            return;
        }
        self.beat = Some(Instant::now());
        if self.hooks.is_empty() {
            self.hooks = self.watcher.hooks().await;
        }
        let mut beats = Ok(());
        for hook in &self.hooks {
            let beat = self.aws.cloud.heartbeat(&self.watcher.hold(hook)).await;
            beats = beats.and(beat);
        }
        self.aws.board.note(Topic::Heartbeat, beats);
    }

    /// Begins the drain as soon as it is this node's turn.
    async fn get_on(&mut self) {
        let options = options(&self.watcher.signs, &self.hooks);
        match self.phase() {
            Some(DrainPhase::Left) => return self.aws.board.clear(Topic::Drain),
            Some(phase) if phase.is_under_way() => return self.go_on(options),
            Some(DrainPhase::Cancelled) if self.began && !options.must_go => {
                let activity = "was to drain, as EC2 may soon take this instance back; an operator called that off";
                return self.aws.board.set_activity(activity.to_owned());
            }
            _ => {}
        }
        if Instant::now() < self.next_try {
            return self.tell_refusal();
        }
        self.next_try = Instant::now() + TURN_EVERY;
        match self.drain.begin_exclusively(options).await {
            Ok(ExclusiveStart::Started) => self.began = true,
            Ok(ExclusiveStart::Waiting { others }) => {
                let others: Vec<String> = others.iter().map(|node| node.ring_address().to_string()).collect();
                self.aws.board.set_activity(format!("waits for its turn to drain, after {}", others.join(", ")));
            }
            Err(DrainError::NotServing { .. }) => {}
            Err(error) => self.aws.board.set(Topic::Drain, &error),
        }
    }

    /// What speeds it up, or forbids to call it off, may have been learnt meanwhile.
    fn go_on(&mut self, options: DrainOptions) {
        self.next_try = Instant::now() + REFUSED_PAUSE;
        match self.drain.begin(options) {
            Ok(()) => {
                self.aws.board.clear(Topic::Drain);
                self.aws.board.set_activity("drains, because this instance has to go".to_owned());
            }
            // It has just ended, or is being cancelled.
            Err(error) => self.aws.board.set(Topic::Drain, &error),
        }
    }

    fn tell_refusal(&self) {
        let Some(status) = self.drain.status().filter(|status| status.phase == DrainPhase::Refused) else { return };
        let reason = status.reason.unwrap_or_default();
        let until = match self.hooks.iter().map(|hook| hook.global_secs).min().filter(|_| is_held(&self.watcher.signs))
        {
            Some(limit) => format!(
                "it holds on by heartbeats, tries again, and the group takes it {} s after the start of its termination at \
                 the latest",
                limit
            ),
            None => "no hook holds it, so it may be gone at any moment".to_owned(),
        };
        self.aws.board.set_activity("cannot be drained yet".to_owned());
        self.aws.board.set(Topic::Drain, &format!("this instance has to go and is not drained: {reason}; {until}"));
    }

    async fn see_out(&mut self) {
        self.aws.board.set_activity("drained; lets the instance go".to_owned());
        farewell(self.aws, &mut self.watcher, self.why).await;
    }
}

/// Tells the group that it may go on, until it has heard it. A stop from outside ends this too: that is the machine's end.
async fn farewell(aws: &Context, watcher: &mut Watcher<'_>, why: Why) {
    let told = async {
        match signal(SignalKind::terminate()) {
            Ok(mut term) => tokio::select! {
                () = complete(aws, watcher, why) => {}
                _ = term.recv() => info!("told to stop"),
            },
            Err(_) => complete(aws, watcher, why).await,
        }
    };
    if timeout(FAREWELL, told).await.is_err() {
        warn!("the group has not let this instance go within {FAREWELL:?}; its data is elsewhere all the same");
    }
}

async fn complete(aws: &Context, watcher: &mut Watcher<'_>, why: Why) {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
    let mut held = false;
    loop {
        watcher.ask_group().await;
        let lifecycle = watcher.signs.lifecycle.as_deref();
        match lifecycle {
            Some(WAITING) => {
                held = true;
                let hooks = watcher.hooks().await;
                let mut done = !hooks.is_empty();
                for hook in &hooks {
                    let told = aws.cloud.complete(&watcher.hold(hook)).await;
                    done &= aws.board.note(Topic::Farewell, told).is_some();
                }
                if done {
                    info!("the group was told to go on: CONTINUE");
                    return;
                }
            }
            // It went on by itself, or there was no hook, or the instance is none of the group's any more.
            None => return,
            Some(state)
                if held || state == "Terminating" || state == "Terminating:Proceed" || state == "Terminated" =>
            {
                return;
            }
            // The group has asked, and does not show that yet.
            Some(_) if why == Why::Termination => {}
            // It has not: only the group replaces an instance, and only one that it takes for sick.
            Some(_) => {
                let given_up = aws.cloud.give_up(&aws.identity.instance).await;
                aws.board.note(Topic::Farewell, given_up);
            }
        }
        sleep(backoff.pause()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signs(target: Option<&str>, lifecycle: Option<&str>) -> Signs {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Signs { target: owned(target), lifecycle: owned(lifecycle), ..Signs::default() }
    }

    #[test]
    fn every_sign_of_an_end_counts() {
        for (target, lifecycle, wanted) in [
            (None, None, None),
            (Some("InService"), Some("InService"), None),
            (Some("InService"), Some("Pending:Wait"), None),
            (Some("Standby"), Some("EnteringStandby"), None),
            (Some("Terminated"), Some("InService"), Some(Why::Termination)),
            (None, Some("Terminating:Wait"), Some(Why::Termination)),
            (Some("InService"), Some("Terminating"), Some(Why::Termination)),
            (None, Some("Terminated"), Some(Why::Termination)),
        ] {
            assert_eq!(why(&signs(target, lifecycle)), wanted, "{target:?} {lifecycle:?}");
        }
        let spot = Signs { spot: true, rebalance: true, ..signs(None, None) };
        assert_eq!(why(&spot), Some(Why::Spot));
        assert_eq!(why(&Signs { spot: false, ..spot.clone() }), Some(Why::Rebalance));
        let both = Signs { lifecycle: Some("Terminating:Wait".into()), ..spot };
        assert_eq!(why(&both), Some(Why::Termination));
    }

    #[test]
    fn who_is_gone_in_minutes_drains_without_a_limit() {
        let hook = |name: &str| Hook { name: name.into(), heartbeat_secs: 60, global_secs: 6000 };
        let held = signs(Some("Terminated"), Some("Terminating:Wait"));
        assert_eq!(options(&held, &[hook("drain")]).rate, None, "the hook waits");
        assert_eq!(options(&held, &[]).rate, Some(RateLimit(None)), "nothing does");
        let spot = Signs { spot: true, ..held.clone() };
        assert_eq!(options(&spot, &[hook("drain")]).rate, Some(RateLimit(None)), "EC2 does not wait for hooks");
        let rebalance = Signs { rebalance: true, ..Signs::default() };
        assert_eq!(options(&rebalance, &[]).rate, None);
        for (signs, must_go) in [(held, true), (spot, true), (rebalance, false)] {
            assert_eq!(options(&signs, &[]).must_go, must_go, "{signs:?}");
        }
    }

    #[test]
    fn only_a_waiting_instance_is_held() {
        assert!(is_held(&signs(None, Some("Terminating:Wait"))));
        for state in ["Terminating", "Terminating:Proceed", "InService", "Pending:Wait"] {
            assert!(!is_held(&signs(Some("Terminated"), Some(state))));
        }
    }

    #[test]
    fn heartbeats_come_in_time() {
        let hook = |name: &str, heartbeat_secs| Hook { name: name.into(), heartbeat_secs, global_secs: 172_800 };
        let hooks = vec![hook("a", 300), hook("b", 60)];
        assert_eq!(heartbeat_every(&hooks), Duration::from_secs(20));
        assert_eq!(heartbeat_every(&[hook("c", 0)]), Duration::from_secs(1));
        assert_eq!(own_hooks(hooks.clone(), None), hooks);
        assert_eq!(own_hooks(hooks.clone(), Some("b")), [hook("b", 60)]);
        assert!(own_hooks(hooks, Some("x")).is_empty());
    }
}

//! Faults as they happen: what goes wrong when, and for how long, follows from the seed.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use crate::{
    mount::Mount,
    namespace::Namespace,
    oracle::Oracle,
    plane::{NODES, Plane},
    random::Random,
    rivalry,
    world::World,
};

/// Operations wait this long; an outage that is longer makes them fail.
const LONGER_THAN_OPERATIONS: u64 = 70_000;
const SHORTER_THAN_OPERATIONS: u64 = 20_000;
const LONGER_THAN_SESSIONS: u64 = 130_000;
/// How long a lost answer waits for an answer to lose.
const TRAP_LASTS: Duration = Duration::from_secs(20);

/// How many operations the leader may log or answer late, of a hundred.
const LATE_PERCENTS: [u64; 3] = [0, 5, MOST_LATE_PERCENT];
const MOST_LATE_PERCENT: u64 = 25;

pub(crate) struct Weather {
    pub world: Arc<World>,
    pub oracle: Arc<Oracle>,
    pub plane: Arc<Plane>,
    pub namespace: Arc<Namespace>,
    pub mounts: Vec<Arc<Mount>>,
}

impl Weather {
    /// Makes faults for about this long, then heals all that is left of them.
    pub(crate) async fn storm(self: &Arc<Self>, length: Duration) {
        let mut random = Random::new(self.world.seed, 2);
        let end = self.world.now() + length;
        let late = *random.pick(&LATE_PERCENTS).expect("there are three");
        self.namespace.set_late(if rivalry::is_on(self.world.seed) { MOST_LATE_PERCENT } else { late });
        let mut under_way = tokio::task::JoinSet::new();
        while self.world.now() < end {
            sleep(Duration::from_millis(random.spread(200, 9000))).await;
            let fault = Random::new(random.next(), 3);
            under_way.spawn(self.clone().fault(fault));
        }
        under_way.join_all().await;
        self.namespace.set_late(0);
        self.world.note("nothing is wrong any more");
    }

    async fn fault(self: Arc<Self>, mut random: Random) {
        let mount = random.pick(&self.mounts).expect("there are mounts").clone();
        match random.below(100) {
            0..12 => self.outage(&mount, &mut random).await,
            12..22 => self.lost_answer(&mount, &mut random).await,
            22..34 => self.sleep(&mount, &mut random).await,
            34..46 => self.cut(&mount),
            46..60 => self.slow_link(&mount, &mut random).await,
            60..70 => self.new_leader(&mut random).await,
            70..80 => self.crash(&mut random).await,
            80..84 => self.power_cut(&mut random).await,
            84..90 => self.full_disks(&mut random).await,
            _ => self.slow_disks(&mut random).await,
        }
    }

    fn longest_outage(&self) -> u64 {
        if self.world.faults.long_outages { LONGER_THAN_OPERATIONS } else { SHORTER_THAN_OPERATIONS }
    }

    async fn outage(&self, mount: &Mount, random: &mut Random) {
        let length = Duration::from_millis(random.spread(300, self.longest_outage()));
        self.world.note(format!("mount {} is cut off for {length:?}", mount.number));
        mount.link.set_up(false);
        sleep(length).await;
        if random.chance(50) {
            mount.link.cut();
        }
        mount.link.set_up(true);
        self.world.note(format!("mount {} is connected again", mount.number));
    }

    /// The answer to a change is lost; the outage is short, about as long as the mount waits, or anything.
    async fn lost_answer(&self, mount: &Mount, random: &mut Random) {
        let lengths = [(50, 4000), (28_000, 30_500), (300, LONGER_THAN_OPERATIONS)];
        let (low, high) = *random.pick(&lengths).expect("there are three");
        let length = random.spread(low, high).min(self.longest_outage());
        if timeout(TRAP_LASTS, mount.link.set_trap()).await.is_err() {
            return;
        }
        self.world.note(format!("mount {} is cut off for {length} ms, before an answer", mount.number));
        if random.chance(50) {
            mount.link.cut();
        }
        // On a slow link what is asked first may be answered last.
        let delay = if random.chance(50) { 12 } else { random.spread(50, 1500) };
        mount.link.set_delays(delay, 0);
        sleep(Duration::from_millis(length)).await;
        mount.link.set_up(true);
        self.world.note(format!("mount {} is connected again", mount.number));
        sleep(Duration::from_secs(3)).await;
        mount.link.set_delays(12, 0);
    }

    async fn sleep(&self, mount: &Mount, random: &mut Random) {
        if !self.world.faults.stopped_mounts {
            return;
        }
        let longest = if self.world.faults.long_outages { LONGER_THAN_SESSIONS } else { SHORTER_THAN_OPERATIONS };
        let length = Duration::from_millis(random.spread(2000, longest));
        let is_suspended = random.chance(50);
        self.world.note(format!("mount {} sleeps for {length:?}, its machine as well: {is_suspended}", mount.number));
        mount.gate.sleep();
        if is_suspended {
            mount.link.set_up(false);
        }
        sleep(length).await;
        mount.link.set_up(true);
        mount.gate.wake();
        self.world.note(format!("mount {} is awake", mount.number));
    }

    fn cut(&self, mount: &Mount) {
        self.world.note(format!("the connections of mount {} are cut", mount.number));
        mount.link.cut();
    }

    async fn slow_link(&self, mount: &Mount, random: &mut Random) {
        let (delay, lost) = (random.spread(20, 1500), random.below(15));
        self.world.note(format!("messages of mount {} take up to {delay} ms, {lost} % are lost", mount.number));
        mount.link.set_delays(delay, lost);
        sleep(Duration::from_millis(random.spread(1000, 20_000))).await;
        mount.link.set_delays(12, 0);
    }

    async fn new_leader(&self, random: &mut Random) {
        let outage = Duration::from_millis(random.spread(100, 6000));
        let offset = random.between(0, 6) as i64 - 3;
        self.namespace.change_leader(outage, offset).await;
    }

    async fn crash(&self, random: &mut Random) {
        let node = random.below(NODES as u64) as usize;
        self.plane.crash(node, self.world.faults.power_cuts && random.chance(60));
        self.oracle.note_losses(&self.plane);
        sleep(Duration::from_millis(random.spread(500, 20_000))).await;
        self.plane.restart(node);
    }

    /// All nodes at once.
    async fn power_cut(&self, random: &mut Random) {
        if !self.world.faults.power_cuts {
            return;
        }
        (0..NODES).for_each(|node| self.plane.crash(node, true));
        self.oracle.note_losses(&self.plane);
        sleep(Duration::from_millis(random.spread(500, 5000))).await;
        (0..NODES).for_each(|node| self.plane.restart(node));
    }

    async fn full_disks(&self, random: &mut Random) {
        self.world.note("the disks are full");
        self.plane.set_full(true);
        sleep(Duration::from_millis(random.spread(100, 4000))).await;
        self.plane.set_full(false);
        self.world.note("the disks have room");
    }

    async fn slow_disks(&self, random: &mut Random) {
        let slowness = random.spread(50, 4000);
        self.world.note(format!("nodes take up to {slowness} ms to store"));
        self.plane.set_slowness(slowness);
        sleep(Duration::from_millis(random.spread(1000, 20_000))).await;
        self.plane.set_slowness(10);
    }
}

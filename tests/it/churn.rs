//! The ring grows, breaks and heals while two mounts are at work, and nobody there notices: no operation fails, every byte
//! is right. `slow` has the long forms: `SLOW_TESTS=1 tests/check.sh` runs these and the other ignored tests. `drains`,
//! `joins` and `disks` are families of their own.

mod disks;
mod drains;
mod joins;
mod slow;

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    time::Duration,
};

use harness::{
    Lab, Load, TempMount,
    load::Report,
    netns::{Network, Side},
    wait_for,
};
use nix::sys::signal::Signal;

/// A lab, two mounts, and load in them from the first moment.
struct Scene {
    // Dropped in this order: what writes, where it writes, what it writes to.
    load: Load,
    mounts: [TempMount; 2],
    lab: Lab,
}

impl Scene {
    #[track_caller]
    fn start(nodes: usize) -> Self {
        Self::in_lab(Lab::start(nodes))
    }

    #[track_caller]
    fn in_lab(mut lab: Lab) -> Self {
        let mounts = [lab.mount(), lab.mount()];
        let load = Load::start(mounts[0].path(), mounts[1].path(), 1);
        let scene = Self { load, mounts, lab };
        scene.load.progress(10);
        scene
    }

    /// One node joins after the other until there are so many.
    #[track_caller]
    fn grow(&mut self, nodes: usize) {
        self.lab.grow(nodes);
        self.load.progress(10);
    }

    #[track_caller]
    fn crash(&mut self, node: usize) {
        self.lab.kill(node);
        self.load.progress(10);
    }

    #[track_caller]
    fn bring_back(&mut self, node: usize) {
        self.lab.start_node(node);
        self.whole_again();
    }

    /// The fault lasts that long at least, and the load goes on under it and after it.
    #[track_caller]
    fn during(&mut self, time: Duration, begin: impl FnOnce(&mut Lab), end: impl FnOnce(&mut Lab)) {
        begin(&mut self.lab);
        self.load.go_on(time);
        self.load.progress(10);
        end(&mut self.lab);
        self.load.progress(10);
        self.whole_again();
    }

    /// One fault at a time is promised: the next may begin when all nodes are back and all seats are taken.
    #[track_caller]
    fn whole_again(&mut self) {
        self.lab.wait_settled();
        self.lab.wait_voters();
        self.load.progress(10);
    }

    #[track_caller]
    fn cut(&mut self, node: usize, time: Duration) {
        self.during(time, |lab| lab.cut(node), |lab| lab.heal(node));
    }

    #[track_caller]
    fn pause(&mut self, node: usize, time: Duration) {
        self.during(time, |lab| lab.signal(node, Signal::SIGSTOP), |lab| lab.signal(node, Signal::SIGCONT));
    }

    /// Everything that was written is there, also for a mount that has nothing cached, and nothing failed; every chunk has its
    /// holders, and nothing is stored a fourth time.
    #[track_caller]
    fn finish(self) -> Report {
        self.finish_with(Lab::wait_clean)
    }

    /// The same, and every copy was read.
    #[track_caller]
    fn finish_verified(self) -> Report {
        self.finish_with(Lab::wait_clean_verified)
    }

    #[track_caller]
    fn finish_with(mut self, wait_clean: impl FnOnce(&Lab)) -> Report {
        let fresh = self.lab.mount();
        let report = self.load.finish(fresh.path());
        eprintln!("{report}");
        report.assert_clean();
        self.lab.wait_settled();
        wait_clean(&self.lab);
        drop(self.mounts);
        report
    }
}

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

/// What all the others rest on: a cut really cuts, a split splits, and healing heals.
#[test]
fn cables_carry_packets_unless_cut() {
    let network = Network::new();
    let (ip, other) = (Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2));
    let (server, client) = (network.attach("a", ip), network.attach("b", other));
    let listener = server.run(|| TcpListener::bind((ip, 5057)).unwrap());
    let reaches = || {
        let address = listener.local_addr().unwrap();
        client.run(|| TcpStream::connect_timeout(&address, Duration::from_millis(500))).is_ok()
    };
    let heals = |what: &str| {
        let reached = || if reaches() { Ok(()) } else { Err("no connection".into()) };
        wait_for(&format!("packets pass {what}"), SECONDS(10), reached);
    };
    heals("at first");
    network.cut("a");
    assert!(!reaches(), "the cable is cut");
    network.heal("a");
    heals("after healing");
    network.side("a", Side::Second);
    assert!(!reaches(), "they are in different switches");
    network.side("b", Side::Second);
    heals("within the second switch");
}

#[test]
fn a_ring_grows_from_one_to_five() {
    let mut scene = Scene::start(1);
    scene.grow(3);
    scene.grow(5);
    scene.finish();
}

#[test]
fn a_node_crashes_and_comes_back() {
    let mut scene = Scene::start(3);
    let victim = scene.lab.leader();
    scene.crash(victim);
    scene.bring_back(victim);
    scene.finish();
}

#[test]
fn a_node_loses_its_network_for_ten_seconds() {
    let mut scene = Scene::start(3);
    scene.cut(1, SECONDS(10));
    scene.finish();
}

#[test]
fn a_node_is_stopped_for_five_seconds() {
    let mut scene = Scene::start(3);
    scene.pause(1, SECONDS(5));
    scene.finish();
}

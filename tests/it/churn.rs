//! The ring grows, breaks and heals under load in two mounts, without a visible effect there: no operation fails, every
//! byte is right. `slow` has the long forms: `SLOW_TESTS=1 tests/check.sh` runs these and the other ignored tests.
//! `drains`, `joins` and `disks` are families of their own, and `endurance` is everything at random.

mod disks;
mod drains;
mod endurance;
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

/// A lab with two mounts, and load in them from the start.
struct Scene {
    // Dropped in this order: the writers, their mounts, the ring.
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

    /// Nodes join one after the other until there are `nodes`.
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
    fn restart(&mut self, node: usize) {
        self.lab.start_node(node);
        self.wait_recovered();
    }

    /// Keeps up a fault for at least `time`; the load must make progress during it and after it.
    #[track_caller]
    fn during(&mut self, time: Duration, begin: impl FnOnce(&mut Lab), end: impl FnOnce(&mut Lab)) {
        begin(&mut self.lab);
        self.load.run_for(time);
        self.load.progress(10);
        end(&mut self.lab);
        self.load.progress(10);
        self.wait_recovered();
    }

    /// Waits until all nodes are back and all voters are chosen. The ring promises to survive one fault at a time.
    #[track_caller]
    fn wait_recovered(&mut self) {
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

    /// Checks that no operation failed, that a mount with nothing cached finds everything that was written, and that
    /// every chunk is at its holders and nowhere else.
    #[track_caller]
    fn finish(self) -> Report {
        self.finish_with(Lab::wait_clean)
    }

    /// Like `finish`, and reads every copy.
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

/// The other tests depend on this: a cut stops packets, a split separates, and healing restores the connection.
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
    assert!(!reaches(), "they are at different switches");
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
    scene.restart(victim);
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

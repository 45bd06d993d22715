//! Network namespaces joined by switches, so that every process of a test has an address and a cable of its own.
//!
//! The switches (two bridges) lie in a namespace too: the machine's own network is not touched, all labs may use the
//! same addresses, and removing the namespaces removes everything. A cable is cut at the switch (the bridge port stops
//! forwarding), so packets vanish without notice to any process, as they do when a network breaks.
//!
//! Names contain the test process that created them, so the next run can remove the leftovers of a killed one. The
//! caller (`lab`) handles the processes in a namespace.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    os::fd::AsRawFd,
    panic::resume_unwind,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const PREFIX: &str = "chordfs-";
const FOLDER: &str = "/run/netns";

/// The two switches: all cables are in the first one unless `Network::side` says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    First,
    Second,
}

impl Side {
    fn bridge(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Second => "second",
        }
    }
}

/// One namespace; removed when dropped. Its processes must have ended before.
pub struct Namespace {
    name: String,
}

/// The switches of one lab.
pub struct Network {
    tag: String,
    switch: Namespace,
}

impl Namespace {
    #[track_caller]
    fn new(name: String) -> Self {
        let made = ip(&["netns", "add", &name]);
        assert!(
            made.is_ok(),
            "these tests need network namespaces (as root, with ip of iproute2): {}",
            made.unwrap_err()
        );
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    /// Runs `work` in this namespace; its processes and connections start there.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            let path = Path::new(FOLDER).join(&self.name);
            let file = File::open(&path).unwrap_or_else(|error| panic!("open {}: {error}", path.display()));
            // SAFETY: the descriptor is open for the length of the call, and setns changes this thread alone, which is
            // ours and ends with the work.
            let done = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(done, 0, "entering {}: {}", path.display(), std::io::Error::last_os_error());
            work()
        };
        thread::scope(|scope| scope.spawn(enter).join()).unwrap_or_else(|panic| resume_unwind(panic))
    }

    #[track_caller]
    fn ip(&self, args: &[&str]) {
        ip(&[&["-n", &self.name], args].concat()).unwrap_or_else(|error| panic!("{error}"));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "del", &self.name]) {
            eprintln!("{error}");
        }
    }
}

impl Network {
    #[track_caller]
    pub fn new() -> Self {
        static CLEAN: Once = Once::new();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        CLEAN.call_once(remove_leftovers);
        let tag = format!("{PREFIX}{}-{}", Owner::own(), NEXT.fetch_add(1, Ordering::Relaxed));
        let switch = Namespace::new(format!("{tag}-switch"));
        for side in [Side::First, Side::Second] {
            switch.ip(&["link", "add", side.bridge(), "type", "bridge"]);
            switch.ip(&["link", "set", side.bridge(), "up"]);
        }
        Self { tag, switch }
    }

    /// The prefix for this lab's temporary folders, by which the next run recognises their owner.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// A namespace with a cable to the first switch. `name` is the cable's, ten characters at most.
    #[track_caller]
    pub fn attach(&self, name: &str, address: Ipv4Addr) -> Namespace {
        let namespace = Namespace::new(format!("{}-{name}", self.tag));
        namespace.ip(&["link", "add", "eth0", "type", "veth", "peer", "name", name, "netns", &self.switch.name]);
        namespace.ip(&["addr", "add", &format!("{address}/24"), "dev", "eth0"]);
        namespace.ip(&["link", "set", "eth0", "up"]);
        self.switch.ip(&["link", "set", "dev", name, "master", Side::First.bridge(), "up"]);
        namespace
    }

    /// Cuts the cable: it loses every packet in both directions from now on.
    #[track_caller]
    pub fn cut(&self, name: &str) {
        self.port_state(name, "0");
    }

    #[track_caller]
    pub fn heal(&self, name: &str) {
        self.port_state(name, "3");
    }

    #[track_caller]
    fn port_state(&self, name: &str, state: &str) {
        // ip(8) has this setting too (`type bridge_slave state`), succeeds, and changes nothing.
        run("bridge", &["-n", &self.switch.name, "link", "set", "dev", name, "state", state])
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// Plugs the cable into that switch; the switches are not connected.
    #[track_caller]
    pub fn side(&self, name: &str, side: Side) {
        self.switch.ip(&["link", "set", "dev", name, "master", side.bridge()]);
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

fn ip(args: &[&str]) -> Result<String, String> {
    run("ip", args)
}

fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let line = format!("{program} {}", args.join(" "));
    let out = Command::new(program).args(args).output().map_err(|error| format!("{line}: {error}"))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    Err(format!("{line}: {}", String::from_utf8_lossy(&out.stderr).trim()))
}

/// A process; its start time distinguishes it from a later one with the same number.
#[derive(PartialEq, Eq)]
struct Owner {
    pid: u32,
    started: u64,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.pid, self.started)
    }
}

impl Owner {
    fn own() -> Self {
        let pid = std::process::id();
        Self { pid, started: started(pid).expect("our own process exists") }
    }

    /// The owner of something called `chordfs-PID-START-...`.
    fn of(name: &str) -> Option<Self> {
        let mut fields = name.strip_prefix(PREFIX)?.split('-');
        Some(Self { pid: fields.next()?.parse().ok()?, started: fields.next()?.parse().ok()? })
    }

    fn is_alive(&self) -> bool {
        started(self.pid) == Some(self.started)
    }
}

/// Field 22 of proc_pid_stat(5). Only the second field can contain spaces; it ends with the last `)`.
fn started(pid: u32) -> Option<u64> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    line.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Removes processes, namespaces, mounts and folders of test processes that are gone. Two runs may do this at once, so
/// it ignores what the other one has removed already.
fn remove_leftovers() {
    let is_leftover = |name: &String| Owner::of(name).is_some_and(|owner| !owner.is_alive());
    let folders = names_in(&std::env::temp_dir()).into_iter().filter(is_leftover);
    let folders: Vec<_> = folders.map(|name| std::env::temp_dir().join(name)).collect();
    // Mounts first, and by force: a mount that is killed while programs wait for it may never end.
    for point in folders.iter().flat_map(|folder| mount_points_below(folder)) {
        let _ = umount2(&point, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH);
    }
    for name in names_in(Path::new(FOLDER)).into_iter().filter(is_leftover) {
        let pids = ip(&["netns", "pids", &name]).unwrap_or_default();
        for pid in pids.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = ip(&["netns", "del", &name]);
    }
    for folder in folders {
        let _ = fs::remove_dir_all(&folder);
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn mount_points_below(folder: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    points.filter(|point| point.starts_with(folder)).collect()
}

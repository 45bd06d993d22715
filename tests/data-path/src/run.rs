//! One run: a few mounts and their programs in a storm, then in calm weather, then the last checks.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    sync::{Arc, Once},
    time::Duration,
};

use chordfs_net::tasks;
use chordfs_types::{
    chunk::ChunkId,
    namespace::{Answer, Ino, Query},
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    faults::Faults,
    mount::Mount,
    namespace::Namespace,
    oracle::{CELL_BYTES, FILE_CELLS, Oracle},
    os,
    plane::{Plane, QUORUM},
    program::{Program, names},
    weather::Weather,
    world::{TraceDigest, World},
};

const PROGRAMS: u64 = 2;
/// Programs that are told to stop have no more than the operations under way to wait for.
const LONGEST_END: Duration = Duration::from_secs(700);
/// Long enough for every grace, for two looks at orphans, and for repair.
const SETTLED_AFTER: Duration = Duration::from_secs(90);
/// Without [`Faults::purge_early`], files without a name are kept for this long.
const PURGED_AFTER: Duration = Duration::from_secs(110);

thread_local! {
    static IS_RUN: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct RunReport {
    pub seed: u64,
    pub failure: Option<String>,
    pub last_events: String,
    pub digest: TraceDigest,
    pub virtual_time: Duration,
    pub operations: u64,
}

/// Panics of tasks, which tokio catches, are failures of the run. The hook is set before a process is forked: a child
/// that is forked while another test panics would wait for that test's lock of the hook for ever.
fn report_panics() {
    static SET: Once = Once::new();
    SET.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if IS_RUN.get() {
                PANIC.set(Some(info.to_string()));
            } else {
                default(info);
            }
        }));
    });
}

/// Runs one seed in a process of its own, so that nothing is left of an earlier one.
pub fn run(seed: u64, faults: Faults) -> RunReport {
    report_panics();
    let encoded = os::in_child(|| postcard::to_stdvec(&run_here(seed, faults)).expect("plain data always encodes"));
    let report = encoded.and_then(|encoded| postcard::from_bytes(&encoded).ok());
    report.unwrap_or_else(|| RunReport { seed, failure: Some("the run died".into()), ..RunReport::default() })
}

/// In a fresh thread: hash tables draw their seeds once in each.
fn run_here(seed: u64, faults: Faults) -> RunReport {
    let thread = std::thread::spawn(move || {
        IS_RUN.set(true);
        os::seed_randomness(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without sockets can be made");
        let mut report = runtime.block_on(async {
            os::follow_virtual_time();
            simulate(seed, faults).await
        });
        os::leave_virtual_time();
        drop(runtime);
        if let Some(panic) = PANIC.take() {
            report.failure.get_or_insert(panic);
        }
        report
    });
    thread.join().expect("the run's own code does not panic")
}

async fn simulate(seed: u64, faults: Faults) -> RunReport {
    let world = Arc::new(World::new(seed, faults));
    let mut operations = 0;
    tokio::select! {
        biased;
        () = world.failed() => {}
        () = whole_life(&world, &mut operations) => {}
    }
    RunReport {
        seed,
        failure: world.failure(),
        last_events: world.last_events(),
        digest: world.digest(),
        virtual_time: world.now(),
        operations,
    }
}

async fn whole_life(world: &Arc<World>, operations: &mut u64) {
    let oracle = Oracle::new(world.clone());
    let plane = Plane::new(world.clone());
    let namespace = Namespace::new(world.clone(), oracle.clone(), plane.clone());
    namespace.start_duties();
    plane.start_upkeep();
    let mut mounts = Vec::new();
    for number in 0..world.random(|random| random.between(2, 3)) as usize {
        match Mount::start(number, world, &oracle, &plane, &namespace).await {
            Ok(mount) => mounts.push(mount),
            Err(error) => return world.fail(format!("mount {number} does not start: {error}")),
        }
    }
    let (stop, stopped) = watch::channel(false);
    let mut programs = JoinSet::new();
    for mount in &mounts {
        for program in 0..PROGRAMS {
            let stream = 100 + mount.number as u64 * PROGRAMS + program;
            let program = Program::new(mount.clone(), stream, stopped.clone());
            programs.spawn(tasks::behind(mount.gate.clone(), program.run()));
        }
    }
    let length = Duration::from_secs(world.random(|random| random.between(20, 70)));
    let weather = Weather { world: world.clone(), oracle, plane, namespace, mounts };
    let weather = Arc::new(weather);
    weather.storm(length).await;
    // Sessions and routes need a moment to recover.
    sleep(Duration::from_secs(12)).await;
    world.begin_calm();
    sleep(Duration::from_secs(15)).await;
    stop.send_replace(true);
    match timeout(LONGEST_END, programs.join_all()).await {
        Ok(counts) => *operations = counts.into_iter().sum(),
        Err(_) => return world.fail(format!("a program has not ended {LONGEST_END:?} after it was told to")),
    }
    check_the_end(&weather).await;
}

async fn check_the_end(weather: &Weather) {
    let Weather { world, plane, namespace, mounts, .. } = weather;
    for mount in mounts {
        // What an earlier close could not commit is reported here, once.
        let _ = mount.fs.flush_all().await;
    }
    sleep(SETTLED_AFTER + if world.faults.purge_early { Duration::ZERO } else { PURGED_AFTER }).await;
    for mount in mounts {
        for name in names() {
            if let Ok(attr) = mount.fs.lookup(Ino::ROOT, &name).await {
                read_whole(mount, attr.ino).await;
            }
        }
    }
    check_chunks(world, plane, namespace);
}

/// Opens a file that nothing was written to for long: it must be what the namespace has.
async fn read_whole(mount: &Mount, ino: Ino) {
    let (world, fs, number) = (&mount.world, &mount.fs, mount.number);
    let index = mount.oracle.begin_open();
    let opened = match fs.open(ino, false).await {
        Ok(opened) => opened,
        Err(error) => return world.fail(format!("mount {number} cannot open inode {} in the end: {error}", ino.0)),
    };
    mount.oracle.opened(number, ino, index, mount.session.id());
    let ticket = mount.oracle.begin_read(number, ino);
    match fs.read(ino, 0, (FILE_CELLS as u64 * CELL_BYTES) as u32).await {
        Ok(bytes) => {
            mount.oracle.end_read(&ticket, 0, FILE_CELLS, &bytes);
            mount.oracle.check_same(number, ino, &bytes, &mount.plane);
        }
        Err(error) => mount.oracle.check_error(number, ino, "the last read", &error),
    }
    mount.oracle.closed(number, ino);
    fs.release(ino, opened.handle).await;
}

/// Every chunk of a file is on its nodes, and, if nodes look for orphans, nothing else is.
fn check_chunks(world: &World, plane: &Plane, namespace: &Namespace) {
    let Ok(Answer::Contents { files, .. }) = namespace.query(&Query::Contents { ino: Ino(0), first: 1 }) else {
        return;
    };
    let mut current = BTreeSet::new();
    for extent in files.iter().flat_map(|file| &file.extents) {
        let chunk = |step| ChunkId { version: extent.version, index: extent.first + step };
        current.extend((0..extent.count).map(chunk));
    }
    for id in &current {
        if !plane.is_lost(*id) && plane.on_disks(*id) < QUORUM {
            world.fail(format!(
                "chunk {}@{} of a file is on {} disks in the end",
                id.index,
                id.version.0,
                plane.on_disks(*id)
            ));
        }
    }
    let garbage: Vec<ChunkId> = plane.stored_chunks().difference(&current).copied().collect();
    if world.faults.orphan_scrub && !garbage.is_empty() {
        world.fail(format!("chunks that no file has are still stored: {garbage:?}"));
    }
}

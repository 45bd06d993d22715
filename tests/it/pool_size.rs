//! The size of the pool: operators choose it by `storage-node pool-size`, and a real pool follows.

use std::{
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::Duration,
};

use harness::{LocalPool, Outcome, binary, programs::run_command, tree, wait_for};
use reqwest::blocking::Client;
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(120);
const FILES: u64 = 6;
const FILE_BYTES: usize = 512 << 10;
/// By these rules the pool would shrink within seconds as long as its disks are nearly empty.
const EAGER_RULES: [&str; 14] = [
    "--min",
    "1",
    "--max",
    "4",
    "--capacity",
    "64M",
    "--period",
    "1s",
    "--cooldown",
    "1s",
    "--threshold",
    "60",
    "--scale-in-below",
    "20",
];

/// A pool, and an operator on its machine.
struct Scene {
    pool: LocalPool,
    client: Client,
}

impl Scene {
    fn start() -> Self {
        let client = Client::builder().timeout(Duration::from_secs(30)).build().unwrap();
        let scene = Self { pool: LocalPool::start(&EAGER_RULES), client };
        scene.pool.wait_ready();
        scene
    }

    fn storage_node(&self, args: &[&str]) -> Outcome {
        let address = self.pool.ip().to_string();
        run_command(Command::new(binary("storage-node")).args(args).args(["--node", &address]), DEADLINE)
    }

    fn pool_size(&self, args: &[&str]) -> Outcome {
        self.storage_node(&[&["pool-size"], args].concat())
    }

    fn configure(&self, settings: &[&str]) {
        self.storage_node(&[&["config", "set"], settings].concat()).ok();
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.pool_size(&["--json"]).ok()).expect("it prints JSON")
    }

    #[track_caller]
    fn refused(&self, request: &str, reason: &str) {
        let before = self.status()["serial"].clone();
        let outcome = self.pool_size(&[request]);
        assert!(outcome.code == Some(1) && outcome.stderr.contains(reason), "{request}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("nothing was changed"), "{}", outcome.stderr);
        assert_eq!(self.status()["serial"], before, "a refused decision changes nothing");
    }

    /// Shrinks as soon as no node is being filled any longer.
    fn shrink(&self) {
        wait_for("the pool may shrink", DEADLINE, || match self.pool_size(&["shrink"]) {
            Outcome { code: Some(0), .. } => Ok(()),
            Outcome { stderr, .. } => Err(stderr),
        });
    }

    fn wait_for_nodes(&self, count: usize) {
        self.pool.wait_for_nodes(&format!("{count} nodes"), |nodes| nodes == count);
        wait_for("all of them serve", DEADLINE, || match self.status() {
            status if status["serving"] == count && status["arriving"] == 0 => Ok(()),
            status => Err(status.to_string()),
        });
    }

    fn file(&self, number: u64) -> String {
        format!("http://{}:5058/f{number}", self.pool.ip())
    }

    fn write_files(&self) {
        for number in 0..FILES {
            let answer = self.client.put(self.file(number)).body(tree::bytes(number, FILE_BYTES)).send().unwrap();
            assert_eq!(answer.status().as_u16(), 201);
        }
    }

    #[track_caller]
    fn check_file(&self, number: u64) {
        let read = self.client.get(self.file(number)).send().and_then(|answer| answer.bytes());
        let read = read.unwrap_or_else(|error| panic!("read f{number}: {error}"));
        assert!(read == tree::bytes(number, FILE_BYTES), "f{number} has other contents");
    }

    fn drains(&self) -> usize {
        self.pool.log().matches("shrinks: a node drains").count()
    }
}

#[test]
fn a_local_pool_follows_the_size_that_operators_choose() {
    let scene = Scene::start();
    assert_eq!((&scene.status()["wanted"], scene.status()["serving"].as_u64()), (&Value::Null, Some(1)));
    strangers_choose_nothing(&scene);
    scene.configure(&["pool.largest=3"]);
    assert!(scene.pool_size(&["grow"]).ok().contains("2 nodes"));
    assert!(scene.pool_size(&["grow"]).ok().contains("3 nodes"));
    scene.refused("grow", "pool.largest is 3");
    scene.wait_for_nodes(3);
    scene.write_files();
    files_stay_readable(&scene, || {
        for count in [2, 1] {
            scene.shrink();
            scene.wait_for_nodes(count);
        }
    });
    (0..FILES).for_each(|number| scene.check_file(number));
    scene.refused("shrink", "pool.smallest is 1");
    assert_eq!(scene.drains(), 2, "its own rules, by which it had shrunk long before, stood still");

    scene.configure(&["pool.mode=automatic"]);
    scene.refused("grow", "set pool.mode to manual first");
    scene.refused("release", "set pool.mode to manual first");
    scene.configure(&["pool.mode=manual"]);
    decisions_are_shown(&scene);

    scene.pool_size(&["grow"]).ok();
    scene.wait_for_nodes(2);
    scene.pool_size(&["release"]).ok();
    scene.pool.wait_for_nodes("its own rules shrink it again", |count| count == 1);
    assert_eq!((scene.drains(), &scene.status()["wanted"]), (3, &Value::Null));
    (0..FILES).for_each(|number| scene.check_file(number));
}

fn strangers_choose_nothing(scene: &Scene) {
    for request in ["grow", "shrink", "release", "decision"] {
        let url = format!("http://{}:5059/pool/{request}", scene.pool.ip());
        let answer = scene.client.post(url).send().unwrap();
        assert_eq!(answer.status().as_u16(), 401, "{request}");
    }
    assert_eq!(scene.status()["serial"], 0);
}

/// Reads all files again and again while `steps` run.
fn files_stay_readable(scene: &Scene, steps: impl FnOnce()) {
    let (stop, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !stop.load(Relaxed) {
                (0..FILES).for_each(|number| scene.check_file(number));
                reads.fetch_add(1, Relaxed);
            }
        });
        let stepped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(steps));
        stop.store(true, Relaxed);
        reader.join().expect("every read succeeds");
        stepped.expect("every step succeeds");
    });
    assert!(reads.load(Relaxed) > 0);
}

fn decisions_are_shown(scene: &Scene) {
    let shown = scene.pool_size(&[]).ok();
    assert!(shown.contains("mode     manual") && shown.contains("wanted   1\n"), "{shown}");
    assert_eq!(shown.matches("an operator asked for one more node").count(), 2, "{shown}");
    assert_eq!(shown.matches("an operator asked for one node less").count(), 2, "{shown}");
    let decisions = scene.status()["decisions"].clone();
    let steps: Vec<_> = decisions.as_array().unwrap().iter().map(|line| line["to"].as_u64().unwrap()).collect();
    assert_eq!(steps, [1, 2, 3, 2], "newest first");
}

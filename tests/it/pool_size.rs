//! The size of the pool: operators choose it by `storage-node pool-size`, real scalers by the misses of the caches, and
//! a real pool follows.

use std::{
    fs::{self, File},
    ops::Range,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use harness::{LocalPool, Outcome, binary, programs::run_command, tree, wait_for};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::blocking::Client;
use serde_json::{Value, json};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(120);
const FILES: u64 = 6;
const FILE_BYTES: usize = 512 << 10;
/// Together they are much larger than four caches of 1 MiB.
const MISSED_FILES: u64 = 24;
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
    /// For the logs of the scalers.
    folder: TempDir,
    client: Client,
}

impl Scene {
    fn start() -> Self {
        let client = Client::builder().timeout(Duration::from_secs(30)).build().unwrap();
        let folder = TempDir::with_prefix("chordfs-scalers-").unwrap();
        let scene = Self { pool: LocalPool::start(&EAGER_RULES), folder, client };
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

    fn wait_for_decision(&self, wanted: u64, scalers: &[&ScalerProcess]) {
        wait_for(&format!("{wanted} nodes are wanted"), DEADLINE, || match self.status() {
            status if status["wanted"] == wanted => Ok(()),
            status => {
                let logs: Vec<String> = scalers.iter().map(|scaler| scaler.log()).collect();
                Err(format!("{status:#}\n{}", logs.join("\n--\n")))
            }
        });
    }

    fn file(&self, number: u64) -> String {
        format!("http://{}:5058/f{number}", self.pool.ip())
    }

    fn write_files(&self, numbers: Range<u64>) {
        for number in numbers {
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
    scene.write_files(0..FILES);
    under_load(&scene, 0..FILES, || {
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

fn decisions_are_shown(scene: &Scene) {
    let shown = scene.pool_size(&[]).ok();
    assert!(shown.contains("mode     manual") && shown.contains("wanted   1\n"), "{shown}");
    assert_eq!(shown.matches("an operator asked for one more node").count(), 2, "{shown}");
    assert_eq!(shown.matches("an operator asked for one node less").count(), 2, "{shown}");
    let decisions = scene.status()["decisions"].clone();
    let steps: Vec<_> = decisions.as_array().unwrap().iter().map(|line| line["to"].as_u64().unwrap()).collect();
    assert_eq!(steps, [1, 2, 3, 2], "newest first");
}

/// `storage-node autoscaler` with a period that suits a test.
struct ScalerProcess {
    log: PathBuf,
    child: Child,
}

impl ScalerProcess {
    fn start(scene: &Scene, name: &str) -> Self {
        let log = scene.folder.path().join(name);
        let mut command = Command::new(binary("storage-node"));
        command.args(["autoscaler", "--join", &scene.pool.ip().to_string(), "--period", "1s", "--cooldown", "2s"]);
        command.arg("--token-file").arg(scene.pool.data().join("1/operator-token"));
        let stderr = File::create(&log).unwrap();
        let child = command.stdin(Stdio::null()).stderr(stderr).spawn().expect("the scaler starts");
        Self { log, child }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// SIGTERM; returns when it has ended by itself.
    fn stop(&mut self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).unwrap();
        wait_for("the scaler ends", DEADLINE, || match self.child.try_wait() {
            Ok(Some(status)) if status.success() => Ok(()),
            other => Err(format!("{other:?}; its log:\n{}", self.log())),
        });
    }
}

impl Drop for ScalerProcess {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }
}

/// Reads files over and over while `steps` run: no read fails, and the caches hit or miss.
fn under_load(scene: &Scene, files: Range<u64>, steps: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !stop.load(Relaxed) {
                files.clone().for_each(|number| scene.check_file(number));
            }
        });
        let stepped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(steps));
        stop.store(true, Relaxed);
        reader.join().expect("every read succeeds");
        stepped.expect("every step succeeds");
    });
}

#[test]
fn two_scalers_resize_a_pool_by_its_misses_and_one_goes_on_without_the_other() {
    let scene = Scene::start();
    scene.configure(&["cache.capacity=1M", "pool.mode=automatic", "pool.largest=4", "pool.max_miss_rate=0.4"]);
    scene.write_files(0..MISSED_FILES);
    let (mut first, mut second) = (ScalerProcess::start(&scene, "first"), ScalerProcess::start(&scene, "second"));
    under_load(&scene, 0..MISSED_FILES, || {
        scene.wait_for_decision(2, &[&first, &second]);
        first.child.kill().unwrap();
        scene.wait_for_decision(4, &[&second]);
        scene.wait_for_nodes(4);
    });
    let decisions = scene.status()["decisions"].clone();
    let made: Vec<_> = decisions.as_array().unwrap().iter().map(|line| json!([line["serial"], line["to"]])).collect();
    assert_eq!(made, [json!([3, 4]), json!([2, 2]), json!([1, 1])], "each decision was made once: {decisions:#}");
    let reason = decisions[0]["reason"].as_str().unwrap();
    assert!(decisions[0]["by"] == "scaler" && reason.contains("above 0.40: 2 nodes become 4 (2 × 2.0"), "{reason}");

    second.stop();
    let again = ScalerProcess::start(&scene, "again");
    under_load(&scene, 0..1, || {
        scene.wait_for_decision(1, &[&again]);
        scene.wait_for_nodes(1);
    });
    (0..MISSED_FILES).for_each(|number| scene.check_file(number));
}

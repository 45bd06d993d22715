//! The authority to change the ring through port 5059: a real ring, calls of programs and browsers, `storage-node token`.

use std::{os::unix::fs::PermissionsExt, process::Command, time::Duration};

use harness::{Cluster, Outcome, binary, programs::run_command, wait_for};
use reqwest::{
    Method, StatusCode,
    blocking::{Client, RequestBuilder, Response},
    redirect::Policy,
};

const SOON: Duration = Duration::from_secs(30);

/// Every call of 5059 that is for operators and changes something.
const CHANGING: [(&str, &str); 16] = [
    ("POST", "/drain?allow_fewer_copies=true"),
    ("DELETE", "/drain"),
    ("POST", "/scrub"),
    ("PUT", "/config"),
    ("POST", "/cache/clear"),
    ("POST", "/pool/grow"),
    ("POST", "/pool/shrink"),
    ("POST", "/pool/release"),
    ("POST", "/pool/decision"),
    ("DELETE", "/tokens/0123456789abcdef"),
    ("POST", "/console/settings"),
    ("POST", "/console/clear-cache"),
    ("POST", "/console/delete-all"),
    ("POST", "/console/pool"),
    ("POST", "/console/node"),
    ("POST", "/delete-all"),
];

struct Scene {
    cluster: Cluster,
    client: Client,
}

impl Scene {
    fn url(&self, node: usize, path: &str) -> String {
        format!("http://{}:5059{path}", self.cluster.ip(node))
    }

    fn request(&self, node: usize, method: &str, path: &str) -> RequestBuilder {
        let body = r#"{"pool": {"largest": 5}}"#;
        self.client.request(method.parse::<Method>().unwrap(), self.url(node, path)).body(body)
    }

    fn get(&self, path: &str) -> String {
        self.client.get(self.url(0, path)).send().unwrap().text().unwrap()
    }

    /// The status of a call that an operator makes with this token.
    fn clear_cache(&self, node: usize, token: &str) -> StatusCode {
        self.request(node, "POST", "/cache/clear").bearer_auth(token).send().unwrap().status()
    }

    fn storage_node(&self, args: &[&str]) -> Outcome {
        let address = self.cluster.ip(0).to_string();
        run_command(Command::new(binary("storage-node")).args(args).args(["--node", &address]), SOON)
    }

    fn own_origin(&self) -> String {
        format!("http://{}:5059", self.cluster.ip(0))
    }

    fn log_in(&self, token: &str) -> Response {
        let form = self.client.post(self.url(0, "/login")).header("content-type", "application/x-www-form-urlencoded");
        form.header("origin", self.own_origin()).body(format!("token={token}")).send().unwrap()
    }
}

#[track_caller]
fn assert_refused(request: RequestBuilder, status: u16, what: &str) {
    let answer = request.send().unwrap();
    let (found, text) = (answer.status().as_u16(), answer.text().unwrap());
    assert_eq!(found, status, "{what}: {text}");
    assert!(text.len() > 20, "{what}: the reason is missing: {text:?}");
}

#[test]
fn only_operators_change_the_ring() {
    let client = Client::builder().redirect(Policy::none()).timeout(SOON).build().unwrap();
    let scene = Scene { cluster: Cluster::start(2), client };
    let tokens = [0, 1].map(|node| scene.cluster.operator_token(node));
    let mode = scene.cluster.nodes[0].data.join("operator-token").metadata().unwrap().permissions().mode();
    assert_eq!((mode & 0o777, tokens[0] == tokens[1]), (0o600, false));
    let before = (scene.get("/config"), scene.get("/tokens"));
    strangers_change_nothing(&scene, &tokens[0]);
    assert_eq!((scene.get("/config"), scene.get("/tokens")), before);
    assert_eq!(scene.cluster.status(0)["state"], "serving");

    for (node, token) in [(0, &tokens[0]), (1, &tokens[0]), (0, &tokens[1])] {
        wait_for("each node accepts the token of any node", SOON, || match scene.clear_cache(node, token) {
            StatusCode::OK => Ok(()),
            other => Err(other.to_string()),
        });
    }
    browsers_log_in(&scene, &tokens[0]);
    commands_find_list_and_revoke(&scene, &tokens);
    a_drained_node_takes_its_token_along(scene);
}

fn a_drained_node_takes_its_token_along(mut scene: Scene) {
    let (token, address) = (scene.cluster.operator_token(1), scene.cluster.ip(1).to_string());
    let args = ["drain", "--node", &address, "--allow-fewer-copies"];
    run_command(Command::new(binary("storage-node")).args(args), Duration::from_secs(120)).ok();
    scene.cluster.wait_ended(1);
    wait_for("its token is accepted no longer", SOON, || match scene.clear_cache(0, &token) {
        StatusCode::UNAUTHORIZED => Ok(()),
        other => Err(other.to_string()),
    });
    let list = scene.storage_node(&["token", "list"]).ok();
    assert!(!list.contains(&address), "{list}");
}

fn strangers_change_nothing(scene: &Scene, token: &str) {
    let wrong = token.chars().rev().collect::<String>();
    let other = format!("chordfs-operator-{}", "5".repeat(40));
    for (method, path) in CHANGING {
        let request = || scene.request(0, method, path);
        assert_refused(request(), 401, path);
        assert_refused(request().bearer_auth(&wrong), 401, path);
        assert_refused(request().bearer_auth(&other), 401, path);
        assert_refused(request().basic_auth("operator", Some(token)), 401, path);
        let cookie = || request().header("cookie", format!("chordfs_operator={token}"));
        assert_refused(cookie(), 403, "a program sends the header");
        assert_refused(cookie().header("sec-fetch-site", "same-site"), 403, "a page that port 5058 serves");
        let files = format!("http://{}:5058", scene.cluster.ip(0));
        assert_refused(cookie().header("origin", files), 403, "a page that port 5058 serves");
        assert_refused(request().bearer_auth(token).header("origin", "http://evil.example"), 403, path);
        assert_refused(request().bearer_auth(token).header("host", "evil.example"), 403, path);
    }
}

fn browsers_log_in(scene: &Scene, token: &str) {
    assert!(scene.get("/login").contains("<form"));
    for wrong in ["", "x", &"5".repeat(5000)] {
        let answer = scene.log_in(wrong);
        assert!(answer.status().is_client_error() && answer.headers().get("set-cookie").is_none(), "{answer:?}");
    }
    let answer = scene.log_in(token);
    assert_eq!((answer.status().as_u16(), &answer.headers()["location"]), (303, &"/".parse().unwrap()));
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("; HttpOnly") && cookie.contains("; SameSite=Strict"), "{cookie}");
    let pair = cookie.split(';').next().unwrap();
    let request = scene.request(0, "POST", "/cache/clear").header("cookie", pair);
    assert_eq!(request.header("origin", scene.own_origin()).send().unwrap().status(), StatusCode::OK);
}

fn commands_find_list_and_revoke(scene: &Scene, tokens: &[String; 2]) {
    assert_eq!(scene.storage_node(&["token"]).ok().trim(), tokens[0]);
    let list = scene.storage_node(&["token", "list"]).ok();
    let line = list.lines().find(|line| line.contains(&scene.cluster.ip(1).to_string())).expect("node 2 is listed");
    assert!(line.contains("accepted") && list.lines().count() == 3, "{list}");
    let uid = line.split(' ').next().unwrap();
    scene.storage_node(&["token", "revoke", uid]).ok();
    wait_for("both nodes refuse the revoked token", SOON, || {
        match [0, 1].map(|node| scene.clear_cache(node, &tokens[1])) {
            [StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED] => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    wait_for("its node has made another, which both accept", SOON, || {
        let renewed = scene.cluster.operator_token(1);
        match [0, 1].map(|node| scene.clear_cache(node, &renewed)) {
            [StatusCode::OK, StatusCode::OK] => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let file = scene.cluster.folder().join("wrong");
    std::fs::write(&file, "secret").unwrap();
    let refused = scene.storage_node(&["scrub", "--token-file", file.to_str().unwrap()]);
    assert!(refused.code != Some(0) && refused.stderr.contains("40 hexadecimal digits"), "{}", refused.stderr);
}

/// A logged-in browser.
struct Browser<'a> {
    scene: &'a Scene,
    cookie: String,
}

impl Browser<'_> {
    fn post(&self, path: &str, form: &str) -> (u16, String) {
        let request = self.scene.client.post(self.scene.url(0, path)).header("cookie", &self.cookie);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let answer = request.header("origin", self.scene.own_origin()).body(form.to_owned()).send().unwrap();
        (answer.status().as_u16(), answer.text().unwrap())
    }

    #[track_caller]
    fn assert_post(&self, path: &str, form: &str, status: u16, text: &str) {
        let (found, page) = self.post(path, form);
        assert!(found == status && page.contains(text), "{path} {form}: {found} {page}");
    }
}

#[test]
fn the_consoles_forms_work_without_a_script() {
    let client = Client::builder().redirect(Policy::none()).timeout(SOON).build().unwrap();
    let scene = Scene { cluster: Cluster::start(2), client };
    assert!(scene.get("/").contains("href=\"/login\""), "strangers see where to log in");
    let answer = scene.log_in(&scene.cluster.operator_token(0));
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let browser = Browser { scene: &scene, cookie };
    let page = scene.client.get(scene.url(0, "/")).header("cookie", &browser.cookie).send().unwrap().text().unwrap();
    assert!(page.contains("action=\"/console/settings\"") && page.contains("Delete all data"));
    settings_change_as_a_whole(&browser);
    other_nodes_are_reached(&browser);
    all_data_is_deleted_once_the_name_is_typed(&browser);
}

fn settings_change_as_a_whole(browser: &Browser) {
    let before = browser.scene.get("/config");
    for (form, status, text) in [
        ("version=0&cache.capacity=0&cache.policy=random", 400, "cache.capacity"),
        ("version=0&pool.shrink_ratio=NaN", 400, "pool.shrink_ratio"),
        ("version=0&pool.min_miss_rate=.9", 400, "below pool.max_miss_rate"),
        ("version=9&cache.policy=random", 409, "look at it again"),
        ("version=0&colour=red", 400, "is no setting"),
        ("%ff=%ff&=", 400, "Nothing was changed"),
    ] {
        browser.assert_post("/console/settings", form, status, text);
    }
    assert_eq!(browser.scene.get("/config"), before);
    browser.assert_post("/console/settings", "version=0&ring.name=prod-7&cache.policy=random", 200, "version 1 now");
    let config: serde_json::Value = serde_json::from_str(&browser.scene.get("/config")).unwrap();
    assert_eq!((&config["ring"]["name"], &config["cache"]["policy"]), (&"prod-7".into(), &"random".into()));
}

fn other_nodes_are_reached(browser: &Browser) {
    let other = browser.scene.cluster.ip(1);
    wait_for("node 2 scrubs at the request of a form of node 1", SOON, || {
        match browser.post("/console/node", &format!("node={other}:5057&action=scrub")) {
            (200, page) if page.contains("checks every chunk") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    browser.assert_post("/console/node", "node=127.0.0.9:9&action=scrub", 404, "no storage node of this ring");
    browser.assert_post("/console/node", &format!("node={other}:5057&action=cancel"), 409, "no drain is under way");
    browser.assert_post("/console/node", &format!("node={other}:5057&action=explode"), 400, "is no work");
}

fn all_data_is_deleted_once_the_name_is_typed(browser: &Browser) {
    let files = |path: &str| format!("http://{}:5058/{path}", browser.scene.cluster.ip(0));
    for number in 0..20 {
        let put = browser.scene.client.put(files(&format!("a/b{}/f{number}", number % 3))).body("x").send().unwrap();
        assert_eq!(put.status().as_u16(), 201);
    }
    let listed = || browser.scene.client.post(files("api/list_keys")).send().unwrap().text().unwrap();
    browser.assert_post("/console/delete-all", "ring=prod", 400, "not the name of this ring");
    browser.assert_post("/console/delete-all", "", 400, "type the name");
    browser.assert_post("/console/clear-cache", "ring=prod", 400, "not the name of this ring");
    browser.assert_post("/console/clear-cache", "ring=prod-7", 200, "empty their caches");
    assert_eq!(listed().matches("a/b").count(), 20);
    browser.assert_post("/console/delete-all", "ring=prod-7", 200, "has begun");
    wait_for("nothing is left", SOON, || {
        let status = browser.scene.get("/delete-all");
        if listed().contains("\"keys\":[]") && status.contains("\"removed\":24") { Ok(()) } else { Err(status) }
    });
}

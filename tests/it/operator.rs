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
const CHANGING: [(&str, &str); 6] = [
    ("POST", "/drain?allow_fewer_copies=true"),
    ("DELETE", "/drain"),
    ("POST", "/scrub"),
    ("PUT", "/config"),
    ("POST", "/cache/clear"),
    ("DELETE", "/tokens/0123456789abcdef"),
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

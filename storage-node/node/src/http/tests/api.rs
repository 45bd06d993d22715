//! The calls of the API for programs: their exact answers, and one form for every failure.

use chordfs_types::{
    fs_error::FsError,
    namespace::{FileKind, Ino},
};
use futures_util::{StreamExt, stream};
use reqwest::{
    Body, Method,
    multipart::{Form, Part},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Files, eventually, pattern};

impl Files {
    async fn call(&self, path: &str) -> (u16, Value) {
        let response = self.server.http.post(self.server.url(path)).send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/json", "{path}");
        (response.status().as_u16(), response.json().await.unwrap())
    }

    async fn api_send(&self, form: Form) -> (u16, Value) {
        let request = self.server.http.post(self.server.url("/api/upload")).multipart(form);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    async fn api_upload(&self, key: &str, data: &[u8]) -> (u16, Value) {
        self.api_send(Form::new().text("key", key.to_owned()).part("file", file(data))).await
    }

    async fn api_put(&self, key: &str, data: &[u8]) {
        assert_eq!(self.api_upload(key, data).await, (200, json!({"success": "true"})), "{key}");
    }

    async fn keys(&self) -> Vec<String> {
        let (status, answer) = self.call("/api/list_keys").await;
        assert_eq!((status, &answer["success"], answer.as_object().unwrap().len()), (200, &json!("true"), 2));
        serde_json::from_value(answer["keys"].clone()).unwrap()
    }
}

fn file(data: &[u8]) -> Part {
    Part::bytes(data.to_vec()).file_name("local name")
}

#[track_caller]
fn check_failure((status, answer): (u16, Value), expected: u16, about: &str) {
    let message = answer["error"]["message"].as_str().unwrap_or_else(|| panic!("{status}: {answer}"));
    assert_eq!(answer, json!({"success": "false", "error": {"code": status, "message": message}}));
    assert!(status == expected && message.contains(about), "wanted {expected}, {about:?}: {answer}");
    assert!(message.len() < 400 && !message.contains('\n'), "{message:?}");
}

#[tokio::test]
async fn a_key_reads_back_as_text_or_as_base64() {
    let files = Files::start().await;
    files.api_put("docs/2026/ä b.txt", "grüße\n\"\u{1}".as_bytes()).await;
    let expected = json!({"success": "true", "encoding": "utf-8", "content": "grüße\n\"\u{1}"});
    for path in
        ["/api/key/docs/2026/%C3%A4%20b.txt", "/api/key/docs%2F2026%2F%C3%A4%20b.txt", "/api/key//docs/2026/ä b.txt"]
    {
        assert_eq!(files.call(path).await, (200, expected.clone()), "{path}");
    }
    files.api_put("/binary", b"\xff\0\x01").await;
    let expected = json!({"success": "true", "encoding": "base64", "content": "/wAB"});
    assert_eq!(files.call("/api/key/binary").await, (200, expected));
    files.api_put("binary", b"").await;
    assert_eq!(files.call("/api/key/binary").await.1["content"], "");
    assert_eq!(files.body("/docs/2026/%C3%A4%20b.txt").await, (200, "grüße\n\"\u{1}".as_bytes().to_vec()));
    assert_eq!(files.keys().await, ["binary", "docs/2026/ä b.txt"]);
}

#[tokio::test]
async fn the_fields_of_an_upload_come_in_any_order() {
    let files = Files::start().await;
    files.namespace.make(Ino::ROOT, "mine", FileKind::File, "");
    for form in [
        Form::new().part("file", file(&pattern(9 << 20))).text("key", "mine"),
        Form::new().text("other", "x").part("file", Part::bytes(pattern(9 << 20))).text("key", "mine"),
    ] {
        assert_eq!(files.api_send(form).await, (200, json!({"success": "true"})));
        let attr = files.namespace.attr("mine").unwrap();
        assert_eq!((attr.size, attr.mode, attr.uid), (9 << 20, 0o640, 1), "owner and mode of the replaced file");
    }
    assert!(files.body("/mine").await == (200, pattern(9 << 20)));
    assert!(files.chunks.largest_batch_bytes() <= 4 << 20, "the file is streamed");
}

#[tokio::test]
async fn uploads_that_are_wrong_change_nothing() {
    let files = Files::start().await;
    files.api_put("a/b", b"old").await;
    let before = files.namespace.inode_count();
    for key in ["", "/", "..", "../x", "a/../b", "a/./b", "a//b", "a/", "nul\0", &"k".repeat(256)] {
        check_failure(files.api_upload(key, b"x").await, 400, "");
    }
    for key in [&"k/".repeat(2000), &"k".repeat(4000)] {
        check_failure(files.api_upload(key, b"x").await, 400, "1024 bytes");
    }
    check_failure(files.api_upload("a", b"x").await, 409, "folder");
    check_failure(files.api_upload("a/b/c", b"x").await, 409, "no folder");
    check_failure(files.api_send(Form::new().text("key", "k")).await, 400, "`file`");
    check_failure(files.api_send(Form::new().part("file", file(b"x"))).await, 400, "`key`");
    check_failure(
        files.api_send(Form::new().text("key", "k").text("key", "l").part("file", file(b"x"))).await,
        400,
        "twice",
    );
    let twice = Form::new().text("key", "k").part("file", file(b"x")).part("file", file(b"y"));
    check_failure(files.api_send(twice).await, 400, "twice");
    check_failure(
        files.api_send(Form::new().part("file", file(&pattern(9 << 20))).text("key", "a/b/c")).await,
        409,
        "no folder",
    );
    check_failure(files.call("/api/upload").await, 400, "multipart/form-data");
    eventually("nothing is left of them", || files.namespace.inode_count() == before).await;
    assert_eq!(files.keys().await, ["a/b"]);
    assert_eq!(files.body("/a/b").await, (200, b"old".to_vec()));
}

#[tokio::test]
async fn an_upload_that_is_cut_off_leaves_nothing() {
    let files = Files::start().await;
    let head = "POST /api/upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=B\r\n\
                Content-Length: 99999999\r\n\r\n--B\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nnew/folder/k\r\n\
                --B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n";
    let mut stream = TcpStream::connect(files.server.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&pattern(9 << 20)).await.unwrap();
    eventually("a part is stored", || files.chunks.count() > 0).await;
    drop(stream);
    eventually("the unnamed file is released", || files.namespace.inode_count() == 0).await;
    assert!(files.keys().await.is_empty());
}

/// The story: batches that were stored and not committed yet stayed for an hour, until they were found to be orphans.
#[tokio::test]
async fn an_upload_that_is_cut_off_between_store_and_commit_leaves_no_chunks() {
    let files = Files::start().await;
    files.chunks.stop_answering_puts();
    let broken = stream::iter([Ok(pattern(5 << 20))]).chain(stream::pending::<Result<_, std::io::Error>>());
    let request = files.server.http.put(files.server.url("/a")).body(Body::wrap_stream(broken)).send();
    let sender = tokio::spawn(request);
    eventually("a part is stored", || files.chunks.count() > 0).await;
    sender.abort();
    eventually("it is deleted", || {
        files.namespace.delete_garbage(&files.chunks);
        files.chunks.count() == 0
    })
    .await;
}

#[tokio::test]
async fn every_failure_is_json_with_its_status() {
    let files = Files::start().await;
    files.api_put("d/f", b"x").await;
    let url = |path: &str| files.server.url(path);
    for (method, path, status, about) in [
        (Method::GET, "/api/upload", 405, "is not made with"),
        (Method::PUT, "/api/list_keys", 405, "is not made with"),
        (Method::GET, "/api/key/d/f", 405, "is not made with"),
        (Method::POST, "/api/openapi.json", 405, "is not made with"),
        (Method::GET, "/api/", 404, "no call /api/"),
        (Method::POST, "/api/nothing", 404, "openapi.json"),
        (Method::DELETE, "/api/d/f", 404, "openapi.json"),
        (Method::POST, "/api/key/", 404, "POST /api/key/KEY"),
        (Method::POST, "/api/key", 404, "POST /api/key/KEY"),
        (Method::POST, "/api/key/missing", 404, "key missing"),
        (Method::POST, "/api/key/d/f/g", 404, "no such file"),
        (Method::POST, "/api/key/d/f_chunk_1", 404, "no such file"),
        (Method::POST, "/api/key/d", 409, "folder"),
        (Method::POST, "/api/key/a%00b", 400, "NUL"),
        (Method::POST, "/api/key/a%2F..%2Fb", 400, "`..`"),
        (Method::POST, "/api/key/d/f?x=1", 400, "query"),
        (Method::POST, "/api/list_keys?", 400, "query"),
        (Method::POST, "/api/upload?key=d/f", 400, "query"),
    ] {
        let response = files.server.http.request(method.clone(), url(path)).send().await.unwrap();
        let got = response.status().as_u16();
        if got == 405 {
            assert!(response.headers().contains_key("allow"), "{method} {path}");
        }
        check_failure((got, response.json().await.unwrap()), status, about);
    }
    let long = format!("/api/key/{}", "k".repeat(4000));
    check_failure(files.call(&long).await, 400, "4000 bytes");
    let request = files.server.http.post(url("/api/list_keys")).header("cookie", "k".repeat(70_000));
    let response = request.send().await.unwrap();
    check_failure((response.status().as_u16(), response.json().await.unwrap()), 431, "head");
    files.namespace.fail(Some(FsError::NoQuorum { detail: "no leader".into() }));
    for path in ["/api/list_keys", "/api/key/d/f"] {
        let response = files.server.http.post(url(path)).send().await.unwrap();
        assert_eq!(response.headers()["retry-after"], "1", "{path}");
        check_failure((response.status().as_u16(), response.json().await.unwrap()), 503, "no leader");
    }
}

#[tokio::test]
async fn pages_of_other_sites_upload_nothing() {
    let files = Files::start().await;
    let form = Form::new().text("key", "k").part("file", file(b"x"));
    let request = files.server.http.post(files.server.url("/api/upload")).header("origin", "http://evil.example");
    let response = request.multipart(form).send().await.unwrap();
    check_failure((response.status().as_u16(), response.json().await.unwrap()), 403, "evil.example");
    for (method, path) in [(Method::PUT, "/k"), (Method::DELETE, "/k")] {
        let request = files.server.http.request(method, files.server.url(path)).header("sec-fetch-site", "cross-site");
        assert_eq!(request.send().await.unwrap().status(), 403);
    }
    let listen = files.server.get_with("/api/events", "sec-fetch-site", "cross-site").await;
    assert_eq!(listen.status(), 403);
    assert_eq!(files.namespace.inode_count(), 0);
}

#[tokio::test]
async fn content_that_is_too_long_for_json_names_plain_http() {
    let files = Files::start().await;
    files.api_put("upload", &vec![b'x'; 16 << 20]).await;
    let (status, answer) = files.call("/api/key/upload").await;
    assert_eq!((status, answer["content"].as_str().unwrap().len()), (200, 16 << 20));
    files.api_put("upload", &vec![b'x'; (16 << 20) + 1]).await;
    check_failure(files.call("/api/key/upload").await, 413, "GET /%75pload");
    assert_eq!(files.body("/%75pload").await.1.len(), (16 << 20) + 1);
}

#[tokio::test]
async fn a_list_has_every_file_and_no_other_entry() {
    let files = Files::start().await;
    let folder = files.namespace.make(Ino::ROOT, "many", FileKind::Directory, "");
    for at in 0..23 {
        files.namespace.make(folder, &format!("{at:02}"), FileKind::File, "");
    }
    files.namespace.make(folder, "pipe", FileKind::Fifo, "");
    files.namespace.make(Ino::ROOT, "z\"", FileKind::File, "");
    let expected: Vec<String> = (0..23).map(|at| format!("many/{at:02}")).chain(["z\"".to_owned()]).collect();
    assert_eq!(files.keys().await, expected);
}

#[tokio::test]
async fn a_thousand_uploads_at_once_are_stored() {
    let files = Files::start().await;
    let uploads = stream::iter(0..1000).map(|at| {
        let files = &files;
        async move { files.api_put(&format!("d{}/f{at}", at % 7), b"x").await }
    });
    uploads.buffer_unordered(1000).collect::<Vec<()>>().await;
    assert_eq!(files.keys().await.len(), 1000);
}

#[tokio::test]
async fn plain_puts_and_deletes_follow_their_conditions() {
    let files = Files::start().await;
    let send = |method: Method, path: &'static str, header: Option<(&'static str, String)>, data: &'static str| {
        let request = files.server.http.request(method, files.server.url(path)).body(data);
        let request = header.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        async move { request.send().await.unwrap().status().as_u16() }
    };
    let new_only = || Some(("if-none-match", "*".to_owned()));
    assert_eq!(send(Method::PUT, "/a/b.txt", new_only(), "one").await, 201);
    assert_eq!(send(Method::PUT, "/a/b.txt", new_only(), "two").await, 412);
    let tag = files.server.get("/a/b.txt").await.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(send(Method::PUT, "/a/b.txt", None, "three").await, 204);
    assert_eq!(send(Method::PUT, "/a/b.txt", Some(("if-match", tag.clone())), "four").await, 412);
    assert_eq!(send(Method::DELETE, "/a/b.txt", Some(("if-match", tag)), "").await, 412);
    assert_eq!(files.call("/api/key/a/b.txt").await.1["content"], "three");
    assert_eq!(send(Method::PUT, "/a/b.txt", Some(("content-range", "bytes 0-1/3".into())), "xx").await, 400);
    for (path, status) in [("/", 405), ("/a/", 400), ("/a", 409), ("/a/b.txt/c", 409), ("/a/%00/c", 400)] {
        assert_eq!(send(Method::PUT, path, None, "x").await, status, "{path}");
    }
    for (path, status) in [("/", 405), ("/a", 409), ("/a/b.txt", 204), ("/a/b.txt", 404), ("/a", 204), ("/a", 404)] {
        assert_eq!(send(Method::DELETE, path, None, "").await, status, "{path}");
    }
    eventually("everything is gone", || files.namespace.inode_count() == 0).await;
}

#[tokio::test]
async fn a_put_that_is_cut_off_keeps_the_file() {
    let files = Files::start().await;
    files.put("a", b"old").await;
    let broken = stream::iter([Ok(pattern(9 << 20)), Err(std::io::Error::other("cut"))]);
    let request = files.server.http.put(files.server.url("/a")).body(Body::wrap_stream(broken));
    assert!(request.send().await.is_err());
    eventually("only a is left", || files.namespace.inode_count() == 1).await;
    assert_eq!(files.body("/a").await, (200, b"old".to_vec()));
}

/// The story: the answer was lost, because the connection was closed on a client that was still sending.
#[tokio::test]
async fn a_client_that_sends_much_reads_why_it_is_refused() {
    let files = Files::start().await;
    files.namespace.make(Ino::ROOT, "folder", FileKind::Directory, "");
    let mut stream = TcpStream::connect(files.server.address).await.unwrap();
    let head = "PUT /folder HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 33554432\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&pattern(32 << 20)).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 409"), "{answer}");
}

/// Each call of the router is in the description, and each path of it is served with exactly its methods.
#[tokio::test]
async fn the_description_is_what_is_served() {
    let files = Files::start().await;
    let description: Value = files.server.get("/api/openapi.json").await.json().await.unwrap();
    let described = description["paths"].as_object().unwrap();
    for (path, _) in crate::http::api::calls() {
        assert!(described.contains_key(&path.replace("{*", "{")), "{path} is not described");
    }
    for (path, methods) in described {
        let path = path.replace("{key}", "none").replace("{path}", "none");
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            let is_described = methods.get(method.as_str().to_lowercase()).is_some();
            let response = files.server.http.request(method.clone(), files.server.url(&path)).send().await.unwrap();
            let is_stream = path == "/api/events" && method == Method::GET && response.status() == 200;
            let is_served = is_stream || response.status() != 405 && !unknown_call(&response.bytes().await.unwrap());
            assert_eq!(is_served, is_described, "{method} {path}");
        }
    }
}

fn unknown_call(body: &[u8]) -> bool {
    String::from_utf8_lossy(body).contains("there is no call")
}

#[tokio::test]
async fn listeners_hear_of_the_members_and_of_each_change() {
    let files = Files::start().await;
    files.members.set(&[(1, 5057)]);
    let mut response = files.server.get("/api/events").await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let first = next_event(&mut response).await;
    let expected = json!({"id": 1, "ring": "127.0.0.1:5057", "files": "127.0.0.1:5058", "state": "up"});
    assert_eq!(first, json!({"members": [expected]}));
    files.members.set(&[(1, 5057), (7, 6057)]);
    assert_eq!(next_event(&mut response).await["members"][1]["files"], "127.0.0.1:6058");
    files.members.set(&[(7, 6057)]);
    assert_eq!(next_event(&mut response).await["members"].as_array().unwrap().len(), 1);
    let mut other = files.server.get("/api/events").await;
    assert_eq!(next_event(&mut other).await["members"][0]["id"], 7);
    files.server.stop.cancel();
    assert!(response.chunk().await.unwrap().is_none(), "the stream ends when the node stops");
}

#[tokio::test]
async fn the_number_of_listeners_is_limited() {
    let files = Files::start().await;
    files.members.set(&[(1, 5057)]);
    let mut listening = Vec::new();
    loop {
        let mut response = files.server.get("/api/events").await;
        if response.status() == 503 {
            check_failure((503, response.json().await.unwrap()), 503, "another node");
            break;
        }
        next_event(&mut response).await;
        listening.push(response);
        assert!(listening.len() < 1000);
    }
    assert!(listening.len() > 100, "{}", listening.len());
    drop(listening);
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while files.server.get("/api/events").await.status() != 200 {
        assert!(tokio::time::Instant::now() < deadline, "the places of those that left stay taken");
    }
}

async fn next_event(response: &mut reqwest::Response) -> Value {
    let mut text = String::new();
    while !text.ends_with("\n\n") {
        let bytes = tokio::time::timeout(std::time::Duration::from_secs(10), response.chunk()).await;
        text += std::str::from_utf8(&bytes.expect("an event in time").unwrap().expect("an event")).unwrap();
    }
    let data = text.strip_prefix("event: members\ndata: ").unwrap_or_else(|| panic!("{text:?}"));
    serde_json::from_str(data).unwrap()
}

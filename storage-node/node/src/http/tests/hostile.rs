//! Requests that are wrong, by accident or on purpose: a clear error, nothing is stored, and the node continues to
//! serve.

use std::time::{Duration, Instant};

use axum::Router;
use reqwest::multipart::{Form, Part};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Files, SILENCE, Server, ServerOptions, eventually, pattern};

/// Sends the bytes, closes the sending side if `half_close` is set, and reads until the node closes the connection.
async fn raw(files: &Files, request: &[u8], half_close: bool) -> String {
    let mut stream = TcpStream::connect(files.server.address).await.unwrap();
    stream.write_all(request).await.unwrap();
    if half_close {
        stream.shutdown().await.unwrap();
    }
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the node keeps the connection: {}", String::from_utf8_lossy(&answer));
    String::from_utf8_lossy(&answer).into_owned()
}

fn post(content_type: &str, content_length: usize, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /upload HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {content_type}\r\nContent-Length: {content_length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

fn form(disposition: &[u8]) -> Vec<u8> {
    let body = [&b"--B\r\nContent-Disposition: "[..], disposition, b"\r\n\r\nDATA\r\n--B--\r\n"].concat();
    post("multipart/form-data; boundary=B", body.len(), &body)
}

async fn check_raw(files: &Files, request: &[u8], status: u16, about: &str) {
    let answer = raw(files, request, false).await;
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(about), "wanted {status}: {answer}");
    if status != 204 {
        eventually("nothing is left", || files.namespace.inode_count() == 0).await;
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        assert_eq!(body.trim_end().lines().count(), 1, "{answer}");
    }
}

#[tokio::test]
async fn bad_names_are_refused() {
    let files = Files::start().await;
    for name in ["..", ".", "a/b", "/etc/passwd", "../x", "a/../b", "._chunk_1", ".._chunk_1"] {
        files.check_refused(&[(name, b"x")], 400, "").await;
    }
    files.check_refused(&[("", b"x")], 400, "no file name").await;
    files.check_refused(&[(&"n".repeat(256), b"x")], 400, "256 bytes").await;
    files.check_refused(&[(&"n".repeat(4000), b"x")], 400, "4000 bytes").await;
}

#[tokio::test]
async fn bad_chunk_numbers_are_refused() {
    let files = Files::start().await;
    for name in [
        "c.txt_chunk_0",
        "c.txt_chunk_00",
        "c.txt_chunk_01",
        "c.txt_chunk_4294967296",
        "c.txt_chunk_99999999999999999999",
        "_chunk_1",
    ] {
        files.check_refused(&[(name, b"x")], 400, "NAME_chunk_1").await;
    }
    for name in ["c_chunk_", "c_chunk_x", "c_chunk_1x", "c_chunk_-1"] {
        files.put(name, b"whole").await;
        assert_eq!(files.body(&format!("/{name}")).await, (200, b"whole".to_vec()));
    }
}

/// A chunk of three bytes made a file of 16 TiB, which no program could read to its end.
#[tokio::test]
async fn a_chunk_far_beyond_the_end_is_refused() {
    let files = Files::start().await;
    files.check_refused(&[("c.txt_chunk_4294967295", b"far")], 400, "hole").await;
    files.check_refused(&[("c.txt_chunk_1048577", b"far")], 400, "up to number 1048576").await;
    files.put("c.txt_chunk_3", b"near").await;
    files.check_refused(&[("c.txt_chunk_1048580", b"far")], 400, "up to number 1048579").await;
    files.put("c.txt_chunk_1048579", b"last").await;
}

#[tokio::test]
async fn chunks_that_are_too_long_are_refused() {
    let files = Files::start().await;
    files.check_refused(&[("n_chunk_2", &pattern(4001))], 400, "4000").await;
    files.check_refused(&[("n_chunk_1", &pattern((1 << 20) + 1))], 413, "1048576").await;
    files.put("n_chunk_1", b"x").await;
    files.check_refused(&[("n_chunk_2", &pattern(4001))], 400, "4000").await;
    files.put("n_chunk_1", &pattern(1 << 20)).await;
    // In a form, chunk 1 decides how long the chunks after it may be.
    assert_eq!(files.upload(&[("f_chunk_1", &pattern(5000)), ("f_chunk_2", &pattern(5000))]).await.0, 204);
    let (status, _) = files.upload(&[("kept", b"x"), ("f_chunk_2", &pattern(5001))]).await;
    assert_eq!((status, files.body("/kept").await.0), (400, 404));
}

#[tokio::test]
async fn a_form_with_one_bad_file_is_refused_whole() {
    let files = Files::start().await;
    files.put("kept", b"old").await;
    let (status, _) =
        files.upload(&[("kept", b"new"), ("n_chunk_1", b"x"), ("fresh", &pattern(6 << 20)), ("a/b", b"x")]).await;
    assert_eq!(status, 400);
    assert_eq!(files.body("/kept").await, (200, b"old".to_vec()));
    assert_eq!((files.body("/n").await.0, files.body("/fresh").await.0), (404, 404));
    eventually("the others were let go", || files.namespace.inode_count() == 1).await;
}

#[tokio::test]
async fn forms_without_a_file_are_refused() {
    let files = Files::start().await;
    let (status, text) = files.send(Form::new().text("comment", "x")).await;
    assert!(status == 400 && text.contains("`files`"), "{status} {text}");
    let (status, text) = files.send(Form::new().text("files", "no name")).await;
    assert!(status == 400 && text.contains("no file name"), "{status} {text}");
    let (status, _) = files.send(Form::new().part("file", Part::bytes(&b"x"[..]).file_name("x"))).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn file_names_are_understood_in_every_encoding() {
    let files = Files::start().await;
    for (disposition, status, about) in [
        (&b"form-data; name=\"files\"; filename=\"a\x00b\""[..], 400, ""),
        (b"form-data; name=\"files\"; filename*=UTF-8''a%00b", 400, "NUL"),
        (b"form-data; name=\"files\"; filename*=UTF-8''..%2Fb", 400, "slash"),
        (b"form-data; name=\"files\"", 400, "no file name"),
        (b"form-data; filename=\"x\"", 400, "`files`"),
        (b"form-data", 400, "`files`"),
        (b"form-data; name=\"files\"; filename*=utf-8''%C3%A4", 204, ""),
        (b"form-data; name=\"files\"; filename=\"\xe4\xff\"", 204, ""),
    ] {
        let shown = String::from_utf8_lossy(disposition);
        let answer = raw(&files, &form(disposition), false).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(about), "{shown}: {answer}");
    }
    assert_eq!(files.body("/%C3%A4").await, (200, b"DATA".to_vec()));
    assert_eq!(files.body("/%E4%FF").await, (200, b"DATA".to_vec()));
    assert_eq!(files.namespace.inode_count(), 2);
}

#[tokio::test]
async fn bodies_that_are_not_forms_are_refused() {
    let files = Files::start().await;
    let body = b"--B\r\nContent-Disposition: form-data; name=\"files\"; filename=\"x\"\r\n\r\nDATA";
    check_raw(&files, &post("multipart/form-data", 4, b"DATA"), 400, "boundary").await;
    check_raw(&files, &post("text/plain", 4, b"DATA"), 400, "multipart/form-data").await;
    check_raw(&files, &post("multipart/form-data; boundary=B", 4, b"DATA"), 400, "").await;
    check_raw(&files, &post("multipart/form-data; boundary=B", 0, b""), 400, "").await;
    check_raw(&files, &post("multipart/form-data; boundary=B", body.len(), body), 400, "").await;
}

#[tokio::test]
async fn a_flood_without_a_boundary_is_not_collected() {
    let files = Files::start().await;
    let flood = vec![b'x'; 40 << 20];
    let request = files.server.http.post(files.server.url("/upload"));
    let request = request.header("content-type", "multipart/form-data; boundary=B").body(flood);
    // The client may notice the closed connection before the answer.
    if let Ok(answer) = request.send().await {
        assert_eq!(answer.status(), 400);
        assert!(answer.text().await.unwrap().contains("no part"));
    }
    files.put("still", b"serving").await;
}

#[tokio::test]
async fn a_body_that_stalls_is_ended() {
    let files = Files::start_with(SILENCE).await;
    let body = b"--B\r\nContent-Disposition: form-data; name=\"files\"; filename=\"x\"\r\n\r\nDATA";
    let start = Instant::now();
    check_raw(&files, &post("multipart/form-data; boundary=B", 1000, body), 408, "stopped arriving").await;
    check_raw(&files, &post("multipart/form-data; boundary=B", 1000, b""), 408, "stopped arriving").await;
    assert!(start.elapsed() >= SILENCE);
}

#[tokio::test]
async fn a_sender_that_disconnects_leaves_nothing() {
    let files = Files::start().await;
    let body =
        [&b"--B\r\nContent-Disposition: form-data; name=\"files\"; filename=\"x\"\r\n\r\n"[..], &pattern(9 << 20)];
    let request = post("multipart/form-data; boundary=B", 100 << 20, &body.concat());
    let mut stream = TcpStream::connect(files.server.address).await.unwrap();
    stream.write_all(&request).await.unwrap();
    eventually("the upload began", || files.namespace.inode_count() == 1).await;
    drop(stream);
    eventually("the upload was let go", || files.namespace.inode_count() == 0).await;
    assert_eq!(files.body("/x").await.0, 404);
}

#[tokio::test]
async fn a_reader_that_stops_reading_is_cut_off() {
    let files = Files::start_with(SILENCE).await;
    files.put("big", &pattern(32 << 20)).await;
    let mut stream = TcpStream::connect(files.server.address).await.unwrap();
    stream.write_all(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    // Once the node has ended the connection, nothing more can be sent on it.
    let deadline = Instant::now() + Duration::from_secs(20);
    while stream.write_all(b" ").await.is_ok() {
        assert!(Instant::now() < deadline, "the node still serves a client that reads nothing");
        tokio::time::sleep(SILENCE).await;
    }
}

#[tokio::test]
async fn a_head_that_stalls_is_ended() {
    let files = Files::start_with(SILENCE).await;
    raw(&files, b"GET /a HTTP/1.1\r\nHos", false).await;
    raw(&files, b"", false).await;
}

/// 4096 idle connections kept newcomers waiting for a minute.
#[tokio::test]
async fn a_newcomer_takes_the_place_of_an_idle_connection() {
    let options = ServerOptions { max_connections: 20, ..ServerOptions::default() };
    let server = Server::start_with(Router::new(), options).await;
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(TcpStream::connect(server.address).await.unwrap());
    }
    let start = Instant::now();
    assert_eq!(server.get("/").await.status(), 404);
    assert!(start.elapsed() < Duration::from_secs(5));
    let mut closed = 0;
    for stream in &mut idle {
        let mut byte = [0];
        closed += usize::from(
            tokio::time::timeout(Duration::from_millis(20), stream.read(&mut byte)).await.is_ok_and(|r| r.is_ok()),
        );
    }
    assert_eq!(closed, 1, "only one place was needed");
}

/// A client that kept opening connections left the process without a file descriptor for anything else.
#[tokio::test]
async fn a_connection_with_a_request_keeps_its_place() {
    let slow = axum::routing::get(|| async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        "done"
    });
    let options = ServerOptions { max_connections: 1, ..ServerOptions::default() };
    let server = Server::start_with(Router::new().route("/slow", slow), options).await;
    let newcomer = async {
        // For longer than a connection has to be idle before it loses its place.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        server.get("/slow").await
    };
    let (first, newcomer) = tokio::join!(server.get("/slow"), newcomer);
    assert_eq!((first.status().as_u16(), newcomer.status().as_u16()), (200, 200));
}

#[tokio::test]
async fn a_connection_beyond_the_limit_waits_until_an_idle_one_is_closed() {
    let options = ServerOptions { max_connections: 1, head_silence: SILENCE, ..ServerOptions::default() };
    let server = Server::start_with(Router::new(), options).await;
    let start = Instant::now();
    let _idle = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(server.get("/").await.status(), 404);
    assert!(start.elapsed() >= SILENCE);
}

#[tokio::test]
async fn paths_to_nothing_are_not_found() {
    let files = Files::start().await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").into_bytes();
    check_raw(&files, &get("/../../etc/passwd"), 400, "").await;
    check_raw(&files, &get("/a/%2e%2e/b"), 400, "").await;
    check_raw(&files, &get("/a%2Fb"), 400, "slash").await;
    check_raw(&files, &get("/a%00b"), 400, "NUL").await;
    check_raw(&files, &get(&format!("/{}", "n".repeat(4000))), 400, "4000").await;
    check_raw(&files, &get("/?after=a%2Fb"), 400, "slash").await;
    check_raw(&files, &get("/%zz"), 404, "").await;
    let patch = files.server.http.patch(files.server.url("/a")).send().await.unwrap();
    assert_eq!(patch.status(), 405);
}

/// Heads of 2 MB were accepted, and heads of almost a MiB kept for a minute.
#[tokio::test]
async fn a_head_without_an_end_is_refused_before_the_node_holds_much_of_it() {
    let files = Files::start().await;
    for bytes in [100 << 10, 2 << 20] {
        let head = format!("GET / HTTP/1.1\r\nHost: x\r\nCookie: {}\r\n\r\n", "x".repeat(bytes));
        let answer = raw(&files, head.as_bytes(), true).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    let endless = format!("GET / HTTP/1.1\r\nHost: x\r\nCookie: {}", "x".repeat(100 << 10));
    let answer = raw(&files, endless.as_bytes(), true).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let accepted =
        format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: {}\r\n\r\n", "x".repeat(60 << 10));
    assert!(raw(&files, accepted.as_bytes(), false).await.starts_with("HTTP/1.1 200 "));
    let two = "GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(3000) + "GET / HTTP/1.0\r\n\r\n";
    let answers = raw(&files, two.as_bytes(), false).await;
    assert_eq!(answers.matches(" 200 OK").count(), 3001, "requests in a row are no head without an end");
}

#[tokio::test]
async fn a_stop_lets_running_requests_end() {
    let mut files = Files::start().await;
    files.put("a", b"x").await;
    files.server.stop.cancel();
    let task = files.server.task.take().unwrap();
    tokio::time::timeout(Duration::from_secs(10), task).await.expect("the server ends").unwrap();
    assert!(TcpStream::connect(files.server.address).await.is_err());
}

#[tokio::test]
async fn requests_of_other_sites_and_without_a_host_are_refused() {
    let files = Files::start().await;
    let form = Form::new().part("files", Part::bytes(&b"x"[..]).file_name("x"));
    let request = files.server.http.post(files.server.url("/upload")).multipart(form);
    let answer = request.header("origin", "http://evil.example").send().await.unwrap();
    assert_eq!((answer.status().as_u16(), files.namespace.inode_count()), (403, 0));
    assert_eq!(files.server.get_with("/", "host", "evil.example").await.status(), 403);
    let bare = raw(&files, b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", false).await;
    assert!(bare.starts_with("HTTP/1.1 400 "), "{bare}");
    let old = raw(&files, b"GET / HTTP/1.0\r\n\r\n", false).await;
    assert!(old.starts_with("HTTP/1.0 200 "), "{old}");
}

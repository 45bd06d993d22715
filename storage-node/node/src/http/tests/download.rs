//! What `GET` answers: ranges, validators, paths and symlinks, chunks of files, and reading while things change.

use chordfs_types::{
    fs_error::FsError,
    namespace::{FileKind, Ino},
};
use reqwest::header;

use super::{Files, pattern};

#[tokio::test]
async fn a_file_has_its_headers() {
    let files = Files::start().await;
    files.put("a.txt", b"hello").await;
    let response = files.server.get("/a.txt").await;
    let headers = response.headers();
    assert_eq!(headers[header::CONTENT_LENGTH], "5");
    assert_eq!(headers[header::ACCEPT_RANGES], "bytes");
    assert_eq!(headers[header::CONTENT_TYPE], "text/plain; charset=utf-8");
    assert!(headers[header::LAST_MODIFIED].to_str().unwrap().starts_with("Sun, 09 Sep 2001 01:46:4"));
    let head = files.server.http.head(files.server.url("/a.txt")).send().await.unwrap();
    assert_eq!((head.status().as_u16(), head.headers()[header::CONTENT_LENGTH].to_str().unwrap()), (200, "5"));
    assert_eq!(head.bytes().await.unwrap().len(), 0);
    assert_eq!(files.server.http.head(files.server.url("/b")).send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn stored_pages_and_scripts_cannot_run() {
    let files = Files::start().await;
    for (name, disposition) in [
        ("x.html", "attachment"),
        ("x.svg", "attachment"),
        ("x.xml", "attachment"),
        ("x.js", "attachment"),
        ("x.png", "inline"),
    ] {
        files.put(name, b"<script>alert(1)</script>").await;
        for range in ["", "bytes=0-7"] {
            let response = files.server.get_with(&format!("/{name}"), "range", range).await;
            let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
            assert_eq!(
                (header("x-content-type-options"), header("content-disposition")),
                ("nosniff".into(), disposition.into())
            );
            assert!(header("content-security-policy").contains("sandbox"), "{name}");
            assert!(!header("content-type").contains("javascript"), "{name}");
        }
    }
    let refused = files.server.get("/<script>").await;
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["x-content-type-options"]),
        (404, &"nosniff".parse().unwrap())
    );
    assert_eq!(refused.headers()["content-type"], "text/plain; charset=utf-8");
}

#[tokio::test]
async fn every_kind_of_range_is_answered() {
    let files = Files::start().await;
    let data = pattern((9 << 20) + 5);
    let size = data.len();
    files.put("r", &data).await;
    for (range, from, to) in [
        ("bytes=0-0".to_owned(), 0, 1),
        ("bytes=4095-4096".to_owned(), 4095, 4097),
        ("bytes=5000000-".to_owned(), 5_000_000, size),
        ("bytes=-7".to_owned(), size - 7, size),
        (format!("bytes=1-{size}"), 1, size),
    ] {
        let response = files.server.get_with("/r", "range", &range).await;
        assert_eq!(response.status(), 206, "{range}");
        assert_eq!(response.headers()[header::CONTENT_RANGE], format!("bytes {from}-{}/{size}", to - 1));
        assert_eq!(response.headers()[header::CONTENT_LENGTH], (to - from).to_string());
        assert!(response.bytes().await.unwrap() == data[from..to], "{range}");
    }
    let beyond = files.server.get_with("/r", "range", &format!("bytes={size}-")).await;
    assert_eq!(
        (beyond.status().as_u16(), &beyond.headers()[header::CONTENT_RANGE]),
        (416, &format!("bytes */{size}").parse().unwrap())
    );
    for whole in ["bytes=0-1,5-6", "bytes=9-1", "lines=1-2"] {
        let response = files.server.get_with("/r", "range", whole).await;
        assert_eq!((response.status().as_u16(), response.content_length()), (200, Some(size as u64)), "{whole}");
    }
}

#[tokio::test]
async fn an_unchanged_file_is_not_sent_again() {
    let files = Files::start().await;
    files.put("v", b"0123456789").await;
    let etag = files.server.get("/v").await.headers()[header::ETAG].to_str().unwrap().to_owned();
    assert_eq!(files.server.get_with("/v", "if-none-match", &etag).await.status(), 304);
    let with_range = |tag: String| {
        let request =
            files.server.http.get(files.server.url("/v")).header("range", "bytes=2-3").header("if-range", tag);
        async { request.send().await.unwrap().status().as_u16() }
    };
    assert_eq!(with_range(etag.clone()).await, 206);
    files.put("v", b"abc").await;
    assert_eq!(files.server.get_with("/v", "if-none-match", &etag).await.status(), 200);
    assert_eq!(with_range(etag).await, 200);
}

#[tokio::test]
async fn paths_may_have_directories_and_bytes_that_are_not_utf8() {
    let files = Files::start().await;
    let dir = files.namespace.make(Ino::ROOT, "dir", FileKind::Directory, "");
    let sub = files.namespace.make(dir, "süb", FileKind::Directory, "");
    let file = files.namespace.make(sub, "f", FileKind::File, "");
    files.namespace.grow(file, 5000);
    assert_eq!(files.body("/dir/s%C3%BCb/f").await, (200, vec![0; 5000]));
    assert_eq!(files.body("//dir//s%C3%BCb/f").await, (200, vec![0; 5000]));
    assert_eq!(files.body("/dir/s%C3%BCb/f_chunk_2").await, (200, vec![0; 904]));
    for missing in ["/dir/g", "/nodir/f", "/dir/s%C3%BCb/f/g", "/%ff", "/dir/s%C3%BCb_chunk_1"] {
        assert_eq!(files.body(missing).await.0, 404, "{missing}");
    }
}

#[tokio::test]
async fn symlinks_are_followed_within_the_tree() {
    let files = Files::start().await;
    files.put("target", b"found").await;
    let dir = files.namespace.make(Ino::ROOT, "dir", FileKind::Directory, "");
    files.namespace.make(dir, "up", FileKind::Symlink, "../target");
    files.namespace.make(Ino::ROOT, "to-dir", FileKind::Symlink, "./dir/");
    files.namespace.make(Ino::ROOT, "out", FileKind::Symlink, "../../etc/passwd");
    files.namespace.make(Ino::ROOT, "absolute", FileKind::Symlink, "/target");
    files.namespace.make(Ino::ROOT, "loop", FileKind::Symlink, "loop");
    for hop in 1..=9 {
        let target = if hop == 1 { "target".to_owned() } else { format!("hop{}", hop - 1) };
        files.namespace.make(Ino::ROOT, &format!("hop{hop}"), FileKind::Symlink, &target);
    }
    for path in ["/dir/up", "/to-dir/up", "/hop8", "/hop8_chunk_1"] {
        assert_eq!(files.body(path).await, (200, b"found".to_vec()), "{path}");
    }
    for path in ["/out", "/absolute", "/loop", "/hop9", "/to-dir/up/x"] {
        assert_eq!(files.body(path).await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn chunks_of_a_file_from_the_mount_can_be_read() {
    let files = Files::start().await;
    let data = pattern(4096 * 2 + 10);
    files.put("w", &data).await;
    assert!(files.body("/w_chunk_1").await == (200, data[..4096].to_vec()));
    assert!(files.body("/w_chunk_3").await == (200, data[8192..].to_vec()));
    for missing in ["/w_chunk_4", "/w_chunk_0", "/w_chunk_01", "/w_chunk_4294967295", "/w_chunk_4294967296"] {
        assert_eq!(files.body(missing).await.0, 404, "{missing}");
    }
    let part = files.server.get_with("/w_chunk_3", "range", "bytes=2-4").await;
    assert_eq!((part.status().as_u16(), &part.bytes().await.unwrap()[..]), (206, &data[8194..8197]));
}

#[tokio::test]
async fn a_file_with_more_extents_than_one_answer_holds_is_read_whole() {
    let files = Files::start().await;
    let data = pattern(4000 * 23);
    for (at, chunk) in data.chunks(4000).enumerate() {
        files.put(&format!("e_chunk_{}", at + 1), chunk).await;
    }
    assert!(files.body("/e").await.1 == data);
    let tail = files.server.get_with("/e", "range", "bytes=80001-").await;
    assert!(tail.bytes().await.unwrap() == data[80001..]);
}

#[tokio::test]
async fn a_missing_chunk_is_an_error_or_cuts_off_the_body() {
    let long = pattern(20 << 20);
    let files = Files::start().await;
    files.put("m", b"x").await;
    files.chunks.fail(Some(FsError::NoReplica { detail: "gone".into() }));
    assert_eq!(files.body("/m").await.0, 503);
    files.chunks.fail(None);
    files.put("long", &long).await;
    files.chunks.fail_after(2);
    let response = files.server.get("/long").await;
    assert_eq!(response.status(), 200);
    assert!(response.bytes().await.is_err(), "a body that is cut off must not look complete");
}

#[tokio::test]
async fn readers_that_disconnect_or_are_slow_do_no_harm() {
    let files = Files::start().await;
    let data = pattern(20 << 20);
    files.put("big", &data).await;
    drop(files.server.get("/big").await);
    let mut response = files.server.get("/big").await;
    let mut read = Vec::new();
    while let Some(piece) = response.chunk().await.unwrap() {
        read.extend_from_slice(&piece);
        tokio::task::yield_now().await;
    }
    assert!(read == data);
}

#[tokio::test]
async fn a_reader_does_not_see_a_replacement_of_its_file() {
    let files = Files::start().await;
    let old = pattern(20 << 20);
    files.put("f", &old).await;
    let response = files.server.get("/f").await;
    files.put("f", b"new").await;
    assert!(response.bytes().await.unwrap() == old);
    assert_eq!(files.body("/f").await, (200, b"new".to_vec()));
}

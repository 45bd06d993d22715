//! Directories as pages and as JSON.

use chordfs_types::namespace::{FileKind, Ino};
use serde_json::Value;

use super::Files;

async fn json(files: &Files, path: &str) -> Value {
    let response = files.server.get_with(path, "accept", "application/json").await;
    assert_eq!(response.status(), 200);
    response.json().await.unwrap()
}

#[tokio::test]
async fn json_comes_in_pages() {
    let files = Files::start().await;
    let dir = files.namespace.make(Ino::ROOT, "d r", FileKind::Directory, "");
    for name in 0..12 {
        files.namespace.make(dir, &format!("f {name:02}"), FileKind::File, "");
    }
    let (mut path, mut names) = ("/d%20r".to_owned(), Vec::new());
    loop {
        let page = json(&files, &path).await;
        assert_eq!(page["path"], "/d r");
        names
            .extend(page["entries"].as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => path = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(names, (0..12).map(|name| format!("f {name:02}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn json_entries_have_kind_size_and_href() {
    let files = Files::start().await;
    files.put("a&b", b"1234").await;
    files.namespace.make(Ino::ROOT, "dir", FileKind::Directory, "");
    let page = json(&files, "/").await;
    let [file, dir] = &page["entries"].as_array().unwrap()[..] else { panic!("{page}") };
    assert_eq!((&file["kind"], &file["size"], &file["href"]), (&"file".into(), &4.into(), &"/a%26b".into()));
    assert_eq!((&dir["kind"], &dir["href"], &page["next"]), (&"directory".into(), &"/dir/".into(), &Value::Null));
}

#[tokio::test]
async fn the_page_escapes_names() {
    let files = Files::start().await;
    files.put("<script>alert('x')&", b"1").await;
    let page = files.server.get("/").await;
    assert!(page.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
    let page = page.text().await.unwrap();
    assert!(page.contains("&lt;script&gt;alert('x')&amp;"), "{page}");
    assert!(page.contains("/%3Cscript%3Ealert%28%27x%27%29%26") && !page.contains("<script"), "{page}");
}

#[tokio::test]
async fn the_upload_form_posts_the_field() {
    let files = Files::start().await;
    let page = files.server.get("/upload").await.text().await.unwrap();
    for part in [r#"method="post""#, r#"enctype="multipart/form-data""#, r#"type="file" name="files""#] {
        assert!(page.contains(part), "{page}");
    }
}

#[tokio::test]
async fn pages_run_no_scripts_and_stay_out_of_frames() {
    let files = Files::start().await;
    for path in ["/", "/upload"] {
        let response = files.server.get(path).await;
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert!(header("content-security-policy").starts_with("default-src 'none'"), "{path}");
        assert_eq!((header("x-frame-options"), header("x-content-type-options")), ("DENY".into(), "nosniff".into()));
    }
    let json = files.server.get_with("/", "accept", "application/json").await;
    assert_eq!(json.headers()["x-content-type-options"], "nosniff");
}

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
    assert!(page.contains("/%3Cscript%3Ealert%28%27x%27%29%26"), "{page}");
    assert_eq!(page.matches("<script").count(), 1, "only the page's own: {page}");
}

#[tokio::test]
async fn the_upload_form_posts_the_field() {
    let files = Files::start().await;
    let page = files.server.get("/upload").await.text().await.unwrap();
    for part in [r#"method="post""#, r#"enctype="multipart/form-data""#, r#"type="file""#, r#"name="files""#] {
        assert!(page.contains(part), "{page}");
    }
}

#[tokio::test]
async fn pages_run_only_their_own_script_and_stay_out_of_frames() {
    let files = Files::start().await;
    for path in ["/", "/upload"] {
        let response = files.server.get(path).await;
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        let policy = header("content-security-policy");
        let nonce =
            policy.split("script-src 'nonce-").nth(1).and_then(|rest| rest.split('\'').next()).unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'; script-src 'nonce-") && nonce.len() == 32, "{policy}");
        assert_eq!((header("x-frame-options"), header("x-content-type-options")), ("DENY".into(), "nosniff".into()));
        let again = files.server.get(path).await;
        assert_ne!(again.headers()["content-security-policy"], policy, "the number can be guessed");
        assert!(response.text().await.unwrap().contains(&format!(r#"<script nonce="{nonce}">"#)));
    }
    let json = files.server.get_with("/", "accept", "application/json").await;
    assert_eq!(json.headers()["x-content-type-options"], "nosniff");
}

#[tokio::test]
async fn a_search_lists_the_names_that_contain_the_word() {
    let files = Files::start().await;
    for at in 0..12 {
        files.namespace.make(Ino::ROOT, &format!("Report {at:02}.txt"), FileKind::File, "");
        files.namespace.make(Ino::ROOT, &format!("other {at:02}"), FileKind::File, "");
    }
    let page = json(&files, "/?search=report+0").await;
    let names: Vec<&str> =
        page["entries"].as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(names, (0..10).map(|at| format!("Report {at:02}.txt")).collect::<Vec<_>>());
    let html = files.server.get("/?search=report+0").await.text().await.unwrap();
    assert!(html.contains("Report 09.txt") && !html.contains("other"), "{html}");
    assert!(html.contains(r#"value="report 0""#), "{html}");
    let html = files.server.get("/?search=%22%3E%3Cscript%3E").await.text().await.unwrap();
    assert!(html.contains("No name matches.") && html.matches("<script").count() == 1, "{html}");
}

#[tokio::test]
async fn links_to_names_of_routes_lead_to_the_files() {
    let files = Files::start().await;
    for name in ["upload", "api", "chunks", "events"] {
        files.put(name, name.as_bytes()).await;
    }
    for entry in json(&files, "/").await["entries"].as_array().unwrap() {
        let name = entry["name"].as_str().unwrap();
        assert_eq!(files.body(entry["href"].as_str().unwrap()).await, (200, name.as_bytes().to_vec()));
    }
}

#[tokio::test]
async fn the_page_reads_without_its_script() {
    let files = Files::start().await;
    files.put("a.png", &[0; 1536]).await;
    files.namespace.make(Ino::ROOT, "dir", FileKind::Directory, "");
    let html = files.server.get("/").await.text().await.unwrap();
    for part in
        ["1.5 KiB", "2001-09-09 01:46", r#"<a href="/dir/">dir/</a>"#, r#"<img class="small" src="/a.png""#, "download"]
    {
        assert!(html.contains(part), "{part}: {html}");
    }
    for button in html.split("<button").skip(1).filter(|button| button.contains("delete")) {
        assert!(button.contains("hidden"), "a button that does nothing is shown: {button}");
    }
}

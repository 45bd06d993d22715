//! Directories as pages and as JSON.

use chordfs_types::namespace::{FileKind, Ino};
use serde_json::Value;

use super::Files;

async fn json(files: &Files, path: &str) -> Value {
    let response = files.server.get_with(path, "accept", "application/json").await;
    assert_eq!(response.status(), 200);
    response.json().await.unwrap()
}

/// The names of all pages from `path` on.
async fn all_names(files: &Files, path: &str) -> Vec<String> {
    let (mut path, mut names) = (path.to_owned(), Vec::new());
    loop {
        let page = json(files, &path).await;
        let entries = page["entries"].as_array().unwrap();
        names.extend(entries.iter().map(|entry| entry["name"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => path = next.to_owned(),
            None => return names,
        }
    }
}

#[tokio::test]
async fn json_comes_in_pages() {
    let files = Files::start().await;
    let dir = files.namespace.make(Ino::ROOT, "d r", FileKind::Directory, "");
    for name in 0..12 {
        files.namespace.make(dir, &format!("f {name:02}"), FileKind::File, "");
    }
    let first = json(&files, "/d%20r").await;
    assert_eq!((&first["path"], &first["next"]), (&"/d r".into(), &"/d%20r/?after=f%2004".into()));
    let names = all_names(&files, "/d%20r").await;
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
    let names = all_names(&files, "/?search=report+0").await;
    assert_eq!(names, (0..10).map(|at| format!("Report {at:02}.txt")).collect::<Vec<_>>());
    let html = files.server.get("/?search=report+0").await.text().await.unwrap();
    assert!(html.contains("Report 09.txt") && !html.contains("other"), "{html}");
    assert!(html.contains(r#"value="report 0""#), "{html}");
    let html = files.server.get("/?search=%22%3E%3Cscript%3E").await.text().await.unwrap();
    assert!(html.contains("No name matches.") && html.matches("<script").count() == 1, "{html}");
}

#[tokio::test]
async fn a_search_finds_names_in_all_folders_below() {
    let files = Files::start().await;
    let top = files.namespace.make(Ino::ROOT, "t&p", FileKind::Directory, "");
    let sub = files.namespace.make(top, "my reports", FileKind::Directory, "");
    let file = files.namespace.make(sub, "report <1>.png", FileKind::File, "");
    files.namespace.grow(file, 1536);
    files.namespace.make(sub, "other", FileKind::File, "");
    files.namespace.make(Ino::ROOT, "report outside", FileKind::File, "");

    let page = json(&files, "/t%26p/?search=REPORT").await;
    let [folder, file] = &page["entries"].as_array().unwrap()[..] else { panic!("{page}") };
    let fields = |entry: &Value| ["name", "href", "kind"].map(|field| entry[field].as_str().unwrap().to_owned());
    assert_eq!(fields(folder), ["my reports", "/t%26p/my%20reports/", "directory"]);
    assert_eq!(fields(file), ["my reports/report <1>.png", "/t%26p/my%20reports/report%20%3C1%3E.png", "file"]);
    assert_eq!((&file["size"], file["mtime"].as_i64() > Some(1_000_000_000)), (&1536.into(), true), "{file}");
    assert_eq!((&page["path"], &page["next"]), (&"/t&p".into(), &Value::Null));

    let html = files.server.get("/t%26p/?search=REPORT").await.text().await.unwrap();
    for part in [
        "Search this folder and all folders in it",
        r#"<a href="/t%26p/my%20reports/report%20%3C1%3E.png">my reports/report &lt;1&gt;.png</a>"#,
        r#"<img class="small" src="/t%26p/my%20reports/report%20%3C1%3E.png""#,
        r#"aria-label="Delete my reports/report &lt;1&gt;.png""#,
        "1.5 KiB",
    ] {
        assert!(html.contains(part), "{part}: {html}");
    }
}

#[tokio::test]
async fn a_search_of_many_pages_goes_on_by_its_links() {
    let files = Files::start().await;
    let mut expected = Vec::new();
    for folder in ["a b", "c+d"] {
        let ino = files.namespace.make(Ino::ROOT, folder, FileKind::Directory, "");
        for number in 0..1000 {
            files.namespace.make(ino, &format!("hit {number:04}"), FileKind::File, "");
            expected.push(format!("{folder}/hit {number:04}"));
        }
    }
    assert!(all_names(&files, "/?search=hit").await == expected);
    let html = files.server.get("/?search=hit").await.text().await.unwrap();
    let link = html.split(r#"<a rel="next" href="/?after=a%20b/hit%20"#).nth(1).unwrap_or_else(|| panic!("{html}"));
    assert!(link.contains(r#"&amp;search=hit">Go on searching after a b/hit "#), "{link}");
}

#[tokio::test]
async fn places_that_do_not_exist_end_a_search_well_and_bad_ones_are_refused() {
    let files = Files::start().await;
    let folder = files.namespace.make(Ino::ROOT, "m", FileKind::Directory, "");
    files.namespace.make(folder, "hit", FileKind::File, "");
    let long_and_absent = vec!["absent"; 500].join("/");
    for (after, found) in [("a", 1), ("m/a/b", 1), ("m", 1), ("m/hit", 0), ("m/hit/x", 0), ("%ff%fe", 0)] {
        assert_eq!(all_names(&files, &format!("/?search=hit&after={after}")).await.len(), found, "{after}");
    }
    assert_eq!(all_names(&files, &format!("/?search=hit&after={long_and_absent}")).await, ["m/hit"]);
    let html = files.server.get("/?search=hit&after=m/hit").await.text().await.unwrap();
    assert!(html.contains("No further name matches."), "{html}");

    let (long_name, long_path) = ("x".repeat(4000), vec!["absent"; 600].join("/"));
    for after in ["", "/", "m/", "..", "m/../x", "m/%00", "%2e%2e", &long_name, &long_path] {
        let response = files.server.get(&format!("/?search=hit&after={after}")).await;
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert!(status == 400 && text.starts_with("after: "), "{after}: {status} {text}");
    }
    for after in ["", "..", "a/b", "%00", &long_name] {
        let response = files.server.get(&format!("/?after={after}")).await;
        assert_eq!(response.status(), 400, "a plain listing goes on behind a name: {after}");
    }
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

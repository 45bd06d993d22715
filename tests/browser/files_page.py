"""files_page.py NODE [CHECK...]: uses the page of files on port 5058 as people do: with mouse, keyboard and phone."""
import base64
import http.server
import sys
import threading
from urllib.parse import quote

import requests
from playwright.sync_api import expect

from browser import chromium, contrast, dialog, eventually, is_wider_than_its_window, open_page

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
# It would show that it ran by a dialog, and by what it stores for the origin.
SCRIPT = "localStorage.ran = 1; alert(1)"
ODD_NAMES = ["a b&c=d?e#f%41+.txt", "grüße 日本.txt", "<img src=x onerror=alert(1)>.txt", "\"'`.txt", "..."]
ODD_FOLDER = "<script>alert(1)"
TIMEOUT = 60


def main():
    node = "http://%s:5058" % sys.argv[1]
    checks = [
        choosing_files, dropping_files, folders_and_search, odd_names, images, downloads, stored_scripts, deleting,
        keyboard, phone_and_dark, without_scripts, other_origins,
    ]
    wanted = sys.argv[2:]
    with chromium(seconds=240) as browser:
        for check in [check for check in checks if not wanted or check.__name__ in wanted]:
            print(check.__name__, file=sys.stderr, flush=True)
            check(browser, node)
    print("ok")


def put(node, path, data=b"x"):
    response = requests.put(node + quote(path), data=data, timeout=TIMEOUT)
    assert response.status_code in (201, 204), (path, response.text)


def stored(node, path):
    response = requests.get(node + quote(path), timeout=TIMEOUT)
    return response.content if response.status_code == 200 else None


def names(node, folder):
    listing = requests.get(node + quote(folder), headers={"Accept": "application/json"}, timeout=TIMEOUT).json()
    return [entry["name"] for entry in listing["entries"]]


def file(name, data=b"x", type="application/octet-stream"):
    return {"name": name, "mimeType": type, "buffer": data}


def row(page, name):
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))


def choosing_files(browser, node):
    put(node, "/chosen/old.txt", b"old")
    with open_page(browser, node) as page:
        page.goto(node + "/chosen/")
        with page.expect_file_chooser() as chooser:
            page.locator("#picker").click()
        chooser.value.set_files([file("one.txt", b"1"), file("two.bin", bytes(1536)), file("old.txt", b"new")])
        expect(row(page, "two.bin")).to_contain_text("1.5 KiB")
        expect(row(page, "one.txt").locator("time")).to_have_count(1)
    assert [stored(node, "/chosen/" + name) for name in ("one.txt", "old.txt")] == [b"1", b"new"]


def drop(page, contents):
    """Drops files, given as pairs of name and length, on the page."""
    transfer = page.evaluate_handle(
        """(contents) => {
          const transfer = new DataTransfer();
          for (const [name, length] of contents) transfer.items.add(new File([new Uint8Array(length)], name));
          return transfer;
        }""",
        contents,
    )
    page.dispatch_event("body", "dragover", {"dataTransfer": transfer})
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})


def dropping_files(browser, node):
    put(node, "/dropped/folder/x")
    with open_page(browser, node) as page:
        page.goto(node + "/dropped/")
        slow = page.context.new_cdp_session(page)
        speed = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 2 << 20}
        slow.send("Network.emulateNetworkConditions", speed)
        drop(page, [["large.bin", 4 << 20], ["small.bin", 10], ["empty.bin", 0]])
        bar = "Math.max(...Array.from(document.querySelectorAll('#uploads progress'), (bar) => bar.value % 100))"
        eventually("a bar moves", page, lambda: page.evaluate(bar) > 0)
        expect(row(page, "large.bin")).to_contain_text("4.0 MiB")
        expect(row(page, "empty.bin")).to_contain_text("0 B")
    assert names(node, "/dropped/") == ["empty.bin", "folder", "large.bin", "small.bin"]
    with open_page(browser, node, expected_errors=["409"]) as page:
        page.goto(node + "/dropped/")
        drop(page, [["folder", 10], ["after.bin", 10]])
        expect(page.get_by_role("status")).to_contain_text("1 uploads failed")
        expect(page.locator("#uploads li").first).to_contain_text("failed: ")
        expect(page.locator("#uploads li").last).to_contain_text("stored")


def folders_and_search(browser, node):
    put(node, "/tree/a/Report 1.pdf")
    put(node, "/tree/a/other.pdf")
    with open_page(browser, node) as page:
        page.goto(node)
        page.get_by_role("link", name="tree/", exact=True).click()
        page.get_by_role("link", name="a/", exact=True).click()
        page.get_by_role("searchbox").fill("REPORT")
        page.get_by_role("searchbox").press("Enter")
        expect(page.get_by_role("link", name="Report 1.pdf", exact=True)).to_be_visible()
        expect(page.get_by_role("link", name="other.pdf", exact=True)).to_have_count(0)
        page.get_by_role("link", name="Show all").click()
        expect(page.get_by_role("link", name="other.pdf", exact=True)).to_be_visible()
        page.get_by_role("searchbox").fill("nothing like it")
        page.get_by_role("button", name="Search").click()
        expect(page.get_by_text("No name matches.")).to_be_visible()
        page.get_by_role("navigation").get_by_role("link", name="tree").click()
        expect(page).to_have_url(node + "/tree/")
        search_below(page, node)


def search_below(page, node):
    """Searches the folder that is shown and everything below it."""
    page.get_by_label("Search this folder and all folders in it").fill("report")
    page.get_by_role("button", name="Search").click()
    expect(row(page, "a/Report 1.pdf").locator("time")).to_have_count(1)
    expect(row(page, "a/Report 1.pdf")).to_contain_text("1 B")
    with dialog(page, accept=True) as texts:
        page.get_by_role("button", name="Delete a/Report 1.pdf", exact=True).click()
    assert "a/Report 1.pdf" in texts[0]
    expect(page.get_by_role("status")).to_contain_text("a/Report 1.pdf is deleted.")
    assert stored(node, "/tree/a/Report 1.pdf") is None
    put(node, "/tree/b/Report 1.pdf")
    page.reload()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download b/Report 1.pdf", exact=True).click()
    assert download.value.suggested_filename == "Report 1.pdf"


def odd_names(browser, node):
    with open_page(browser, node) as page:
        put(node, "/odd/" + ODD_FOLDER + "/x")
        page.goto(node + "/odd/")
        page.locator("#picker").set_input_files([file(name, name.encode()) for name in ODD_NAMES])
        for name in ODD_NAMES:
            link = page.get_by_role("link", name=name, exact=True)
            expect(link).to_be_visible()
            response = requests.get(node + link.get_attribute("href"), timeout=TIMEOUT)
            assert response.content == name.encode(), name
        page.get_by_role("link", name=ODD_FOLDER + "/", exact=True).click()
        expect(page.get_by_role("heading")).to_contain_text(ODD_FOLDER)
        page.goto(node + "/odd/")
        with dialog(page, accept=True) as texts:
            page.get_by_role("button", name="Delete " + ODD_NAMES[2], exact=True).click()
        assert ODD_NAMES[2] in texts[0]
        expect(page.get_by_role("status")).to_contain_text(ODD_NAMES[2] + " is deleted.")
    assert sorted(names(node, "/odd/")) == sorted([ODD_FOLDER, *ODD_NAMES[:2], *ODD_NAMES[3:]])
    # A name in the top folder that is also a call of the node.
    with open_page(browser, node) as page:
        page.goto(node)
        page.locator("#picker").set_input_files([file("upload", b"mine")])
        with page.expect_download() as download:
            page.get_by_role("link", name="upload", exact=True).click()
        with open(download.value.path(), "rb") as saved:
            assert saved.read() == b"mine"


def images(browser, node):
    put(node, "/images/dot.png", PNG)
    put(node, "/images/text.txt", "grüße".encode())
    with open_page(browser, node) as page:
        page.goto(node + "/images/")
        image = page.locator("img")
        expect(image).to_have_count(1)
        eventually("the image is loaded", page, lambda: image.evaluate("(image) => image.naturalWidth") == 1)
        with page.expect_response("**/dot.png") as response:
            page.get_by_role("link", name="dot.png", exact=True).click()
        assert response.value.headers["content-type"] == "image/png"
        expect(page.locator("img")).to_be_visible()
        page.goto(node + "/images/")
        page.get_by_role("link", name="text.txt", exact=True).click()
        expect(page.get_by_text("grüße")).to_be_visible()


def downloads(browser, node):
    data = bytes(range(256)) * 8000
    put(node, "/downloads/data ä.bin", data)
    with open_page(browser, node) as page:
        page.goto(node + "/downloads/")
        with page.expect_download() as download:
            page.get_by_role("link", name="Download data ä.bin", exact=True).click()
        assert download.value.suggested_filename == "data ä.bin"
        with open(download.value.path(), "rb") as saved:
            assert saved.read() == data


def stored_scripts(browser, node):
    """Stored pages and pictures with scripts are saved when they are followed, and run in no other way either."""
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>%s</script></svg>' % SCRIPT
    html = "<!doctype html><script>%s</script>" % SCRIPT
    evil = {"page.html": html, "page.xhtml": html, "none": html, "text.txt": html, "picture.svg": svg}
    evil["script.js"] = SCRIPT
    for name, data in evil.items():
        put(node, "/evil/" + name, data.encode())
    with open_page(browser, node, expected_errors=["script.js", "evil/none", "evil/text.txt", "page.html"]) as page:
        page.goto(node + "/evil/")
        for name in evil:
            if name == "text.txt":
                continue
            with page.expect_download() as download:
                page.get_by_role("link", name=name, exact=True).click()
            assert download.value.suggested_filename == name
        page.evaluate(
            """() => {
              for (const name of ["script.js", "text.txt", "none"]) {
                const script = document.createElement("script");
                script.src = "/evil/" + name;
                document.body.append(script);
              }
              const frame = document.createElement("iframe");
              frame.src = "/evil/page.html";
              document.body.append(frame);
            }"""
        )
        page.wait_for_load_state("networkidle")
        assert page.evaluate("localStorage.ran") is None
        page.get_by_role("link", name="text.txt", exact=True).click()
        expect(page.get_by_text("<!doctype html>")).to_be_visible()
    # Even if a browser displays one as a page, the page has neither scripts nor the node's origin.
    policy = requests.get(node + "/evil/page.html", timeout=TIMEOUT).headers["Content-Security-Policy"]
    with open_page(browser, node, expected_errors=["sandbox"]) as page:
        headers = {"Content-Type": "text/html", "Content-Security-Policy": policy}
        page.route("**/shown.html", lambda route: route.fulfill(headers=headers, body=html))
        page.goto(node + "/shown.html")
        page.goto(node + "/evil/")
        assert page.evaluate("localStorage.ran") is None


def deleting(browser, node):
    for path in ("/deleted/a.txt", "/deleted/b.txt", "/deleted/full/x"):
        put(node, path)
    with open_page(browser, node, expected_errors=["409"]) as page:
        page.goto(node + "/deleted/")
        with dialog(page, accept=False) as texts:
            page.get_by_role("button", name="Delete a.txt", exact=True).click()
        assert texts == ["Delete a.txt? This cannot be undone."]
        expect(row(page, "a.txt")).to_be_visible()
        assert stored(node, "/deleted/a.txt") == b"x"
        with dialog(page, accept=True):
            page.get_by_role("button", name="Delete a.txt", exact=True).click()
        expect(row(page, "a.txt")).to_have_count(0)
        assert stored(node, "/deleted/a.txt") is None
        with dialog(page, accept=True):
            page.get_by_role("button", name="Delete full", exact=True).click()
        expect(page.get_by_role("status")).to_contain_text("full was not deleted: ")
    assert names(node, "/deleted/") == ["b.txt", "full"]


def keyboard(browser, node):
    for name in ("a.txt", "b.txt"):
        put(node, "/keys/" + name)
    with open_page(browser, node) as page:
        page.goto(node + "/keys/")
        reached = []
        for _ in range(12):
            page.keyboard.press("Tab")
            focused = page.evaluate_handle("document.activeElement").as_element()
            label = focused.get_attribute("aria-label") or focused.get_attribute("id")
            reached.append(label or focused.inner_text().strip())
            assert focused.evaluate("(element) => getComputedStyle(element).outlineStyle") != "none", reached[-1]
            if reached[-1] == "Delete a.txt":
                break
        expected = ["All files", "search", "Search", "picker", "a.txt", "Download a.txt", "Delete a.txt"]
        assert reached == expected, reached
        with dialog(page, accept=True):
            page.keyboard.press("Enter")
        expect(row(page, "a.txt")).to_have_count(0)
        assert page.evaluate("document.activeElement.dataset.name") == "b.txt", "the focus stays near"


def phone_and_dark(browser, node):
    put(node, "/phone/" + "long-name" * 25)
    put(node, "/phone/photo.png", PNG)
    phone = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
    for scheme in ("light", "dark"):
        with open_page(browser, node, color_scheme=scheme, **phone) as page:
            page.goto(node + "/phone/")
            assert not is_wider_than_its_window(page)
            button = page.get_by_role("button", name="Delete photo.png")
            button.scroll_into_view_if_needed()
            expect(button).to_be_in_viewport(ratio=1)
            for selector in ("h1", "tbody a", "td .number, td.number", "label"):
                assert contrast(page, selector) >= 4.5, (scheme, selector, contrast(page, selector))
            with dialog(page, accept=False):
                button.click()


def without_scripts(browser, node):
    put(node, "/plain/a.txt", b"plain")
    with open_page(browser, node, java_script_enabled=False) as page:
        page.goto(node)
        expect(page.get_by_role("button", name="Delete plain")).to_have_count(0)
        page.get_by_role("link", name="Upload", exact=True).click()
        page.get_by_label("Files").set_input_files([file("by-form.txt", b"form")])
        page.get_by_role("button", name="Upload").click()
        eventually("it is stored", page, lambda: stored(node, "/by-form.txt") == b"form")


class OtherOrigin(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><link rel=icon href='data:,'><title>other</title>")

    def log_message(self, *_):
        pass


def other_origins(browser, node):
    """A page of another origin neither writes, deletes nor reads, with what a browser lets it send."""
    put(node, "/kept.txt", b"kept")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), OtherOrigin)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    other = "http://127.0.0.1:%d" % server.server_port
    with open_page(browser, node, expected_errors=["403", "CORS", "ERR_FAILED"], other_servers=[other]) as page:
        page.goto(other)
        outcomes = page.evaluate(
            """async (node) => {
              const send = (path, method, body, mode, headers) =>
                fetch(node + path, { method, body, mode, headers }).then((r) => r.type + r.status, () => "refused");
              const form = () => {
                const form = new FormData();
                form.append("key", "forged.txt");
                form.append("file", new File(["x"], "forged.txt"));
                form.append("files", new File(["x"], "forged.txt"));
                return form;
              };
              const plain = { "Content-Type": "text/plain" };
              return [
                await send("/api/upload", "POST", form(), "no-cors"),
                await send("/upload", "POST", form(), "no-cors"),
                await send("/api/list_keys", "POST", "x", "no-cors", plain),
                await send("/api/upload", "POST", form(), "cors"),
                await send("/forged.txt", "PUT", "x", "cors"),
                await send("/kept.txt", "DELETE", undefined, "cors"),
                await send("/", "GET", undefined, "cors"),
                await send("/api/key/kept.txt", "POST", undefined, "cors"),
              ];
            }""",
            node,
        )
        assert outcomes == ["opaque0"] * 3 + ["refused"] * 5, outcomes
        for path in ("/api/upload", "/upload"):
            page.goto(other)
            page.evaluate(
                """(action) => {
                  const form = document.createElement("form");
                  Object.assign(form, { method: "post", action, enctype: "multipart/form-data" });
                  for (const name of ["key", "file", "files"]) {
                    const input = document.createElement("input");
                    Object.assign(input, { name, value: "forged.txt" });
                    form.append(input);
                  }
                  document.body.append(form);
                  form.submit();
                }""",
                node + path,
            )
            page.wait_for_url(node + path)
            expect(page.locator("body")).to_contain_text("may not change anything here")
    server.shutdown()
    assert stored(node, "/forged.txt") is None and stored(node, "/kept.txt") == b"kept"


main()

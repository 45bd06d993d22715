"""operator_forms.py NODE TOKEN OTHER_NODE: logs in to the console on port 5059 of NODE and changes the ring as operators do.

The ring has two nodes. At the end it is empty, and nobody is logged in.
"""
import contextlib
import http.server
import sys
import threading

import requests
from playwright.sync_api import expect

from browser import chromium, contrast, eventually, is_wider_than_its_window, open_page

TIMEOUT = 60


def main():
    node, token, other = sys.argv[1:]
    console, files = "http://%s:5059" % node, "http://%s:5058" % node
    with chromium(seconds=150) as browser:
        people_operate(browser, console, files, token, other)
        a_page_of_another_port_changes_nothing(browser, console, node, token)
    print("ok")


def people_operate(browser, console, files, token, other):
    with open_page(browser, console, expected_errors=REFUSALS) as page:
        page.goto(console)
        expect(page.get_by_role("button")).to_have_count(0)
        log_in(page, token)
        change_the_cache(page, console)
        refuse_what_is_wrong(page, console)
        choose_a_size(page, console)
        work_on_a_node(page, other)
        delete_all_data(page, files)
        phone_and_dark(page)
        log_out(page)


# Chromium logs each answer that is no success.
REFUSALS = ["401 (Unauthorized)", "400 (Bad Request)"]


def log_in(page, token):
    page.get_by_role("link", name="Log in").click()
    page.get_by_label("The operator's token").fill("chordfs-operator-" + "5" * 40)
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("No node of this ring has this token")
    page.get_by_label("The operator's token").fill(token)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Cache of all nodes")).to_be_visible()
    assert page.evaluate("document.cookie") == "", "scripts cannot read the token"


def section(page, title):
    return page.get_by_role("region", name=title, exact=True)


def submit(page, title, button, text, role="status"):
    section(page, title).get_by_role("button", name=button, exact=True).click()
    expect(page.get_by_role(role)).to_contain_text(text)
    page.get_by_role("link", name="Back to the console").click()
    expect(page.get_by_role("heading", name="Maintenance")).to_be_visible()


def config(console):
    return requests.get(console + "/config", timeout=TIMEOUT).json()


def change_the_cache(page, console):
    cache = section(page, "Cache of all nodes")
    cache.get_by_label("cache.capacity").fill("64M")
    cache.get_by_label("cache.policy").select_option("random")
    submit(page, "Cache of all nodes", "Apply to all nodes", "All nodes follow within seconds")
    assert config(console)["cache"] == {"capacity": "64M", "policy": "random"}, config(console)
    expect(cache.get_by_label("cache.capacity")).to_have_value("64M")


def refuse_what_is_wrong(page, console):
    before = config(console)
    pool = section(page, POOL)
    pool.get_by_label("pool.expand_ratio").fill("-1")
    submit(page, POOL, "Apply to all nodes", "pool.expand_ratio", role="alert")
    assert config(console) == before


POOL = "Change the size of the pool"


def choose_a_size(page, console):
    """No process follows the wanted size here: it stays wanted."""
    size = section(page, "Size of the pool")
    expect(size).to_contain_text("No decision so far")
    submit(page, POOL, "Grow by one node", "The pool is to have 3 nodes")
    expect(size.locator("#wanted")).to_have_text("3")
    expect(size.get_by_role("row").nth(1)).to_contain_text("2 → 3")
    submit(page, POOL, "Shrink by one node", "The pool is to have 2 nodes")
    set_pool_mode(page, "automatic")
    expect(section(page, POOL).get_by_role("button", name="Grow by one node")).to_have_count(0)
    expect(size).to_contain_text("rounds up")
    set_pool_mode(page, "manual")
    submit(page, POOL, "Let the pool follow its own settings", "its own settings again")
    expect(size.locator("#wanted")).to_have_text("nobody has chosen a size")
    decisions = requests.get(console + "/pool", timeout=TIMEOUT).json()["decisions"]
    assert [one["to"] for one in decisions] == [None, 2, 3], decisions


def set_pool_mode(page, mode):
    section(page, POOL).get_by_label("pool.mode").select_option(mode)
    submit(page, POOL, "Apply to all nodes", "All nodes follow within seconds")


def work_on_a_node(page, other):
    maintenance = section(page, "Maintenance")
    maintenance.get_by_label("Node", exact=True).select_option(other + ":5057")
    maintenance.get_by_label("Scrub: checks").check()
    submit(page, "Maintenance", "Go", "checks every chunk")


def delete_all_data(page, files):
    for number in range(5):
        assert requests.put("%s/a/b/f%d" % (files, number), data=b"x", timeout=TIMEOUT).status_code == 201
    confirm = section(page, "Maintenance").locator("#delete-all-name")
    confirm.fill("another ring")
    submit(page, "Maintenance", "Delete all data", "is not the name of this ring", role="alert")
    assert len(keys(files)) == 5
    confirm.fill("chordfs")
    submit(page, "Maintenance", "Delete all data", "has begun")
    eventually("everything is gone", page, lambda: keys(files) == [])
    page.reload()
    expect(section(page, "Maintenance").get_by_role("status")).to_contain_text("has removed 7 files and folders")


def keys(files):
    return requests.post(files + "/api/list_keys", timeout=TIMEOUT).json()["keys"]


def phone_and_dark(page):
    page.set_viewport_size({"width": 360, "height": 740})
    assert not is_wider_than_its_window(page), "a phone shows the forms without scrolling sideways"
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for selector in ("#maintenance .note", "#cache-settings label", "#maintenance .danger h3"):
            assert contrast(page, selector) >= 4.5, (scheme, selector)


def a_page_of_another_port_changes_nothing(browser, console, node, token):
    """To a browser it belongs to the same site, so its requests carry the cookie."""
    before = config(console)
    with other_port(node, console) as other:
        with open_page(browser, console, other_servers=[other], expected_errors=["403 (Forbidden)"]) as page:
            page.goto(console + "/login")
            page.get_by_label("The operator's token").fill(token)
            page.keyboard.press("Enter")
            expect(page.get_by_role("heading", name="Maintenance")).to_be_visible()
            page.goto(other)
            with page.expect_response(console + "/console/settings") as answered:
                page.get_by_role("button", name="Win a prize").click()
            assert answered.value.status == 403, answered.value.text()
            assert "chordfs_operator=" in answered.value.request.all_headers().get("cookie", ""), "it was sent"
    assert config(console) == before


@contextlib.contextmanager
def other_port(node, console):
    form = '<form method="post" action="%s/console/settings"><input name="cache.policy" value="lru"><button>Win a prize'
    page = (form % console).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer((node, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield "http://%s:%d/" % (node, server.server_port)
    server.shutdown()


def log_out(page):
    section(page, "Maintenance").get_by_role("button", name="Log out").click()
    expect(page.get_by_label("The operator's token")).to_be_visible()
    page.go_back()
    page.reload()
    expect(page.get_by_role("link", name="Log in")).to_be_visible()


if __name__ == "__main__":
    main()

"""pool_buttons.py NODE TOKEN LARGEST DATA: grows the pool of NODE from one node to LARGEST, its largest size, and shrinks it
back, by the buttons of the console on port 5059, while files are written and read. With one node and with all of them every
chart is read, and with all of them the node in DATA, the pool's folder, that came last is killed and comes back.
"""
import itertools
import json
import os
import pathlib
import signal
import sys
import threading
import time

import requests
from playwright.sync_api import expect

from browser import chromium, eventually, open_page
from charts import every_chart_has_a_value

POOL = "Change the size of the pool"
TIMEOUT = 60
# For one node to come or to leave, on a machine that is busy with other tests too.
STEP_MS = 150_000


def main():
    node, token, largest, data = sys.argv[1], sys.argv[2], int(sys.argv[3]), pathlib.Path(sys.argv[4])
    console = "http://%s:5059" % node
    with chromium(seconds=2400) as browser, Load("http://%s:5058" % node), open_page(
        browser, console, expected_errors=["409 (Conflict)"]
    ) as page:
        log_in(page, console, token)
        every_chart_has_a_value(page)
        for size in range(2, largest + 1):
            press(page, console, "Grow by one node", size)
        expect(page.get_by_role("region", name="The ring", exact=True).locator(".node")).to_have_count(largest)
        every_chart_has_a_value(page)
        refuse_beyond_the_limit(page)
        a_node_dies_and_comes_back(page, console, data, largest)
        for size in range(largest - 1, 0, -1):
            press(page, console, "Shrink by one node", size)
        decisions = requests.get(console + "/pool", timeout=TIMEOUT).json()["decisions"]
        assert [one["to"] for one in reversed(decisions)] == [*range(2, largest + 1), *range(largest - 1, 0, -1)], decisions
    print("ok")


def log_in(page, console, token):
    page.goto(console + "/login")
    page.get_by_label("The operator's token").fill(token)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=POOL)).to_be_visible()


def press(page, console, button, size):
    """The page that stays open shows by itself that the pool has followed."""
    # A node that was filled may find more to fetch after it was asked, until the other nodes have seen it come back.
    while submit(page, button) == "alert":
        expect(page.get_by_role("alert")).to_contain_text("still being filled")
        back_to_the_console(page)
        wait_until_settled(console)
    expect(page.get_by_role("status")).to_contain_text("The pool is to have")
    back_to_the_console(page)
    expect(page.locator("#wanted")).to_have_text(str(size))
    expect(page.locator("#serving")).to_have_text(str(size), timeout=STEP_MS)
    wait_until_settled(console)


def submit(page, button):
    """Returns the role of the answer."""
    page.get_by_role("region", name=POOL, exact=True).get_by_role("button", name=button, exact=True).click()
    expect(page.get_by_role("link", name="Back to the console")).to_be_visible()
    return page.locator("main [role=status], main [role=alert]").first.get_attribute("role")


def back_to_the_console(page):
    page.get_by_role("link", name="Back to the console").click()


def refuse_beyond_the_limit(page):
    assert submit(page, "Grow by one node") == "alert"
    expect(page.get_by_role("alert")).to_contain_text("largest size")
    back_to_the_console(page)


def a_node_dies_and_comes_back(page, console, data, largest):
    """The pool starts it again at once, so the page may not even show that it was away."""
    pid = last_node(data)["pid"]
    os.kill(pid, signal.SIGKILL)
    eventually("the pool starts it again", page, lambda: last_node(data)["pid"] != pid)
    expect(page.locator("#node-table tr[data-state=up]")).to_have_count(largest, timeout=STEP_MS)
    expect(page.locator("#serving")).to_have_text(str(largest), timeout=STEP_MS)
    wait_until_settled(console)


def last_node(data):
    return max(json.loads((data / "pool.json").read_text())["nodes"], key=lambda node: node["number"])


def wait_until_settled(console):
    deadline = time.monotonic() + STEP_MS / 1000
    while True:
        now = requests.get(console + "/pool", timeout=TIMEOUT).json()
        if not any(now[what] for what in ("arriving", "filling", "draining", "silent")):
            return
        assert time.monotonic() < deadline, now
        time.sleep(0.2)


class Load:
    """Writes files and reads them back; a failed operation fails the test."""

    def __init__(self, files):
        self._files, self._over, self._problem, self.rounds = files, threading.Event(), None, 0
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()
        assert self._problem is None, self._problem
        assert self.rounds > 10, self.rounds

    def _run(self):
        try:
            for number in itertools.count():
                if self._over.wait(0.05):
                    return
                content = os.urandom(50_000)
                url = "%s/load-%d" % (self._files, number % 40)
                requests.put(url, data=content, timeout=TIMEOUT).raise_for_status()
                read = requests.get(url, timeout=TIMEOUT)
                read.raise_for_status()
                assert read.content == content, "%s has other contents" % url
                self.rounds += 1
        except Exception as problem:
            self._problem = problem


if __name__ == "__main__":
    main()

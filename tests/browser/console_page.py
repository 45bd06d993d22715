"""console_page.py NODE PID DYING_NODE DYING_PID: uses the console on port 5059 of NODE as people do, while nodes fail.

PID and DYING_PID are the processes of the two nodes: the first is stopped for a while, the second is killed.
"""
import os
import signal
import sys

import requests
from playwright.sync_api import expect

from browser import chromium, contrast, eventually, is_wider_than_its_window, open_page
from charts import CHARTS, chart, every_chart_has_a_value

# A page is stale after twelve seconds without news.
STALE_MS = 40_000
TIMEOUT = 60


def main():
    node, pid, dying_node, dying_pid = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    console = "http://%s:5059" % node
    store_and_read("http://%s:5058" % node)
    with chromium(seconds=280) as browser:
        every_chart_has_values(browser, console)
        charts_of_one_node(browser, console, node)
        sorting(browser, console)
        keyboard(browser, console)
        phone_and_dark(browser, console)
        without_scripts(browser, console)
        a_page_that_nobody_sees(browser, console)
        stale_while_the_node_stands_still(browser, console, pid)
        a_node_dies(browser, console, dying_node, dying_pid)
    print("ok")


def store_and_read(files):
    for number in range(4):
        form = {"files": ("file-%d" % number, os.urandom(100_000))}
        stored = requests.post(files + "/upload", files=form, timeout=TIMEOUT)
        assert stored.status_code == 204, stored.text
        for _ in range(3):
            assert requests.get("%s/file-%d" % (files, number), timeout=TIMEOUT).status_code == 200


def every_chart_has_values(browser, console):
    with open_page(browser, console) as page:
        page.goto(console)
        # The page goes on by itself: nothing loads it again.
        page.evaluate("window.isTheSamePage = true")
        every_chart_has_a_value(page)
        expect(chart(page, "nodes").locator(".value")).to_have_text("3")
        before = chart(page, "requests").locator(".minute title").last.text_content()
        eventually("the next minute appears", page,
                   lambda: chart(page, "requests").locator(".minute title").last.text_content() != before)
        assert page.evaluate("window.isTheSamePage")
        expect(page.locator("#live")).to_have_text("Live.")


def charts_of_one_node(browser, console, node):
    with open_page(browser, console) as page:
        page.goto(console)
        page.get_by_role("navigation", name="Charts of").get_by_role("link", name=node + ":5057").click()
        expect(page.get_by_role("heading", name="Nodes in the ring, as this one saw it")).to_have_count(1)
        expect(chart(page, "disk").locator(".legend")).to_contain_text("used: ")
        expect(page.locator("figure[data-chart]")).to_have_count(len(CHARTS))


def sorting(browser, console):
    with open_page(browser, console) as page:
        page.goto(console)
        page.evaluate("window.isTheSamePage = true")
        column = page.locator("#node-table tbody th")
        page.get_by_role("link", name="Node", exact=True).click()
        ascending = sorted(column.all_inner_texts())
        assert column.all_inner_texts() == ascending
        page.wait_for_url("**sort=node&dir=asc**")
        expect(page.locator("#node-table th[data-column=node]")).to_have_attribute("aria-sort", "ascending")
        eventually("the link turns", page, lambda: "dir=desc" in link(page, "Node").get_attribute("href"))
        link(page, "Node").click()
        assert column.all_inner_texts() == ascending[::-1]
        assert page.evaluate("window.isTheSamePage"), "sorting loads nothing"
        page.reload()
        assert column.all_inner_texts() == ascending[::-1], "the node sorts likewise"


def link(page, name):
    return page.locator("#node-table").get_by_role("link", name=name, exact=True)


def keyboard(browser, console):
    with open_page(browser, console) as page:
        page.goto(console)
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        link(page, "Share").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#node-table th[data-column=share]")).to_have_attribute("aria-sort", "ascending")
        eventually("the table is sent anew", page, lambda: "dir=desc" in link(page, "Share").get_attribute("href"))
        expect(page.locator("#node-table th[data-column=share] a")).to_be_focused()
        summary = chart(page, "nodes").locator("summary")
        summary.focus()
        page.keyboard.press("Enter")
        expect(chart(page, "nodes").get_by_role("row")).to_have_count(31)
        before = chart(page, "nodes").get_by_role("rowheader").first.inner_text()
        eventually("a newer chart keeps its table open", page,
                   lambda: chart(page, "nodes").get_by_role("rowheader").first.inner_text() != before)


def phone_and_dark(browser, console):
    phone = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
    for scheme in ("light", "dark"):
        with open_page(browser, console, color_scheme=scheme, **phone) as page:
            page.goto(console)
            assert not is_wider_than_its_window(page)
            for selector in ("h1", ".verdict", "dt", "nav a", "#node-table td", "caption", ".note", ".legend li"):
                assert contrast(page, selector) >= 4.5, (scheme, selector, contrast(page, selector))
            size = chart(page, "disk").locator("text").last.bounding_box()["height"]
            assert size >= 10, "%s pixels are too small to read" % size


def without_scripts(browser, console):
    with open_page(browser, console, java_script_enabled=False) as page:
        page.goto(console)
        assert page.locator("figure[data-chart] svg").count() >= len(CHARTS)
        expect(page.locator("meta[http-equiv=refresh]")).to_have_count(1)
        link(page, "Data").click()
        expect(page.locator("#node-table th[data-column=data]")).to_have_attribute("aria-sort", "ascending")


def a_page_that_nobody_sees(browser, console):
    with open_page(browser, console) as page:
        page.goto(console)
        expect(page.locator("#live")).to_have_text("Live.")
        hide(page, True)
        before = page.locator("#as-of").inner_text()
        with page.expect_request("**/console/events*"):
            hide(page, False)
        eventually("it goes on", page, lambda: page.locator("#as-of").inner_text() != before)


def hide(page, hidden):
    page.evaluate(
        """(hidden) => {
          Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


def stale_while_the_node_stands_still(browser, console, pid):
    with open_page(browser, console) as page:
        page.goto(console)
        expect(page.locator("#live")).to_have_text("Live.")
        expect(page.locator("#stale")).to_be_hidden()
        os.kill(pid, signal.SIGSTOP)
        try:
            expect(page.locator("#stale")).to_contain_text("Not live since", timeout=STALE_MS)
        finally:
            os.kill(pid, signal.SIGCONT)
        expect(page.locator("#stale")).to_be_hidden(timeout=STALE_MS)
        expect(page.locator("#live")).to_have_text("Live.")


def a_node_dies(browser, console, dying_node, pid):
    with open_page(browser, console) as page:
        page.goto(console)
        row = page.locator("#node-table tbody tr").filter(has_text=dying_node + ":5057")
        eventually("the ring is well", page, lambda: page.locator("#node-table tr[data-state=up]").count() == 3)
        os.kill(pid, signal.SIGKILL)
        expect(row).to_contain_text("unreachable", timeout=STALE_MS)
        expect(page.locator(".reasons")).to_contain_text(dying_node + ":5057", timeout=STALE_MS)
        expect(page.locator("#announcement")).to_contain_text("WARN", timeout=STALE_MS)
        before = chart(page, "requests").locator(".minute title").last.text_content()
        eventually("the others' charts go on", page,
                   lambda: chart(page, "requests").locator(".minute title").last.text_content() != before)
        expect(chart(page, "nodes").locator(".value")).to_have_text("2", timeout=STALE_MS)
        page.get_by_role("navigation", name="Charts of").get_by_role("link", name=dying_node + ":5057").click()
        expect(page.get_by_role("heading", name="Nodes in the ring, as this one saw it")).to_have_count(1)
        eventually("its past is there, and then a gap", page,
                   lambda: 0 < chart(page, "disk").locator(".minute").count() < 30)


main()

"""The charts of the console, which the tests of its page read."""
from playwright.sync_api import expect

from browser import eventually

CHARTS = [
    "nodes", "hit-rate", "items", "cache-bytes", "requests", "disk", "bytes", "repair-chunks", "repair-bytes",
    "operations", "read-latency", "write-latency", "name-latency", "log-latency",
]


def chart(page, name):
    return page.locator("figure[data-chart=%s]" % name)


def readout_of_last_minute(figure):
    figure.locator(".minute").last.hover()
    return figure.locator(".readout").text_content() or ""


def every_chart_has_a_value(page):
    """Each chart shows the value of a minute when the pointer is over it."""
    for name in CHARTS:
        figure = chart(page, name)
        expect(figure.get_by_role("img")).to_have_count(1)
        eventually(name + " has a value", page, lambda: figure.locator(".minute").count() > 0)
        # A chart that is drawn anew under the pointer forgets it.
        eventually(name + " shows its last minute", page, lambda: "UTC: " in readout_of_last_minute(figure))

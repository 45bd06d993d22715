"""A headless Chromium for the tests of the pages that nodes serve.

    with chromium(seconds=120) as browser, open_page(browser, node) as page:
        page.goto(node + "/")

A page fails its test when it logs an error, shows a dialog that the test does not expect, or sends a request to another
server than its node. Debian's Chromium is driven, so nothing but the two packages is downloaded.
"""
import contextlib
import faulthandler
import shutil
import time
from urllib.parse import urlsplit

from playwright.sync_api import expect, sync_playwright

# How long the page may take for one step, on a machine that is busy with other tests too.
STEP_SECONDS = 20


@contextlib.contextmanager
def chromium(seconds):
    """A browser for at most so many seconds: after them the script ends and shows where it stood."""
    faulthandler.dump_traceback_later(seconds, exit=True)
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    assert program, "chromium is missing: tests/check.sh installs it"
    # Expectations have a deadline of their own, which is five seconds by default.
    expect.set_options(timeout=STEP_SECONDS * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--disable-dev-shm-usage"])
        yield browser
        browser.close()
    faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def open_page(browser, node, expected_errors=(), other_servers=(), **options):
    """A page in a profile of its own. `expected_errors` are parts of log lines; each has to occur."""
    context = browser.new_context(**options)
    context.set_default_timeout(STEP_SECONDS * 1000)
    problems, errors = [], []
    servers = {urlsplit(url).netloc for url in (node, *other_servers)}
    context.on("request", lambda request: check_request(request, servers, problems))
    context.on("console", lambda message: is_failure(message) and errors.append(message.text))
    context.on("weberror", lambda error: problems.append("a script failed: %s" % error.error))
    page = context.new_page()
    yield page
    context.close()
    problems += [text for text in errors if not any(part in text for part in expected_errors)]
    problems += ["not logged: " + part for part in expected_errors if not any(part in text for text in errors)]
    assert not problems, problems


def is_failure(message):
    # Chromium looks for an icon of everything that it shows, which is no page of ours.
    return message.type in ("error", "warning") and not message.location["url"].endswith("/favicon.ico")


def check_request(request, servers, problems):
    url = urlsplit(request.url)
    if url.scheme not in ("data", "blob") and url.netloc not in servers:
        problems.append("a request to " + request.url)


@contextlib.contextmanager
def dialog(page, accept):
    """Answers the one dialog that opens within the block; yields the list with its text."""
    texts = []

    def answer(shown):
        texts.append(shown.message)
        shown.accept() if accept else shown.dismiss()

    page.once("dialog", answer)
    yield texts
    eventually("a dialog opens", page, lambda: len(texts) == 1)


def eventually(what, page, condition):
    """Waits for a condition; the browser goes on meanwhile."""
    deadline = time.monotonic() + STEP_SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, "never: " + what
        page.wait_for_timeout(20)
    return value


def contrast(page, selector):
    """The contrast of an element's text with the page, as WCAG 2 defines it; text has at least 4.5."""
    color, background = page.evaluate(
        """(selector) => {
          const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
          const rgb = (color) => {
            paint.fillStyle = color;
            paint.fillRect(0, 0, 1, 1);
            return Array.from(paint.getImageData(0, 0, 1, 1).data).slice(0, 3);
          };
          const background = rgb(getComputedStyle(document.body).backgroundColor);
          return [rgb(getComputedStyle(document.querySelector(selector)).color), background];
        }""",
        selector,
    )
    lighter, darker = sorted([luminance(color), luminance(background)], reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(color):
    parts = [part / 255 for part in color]
    red, green, blue = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def is_wider_than_its_window(page):
    return page.evaluate("document.documentElement.scrollWidth > window.innerWidth")

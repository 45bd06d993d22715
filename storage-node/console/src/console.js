// Keeps the page up to date by server-sent events, sorts the table of nodes without loading the page again, and shows
// the values of a minute below its chart. Everything else on the page works without this script.
"use strict";
(() => {
  // The node sends something at least every few seconds.
  const STALE_AFTER_MS = 12000;
  const RETRY_MS = 3000;
  const stale = document.getElementById("stale");
  const live = document.getElementById("live");
  const asOf = document.getElementById("as-of");
  const announcement = document.getElementById("announcement");
  let source = null;
  let lastEvent = Date.now();
  let announced = document.querySelector(".verdict")?.textContent;

  function clock(ms) {
    return new Date(ms).toISOString().slice(11, 19);
  }

  // A beat carries the node's time of what it has sent.
  function beat(event) {
    lastEvent = Date.now();
    stale.hidden = true;
    asOf.textContent = clock(1000 * event.data);
    live.textContent = "Live.";
  }

  function look() {
    if (document.hidden || Date.now() - lastEvent < STALE_AFTER_MS) return;
    if (stale.hidden) {
      stale.textContent =
        "Not live since " + clock(lastEvent) + " UTC: the node does not answer. What you see may be out of date.";
      stale.hidden = false;
    }
    live.textContent = "";
  }

  function connect() {
    if (source) source.close();
    source = new EventSource("/console/events" + location.search);
    source.addEventListener("beat", beat);
    for (const part of document.querySelectorAll("[data-live]")) {
      source.addEventListener(part.dataset.live, (event) => replace(part, event.data));
    }
    // After a lost connection the browser tries again by itself, but not after a refusal.
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED && !document.hidden) setTimeout(connect, RETRY_MS);
    };
  }

  // Keeps what the reader has opened, and where the focus is.
  function replace(part, html) {
    const open = [...part.querySelectorAll("details[open]")].map((details) => details.dataset.keep);
    const active = part.contains(document.activeElement) ? pathTo(part, document.activeElement) : null;
    const scrolled = [...part.querySelectorAll(".scroll")].map((box) => box.scrollLeft);
    part.innerHTML = html;
    for (const details of part.querySelectorAll("details")) details.open = open.includes(details.dataset.keep);
    part.querySelectorAll(".scroll").forEach((box, at) => (box.scrollLeft = scrolled[at] || 0));
    if (active) find(part, active)?.focus({ preventScroll: true });
    if (part.dataset.live === "health") announce(part);
  }

  // A change of the verdict is read aloud; the numbers beside it change all the time.
  function announce(part) {
    const verdict = part.querySelector(".verdict")?.textContent ?? "";
    if (announced && verdict !== announced) announcement.textContent = verdict;
    announced = verdict;
  }

  // An element of the same kind that leads to the same place, or the one in the same position.
  function pathTo(part, element) {
    const alike = [...part.querySelectorAll(element.tagName)];
    return { tag: element.tagName, href: element.getAttribute("href"), at: alike.indexOf(element) };
  }

  function find(part, { tag, href, at }) {
    const alike = [...part.querySelectorAll(tag)];
    return (href && alike.find((element) => element.getAttribute("href") === href)) || alike[at];
  }

  // The address of the page and the events follow, so that newer tables come in this order, too.
  async function sort(link) {
    history.replaceState(null, "", link.getAttribute("href"));
    const head = link.closest("th");
    const column = [...head.parentNode.children].indexOf(head);
    const descending = head.getAttribute("aria-sort") === "ascending";
    const sign = descending ? -1 : 1;
    const body = head.closest("table").tBodies[0];
    const key = (row) => row.children[column].dataset.key;
    const rows = [...body.rows].sort((one, other) => {
      const [a, b] = [key(one), key(other)];
      if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
      return sign * (head.classList.contains("number") ? a - b : a < b ? -1 : a > b ? 1 : 0);
    });
    body.append(...rows);
    for (const other of head.parentNode.children) {
      other.removeAttribute("aria-sort");
      other.querySelector("span").textContent = "";
    }
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    head.querySelector("span").textContent = descending ? " ▼" : " ▲";
    connect();
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest("#node-table thead a");
    if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
      event.preventDefault();
      sort(link);
    }
  });

  document.addEventListener("pointerover", (event) => {
    const figure = event.target.closest("figure[data-chart]");
    if (!figure) return;
    const minute = event.target.closest(".minute");
    figure.querySelector(".readout").textContent = minute ? minute.textContent : "";
  });

  // A browser has six connections to a node at most, for all of its tabs together: those that nobody sees give theirs up.
  document.addEventListener("visibilitychange", () => {
    lastEvent = Date.now();
    if (document.hidden) source.close();
    else connect();
  });

  connect();
  setInterval(look, 1000);
})();

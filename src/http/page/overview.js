// The head of the page: verdict, the way of a message, and the books.

import { byId, el, put, set, svg } from "./dom.js";
import { DASH, clock, count, duration, latencyParts, rate } from "./format.js";

const STATES = ["healthy", "starting", "idle", "degraded", "broken"];
const WORDS = { healthy: "Healthy", starting: "Starting", idle: "Idle", degraded: "Degraded", broken: "Broken" };

// ---- Verdict ---------------------------------------------------------------------------------------------------------

/** The verdict line; a server that is gone speaks louder than what it said last. */
export function showVerdict(model) {
  const { document: now, link } = model;
  const lost = link === "lost" || (link === "connecting" && model.reason);
  const state = lost ? "lost" : STATES.includes(now?.verdict.state) ? now.verdict.state : "starting";
  set(document.body, { "data-state": state, "data-link": link });
  set(byId("verdict-mark"), { href: `#i-${state}` });

  const [text, more] = lost
    ? lostWords(model)
    : now
      ? verdictWords(now)
      : ["Connecting to finstream …", "The figures come within a second."];
  put(byId("verdict-text"), text);
  put(byId("verdict-more"), more);
  announce(lost ? "lost" : `${state} ${now?.verdict.fault ?? ""}`, `${text}. ${more}`, Boolean(now) || lost);
  const title = lost
    ? "No answer · finstream"
    : now
      ? `${WORDS[state] ?? state} · ${rate(now.rates?.stored)} · finstream`
      : "finstream";
  if (document.title !== title) document.title = title;
  icon(state);
}

function lostWords({ heard, document: now, reason }) {
  const since = heard === null ? null : (Date.now() - heard) / 1000;
  if (since === null) {
    return [`No answer from finstream: ${reason}`, "Is the process running? This page tries again by itself."];
  }
  return [
    `No answer from finstream: last heard ${Math.round(since)} s ago`,
    `What stands below is from ${clock(Date.parse(now.now))}, and may be wrong now. Is the process running? This page tries again by itself.`,
  ];
}

function verdictWords({ verdict, waiting_for: waits, now, roles }) {
  const waiting = Object.entries(waits ?? {}).map(([role, what]) => `${role} waits for ${what}`);
  const more =
    verdict.cure ??
    (waiting.length
      ? `The ${waiting.join("; the ")}.`
      : `As of ${clock(Date.parse(now))}. Roles in this process: ${roles?.join(", ") || "none yet"}.`);
  return [verdict.text, more];
}

let announced = null;

/** A screen reader hears a change of state, and not the figures of each second. */
function announce(state, text, worthIt) {
  if (!worthIt || announced === state) return;
  announced = state;
  put(byId("announcement"), text);
}

const COLOURS = {
  healthy: "#1a7f4b",
  starting: "#2f6fd6",
  idle: "#66717f",
  degraded: "#c77700",
  broken: "#c62f2f",
  lost: "#66717f",
};
const GLYPHS = {
  healthy: "M8 16.5l5 5L24 10",
  degraded: "M16 7v11M16 22.5v2",
  broken: "M10 10l12 12M22 10L10 22",
  idle: "M12 10v12M20 10v12",
  starting: "M16 8v8l6 4",
  lost: "M16 8v10M16 22.5v2",
};
let shownIcon = null;

/** The tab tells, too: by colour and by sign. */
function icon(state) {
  if (shownIcon === state) return;
  shownIcon = state;
  const drawing = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="8" fill="${COLOURS[state]}"/><path d="${GLYPHS[state]}" fill="none" stroke="#fff" stroke-width="3.5" stroke-linecap="round" stroke-linejoin="round"/></svg>`;
  byId("icon").href = `data:image/svg+xml,${encodeURIComponent(drawing)}`;
}

// ---- Header ----------------------------------------------------------------------------------------------------------

export function showHeader(model, paused) {
  const { document: now, link } = model;
  const silent = model.heard === null ? null : Math.round((Date.now() - model.heard) / 1000);
  const words = {
    connecting: "connecting",
    live: "live, each second",
    lost: silent === null ? "no answer" : `last heard ${silent} s ago`,
  };
  put(byId("link-text"), paused ? "paused" : words[link]);
  if (!now) return;
  put(byId("version"), now.version);
  put(byId("process"), `${now.roles?.join(" · ") || "no role yet"} · up ${duration(Math.floor(now.uptime_seconds))}`);
  if (now.links?.docs) set(byId("link-docs"), { href: now.links.docs });
  if (now.links?.metrics) set(byId("link-metrics"), { href: now.links.metrics });
}

// ---- The way of a message --------------------------------------------------------------------------------------------

const PLACES = {
  source: { name: "Source", task: "makes transactions", queue: "due, not sent", icon: "M5 12h9M10 7l5 5-5 5M19 5v14" },
  producer: {
    name: "Producer",
    task: "publishes them",
    queue: "unacknowledged",
    icon: "M4 19V9l5 3V9l5 3V5h6v14zM8 16h.5M12 16h.5M16 16h.5",
  },
  broker: {
    name: "Broker",
    task: "keeps the log",
    queue: "not yet read",
    icon: "M4 6h16v4H4zM4 14h16v4H4zM7 8h.5M7 16h.5",
  },
  consumer: { name: "Consumer", task: "adds up batches", queue: "being applied", icon: "M5 5h14M5 5l5 7-5 7h14" },
  postgres: {
    name: "PostgreSQL",
    task: "holds the totals",
    queue: "uncommitted",
    icon: "M5 6c0-3 14-3 14 0v12c0 3-14 3-14 0zM5 6c0 3 14 3 14 0M5 12c0 3 14 3 14 0",
  },
};

export function makePipeline() {
  for (const item of document.querySelectorAll("#pipeline li")) {
    const place = PLACES[item.dataset.place];
    const part = (name, tag = "span") => el(tag, { "data-part": name });
    item.append(
      el(
        "div",
        { class: "place" },
        svg("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("path", { d: place.icon })),
        el("h3", {}, place.name),
        el("span", { class: "badge", "data-part": "badge", hidden: true }, "slowest"),
      ),
      el("p", { class: "rate" }, part("rate", "strong"), el("span", {}, " tx/s")),
      el(
        "dl",
        {},
        el("div", {}, el("dt", {}, "p50"), part("p50", "dd")),
        el("div", {}, el("dt", {}, "p99"), part("p99", "dd")),
        el("div", {}, el("dt", {}, place.queue), part("queue", "dd")),
      ),
      el("p", { class: "note", "data-part": "note" }, place.task),
    );
  }
}

export function showPipeline({ pipeline }) {
  for (const item of document.querySelectorAll("#pipeline li")) {
    const place = pipeline?.find((one) => one.place === item.dataset.place);
    const part = (name) => item.querySelector(`[data-part=${name}]`);
    const here = place?.here ?? false;
    set(item, {
      "data-here": here,
      "data-slowest": place?.slowest ?? false,
      "data-flows": here && place.rate_per_second > 0,
      "data-noted": Boolean(place?.note),
    });
    part("badge").hidden = !place?.slowest;
    const known = typeof place?.rate_per_second === "number";
    set(part("rate"), { "data-unknown": !known });
    put(part("rate"), rate(place?.rate_per_second).replace("/s", ""));
    quantity(part("p50"), latencyParts(place?.p50_us));
    quantity(part("p99"), latencyParts(place?.p99_us));
    quantity(part("queue"), [count(place?.queue_messages), ""]);
    const elsewhere = here || !place ? PLACES[item.dataset.place].task : "not in this process";
    put(part("note"), place?.note ?? elsewhere);
  }
}

/** A figure and its smaller unit. */
function quantity(element, [figure, unit]) {
  if (element.children.length === 0) element.append(el("span", {}), el("small", {}));
  put(element.children[0], figure);
  put(element.children[1], unit ? ` ${unit}` : "");
}

// ---- The books -------------------------------------------------------------------------------------------------------

export function showBooks({ books, counters, roles }) {
  // What another process does is not known here: its counter here is zero, and would read as a loss.
  const of = (role, value) => (value === 0 && !roles?.includes(role) ? null : value);
  const produced = of("producer", books.produced);
  const acknowledged = of("producer", books.acknowledged);
  const stored = of("consumer", books.stored);
  put(byId("books-produced"), count(produced));
  put(byId("books-acknowledged"), count(acknowledged));
  put(byId("books-stored"), count(stored));
  set(byId("books-acknowledged"), { "data-sign": sign(produced, acknowledged) });
  set(byId("books-stored"), { "data-sign": sign(acknowledged, stored) });
  put(byId("books-way"), count(produced === null || stored === null ? null : books.on_the_way));
  put(byId("books-dead"), count(of("consumer", books.dead_letters)));
  put(byId("books-unknown"), count(of("producer", counters?.unknown)));
  put(byId("books-text"), books.text ?? DASH);
  const accounted = produced > 0 && stored !== null && produced === stored + books.dead_letters + books.on_the_way;
  set(byId("books"), { "data-balanced": accounted && !counters?.unknown, "data-dead": books.dead_letters > 0 });
}

function sign(left, right) {
  if (left === null || right === null || left === undefined || right === undefined) return "·";
  if (left === right) return "=";
  return left > right ? ">" : "<";
}

// Shows /api/v1/status, refreshed each second. Reads only; everything is written with textContent.

const REFRESH_MS = 1000;
const number = new Intl.NumberFormat("en");
const milliseconds = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });

const byId = (id) => document.getElementById(id);

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function counter(name, value) {
  const box = document.createElement("div");
  box.append(element("dt", name), element("dd", value));
  return box;
}

const known = (value, format) => (value === null ? "–" : format(value));
const inMilliseconds = (us) => known(us, (value) => milliseconds.format(value / 1000));

function show(status, ratePerSecond) {
  const waiting = Object.entries(status.waiting_for).map(([role, what]) => `${role} waits for ${what}`);
  const state = status.ready ? "ready" : waiting.join("; ") || "starting";
  byId("state").textContent = `${state} · version ${status.version} · up ${Math.round(status.uptime_seconds)} s`;

  byId("counters").replaceChildren(
    ...Object.entries(status.counters).map(([name, value]) => counter(name.replaceAll("_", " "), number.format(value))),
    counter("stored per second", known(ratePerSecond, (value) => number.format(Math.round(value)))),
    counter("lag, messages", known(status.lag.messages, (value) => number.format(value))),
    counter("lag, seconds", known(status.lag.seconds, (value) => milliseconds.format(value))),
  );

  byId("stages").replaceChildren(
    ...status.stages.map((stage) => {
      const row = document.createElement("tr");
      const heading = element("th", stage.name);
      heading.scope = "row";
      const times = [stage.p50_us, stage.p90_us, stage.p99_us, stage.p999_us, stage.max_us].map(inMilliseconds);
      const cells = [number.format(stage.messages), ...times, number.format(stage.negative), number.format(stage.missing)];
      row.append(heading, ...cells.map((text) => element("td", text)));
      return row;
    }),
  );
}

let previous = null;

async function refresh() {
  try {
    const response = await fetch("/api/v1/status", { cache: "no-store" });
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    const status = await response.json();
    const seconds = previous ? status.uptime_seconds - previous.uptime_seconds : 0;
    const rate = seconds > 0 ? (status.counters.stored - previous.counters.stored) / seconds : null;
    show(status, rate);
    previous = status;
  } catch (error) {
    byId("state").textContent = `no answer (${error.message}); trying again`;
    previous = null;
  }
  setTimeout(refresh, REFRESH_MS);
}

refresh();

// What the server said last, and the 15 minutes before it. Talks to the server, knows nothing of the page.
//
// It begins with one whole document and goes on with events, one a second. After a break it begins again.

const SNAPSHOT = "/api/v1/snapshot";
const EVENTS = "/api/v1/events";
const COLUMNS_MAX = 900;
/** Events come once a second: after so long without one the server counts as gone. */
const SILENCE_MS = 4000;
const RETRY_MS = 1500;
const SOON_MS = 200;
/** The first document has 15 minutes in it, and the machine may be busy. */
const SNAPSHOT_MS = 10_000;

const SERIES = ["scheduled_per_second", "stored_per_second", "p50_us", "p99_us", "p999_us", "lag_seconds"];

/** `document` is the last one; `link` is connecting, live or lost; `heard` is when it came, by this browser's clock. */
export const model = { document: null, link: "connecting", heard: null, reason: null, history: emptyHistory() };

let listener = () => {};
let source = null;
let retry = 0;
/** Each beginning has a number, so that what an earlier one still brings is dropped. */
let beginning = 0;

/** Begins to listen; `changed()` is called after each change and at least once a second. */
export function start(changed) {
  listener = changed;
  begin();
  setInterval(watch, 1000);
}

function emptyHistory() {
  return { newest: null, times: [], bounds: [], heat: [], ...Object.fromEntries(SERIES.map((name) => [name, []])) };
}

async function begin() {
  const mine = ++beginning;
  clearTimeout(retry);
  source?.close();
  try {
    const response = await fetch(SNAPSHOT, { cache: "no-store", signal: AbortSignal.timeout(SNAPSHOT_MS) });
    if (response.status === 503 && model.document === null && mine === beginning) {
      // Its first second is not over yet.
      retry = setTimeout(begin, SOON_MS);
      return;
    }
    if (!response.ok) throw new Error(`it answers ${response.status}`);
    const first = await response.json();
    if (mine !== beginning) return;
    model.history = emptyHistory();
    hear(first);
    listen(mine);
  } catch (error) {
    const why = { TypeError: "it cannot be reached", TimeoutError: "it does not answer in time" };
    if (mine === beginning) lose(why[error.name] ?? error.message);
  }
}

function listen(mine) {
  source = new EventSource(EVENTS);
  source.addEventListener("snapshot", (event) => mine === beginning && hear(JSON.parse(event.data)));
  source.addEventListener("error", () => mine === beginning && lose("the connection broke"));
}

/** Begins again by itself: EventSource would go on, but what was missed meanwhile is in a whole document only. */
function lose(reason) {
  source?.close();
  source = null;
  beginning += 1;
  clearTimeout(retry);
  retry = setTimeout(begin, RETRY_MS);
  if (model.link !== "connecting" || reason) model.link = "lost";
  model.reason = reason;
  listener();
}

function watch() {
  if (model.link === "live" && Date.now() - model.heard > SILENCE_MS) lose("it went silent");
  else if (model.link !== "live") listener();
}

function hear(next) {
  const known = model.document;
  if (known && known.version !== next.version) {
    // Another binary has another page.
    location.reload();
    return;
  }
  model.document = next;
  model.heard = Date.now();
  model.link = "live";
  model.reason = null;
  if (next.history) append(model.history, next.history);
  listener();
}

/** Appends the columns that are newer than what is there, and forgets what is older than 15 minutes. */
function append(history, columns) {
  const length = columns.stored_per_second?.length ?? 0;
  const step = (columns.step_seconds ?? 1) * 1000;
  const began = Date.parse(columns.began_at);
  if (columns.heat?.bounds_us?.length) history.bounds = columns.heat.bounds_us;
  for (let at = 0; at < length; at += 1) {
    const time = began + at * step;
    // The server's seconds are not exactly as long as ours: what counts is how many lie between.
    const ahead = history.newest === null ? 1 : Math.round((time - history.newest) / step);
    if (ahead < 1) continue;
    // Seconds that are missing stay visible as a gap.
    for (let gap = Math.min(ahead - 1, COLUMNS_MAX); gap > 0; gap -= 1) push(history, time - gap * step, null, 0);
    push(history, time, columns, at);
    history.newest = time;
  }
  const over = history.times.length - COLUMNS_MAX;
  if (over > 0) for (const name of ["times", "heat", ...SERIES]) history[name].splice(0, over);
}

function push(history, time, columns, at) {
  history.times.push(time);
  history.heat.push(columns?.heat?.columns?.[at] ?? null);
  for (const name of SERIES) history[name].push(columns?.[name]?.[at] ?? null);
}

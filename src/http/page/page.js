// The page of one finstream process. It looks, and can change nothing. model.js hears, the others show.

import { byId, set, put, tooltips } from "./page/dom.js";
import { History } from "./page/history.js";
import { model, start } from "./page/model.js";
import { makePipeline, showBooks, showHeader, showPipeline, showVerdict } from "./page/overview.js";
import { showWaterfall } from "./page/stages.js";
import { makeTotals, makeTransactions, showPartitions, showTotals, showTransactions } from "./page/tables.js";

/** While the page is paused: what it showed then. */
let held = null;
let waterfallOf = "recent";
let history = null;
let drawing = 0;

function show() {
  drawing = 0;
  showHeader(model, held !== null);
  const shown = held ?? model;
  showVerdict(shown);
  const now = shown.document;
  if (!now) return;
  showPipeline(now);
  showBooks(now);
  history.show(shown.history);
  showWaterfall(now, waterfallOf);
  showPartitions(now);
  showTotals(now);
  showTransactions(now);
}

/** Several changes before the next frame are shown once. A hidden tab has no frames: its title and icon still tell. */
function changed() {
  if (document.hidden) showVerdict(held ?? model);
  else drawing ||= requestAnimationFrame(show);
}

function pause() {
  const columns = Object.entries(model.history).map(([name, value]) => [
    name,
    Array.isArray(value) ? [...value] : value,
  ]);
  held = held ? null : { ...model, history: Object.fromEntries(columns) };
  const button = byId("pause");
  set(button, { "aria-pressed": String(held !== null) });
  put(button, held ? "Go on" : "Pause");
  set(document.body, { "data-paused": held !== null });
  changed();
}

makePipeline();
makeTransactions();
makeTotals();
tooltips();
history = new History(changed);
byId("pause").addEventListener("click", pause);
document.addEventListener("visibilitychange", changed);
for (const input of document.querySelectorAll("input[name=span]")) {
  input.addEventListener("change", () => {
    waterfallOf = input.value;
    changed();
  });
}
start(changed);

// Where the time goes: the waterfall of all messages, and the way of one transaction.

import { byId, cells, el, put, row, rows, set, svg } from "./dom.js";
import { DASH, clockWithMillis, count, latency, micros } from "./format.js";

/** The chain; `sent_to_acknowledged` is a side branch that begins where `sent_to_received` does. */
const CHAIN = ["scheduled_to_sent", "sent_to_received", "received_to_processed", "processed_to_committed"];
const WHOLE = "scheduled_to_committed";
const BRANCH = "sent_to_acknowledged";

// ---- The waterfall ---------------------------------------------------------------------------------------------------

const makeStage = () => {
  const tr = row(
    "",
    "bar",
    "figure",
    "figure wide wider",
    "figure",
    "figure wide",
    "figure wide",
    "figure wide",
    "figure wide wider",
  );
  tr.children[1].append(bar());
  return tr;
};

/** A bar in hundredths of its cell, with a thin line that reaches further. */
function bar() {
  return svg(
    "svg",
    { class: "span", role: "img", width: "100%", height: 22 },
    svg("rect", { class: "track", x: "0", y: "10.5", width: "100%", height: "1" }),
    svg("rect", { class: "reach", y: "10", height: "2", rx: "1" }),
    svg("rect", { class: "end", y: "6", height: "10", width: "2" }),
    svg("rect", { class: "body", y: "5", height: "12", rx: "2.5" }),
  );
}

function setBar(drawing, { from, to, reach, kind, label }) {
  const [, line, end, body] = drawing.children;
  const percent = (value) => `${Math.max(0, Math.min(100, value)).toFixed(2)}%`;
  set(drawing, { "aria-label": label, "data-kind": kind });
  const shown = from !== null && to !== null;
  // A stage of microseconds among milliseconds is still seen.
  set(body, { x: shown ? percent(from) : null, width: shown ? percent(Math.min(100, Math.max(from + 0.5, to)) - from) : "0" });
  const reaches = shown && reach !== null && reach > to;
  set(line, { x: reaches ? percent(to) : null, width: reaches ? percent(Math.min(100, reach) - to) : "0" });
  set(end, { x: reaches && reach <= 100 ? percent(reach) : null, width: reaches && reach <= 100 ? "2" : "0" });
}

const showStages = rows(byId("stages-rows"), makeStage, (tr, { stage, bar: span }) => {
  set(tr, {
    "data-stage": stage.stage,
    class: stage.stage === WHOLE ? "whole" : stage.stage === BRANCH ? "branch" : null,
  });
  const untrue = stage.missing + stage.negative;
  cells(tr, [
    stage.name.replace("->", "→"),
    undefined,
    latency(stage.p50_us),
    latency(stage.p90_us),
    latency(stage.p99_us),
    latency(stage.p999_us),
    latency(stage.max_us),
    count(stage.messages),
    untrue ? `${count(stage.missing)}, ${count(stage.negative)}` : "0",
  ]);
  setBar(tr.children[1].firstChild, span);
});

let top = null;

/** Medians one after the other, so far as the chain is known; the scale ends where most of the whole way's p99 fits. */
export function showWaterfall({ stages, recent_stages: recent }, which) {
  const all = (which === "recent" ? recent : stages) ?? [];
  const of = (name) => all.find(({ stage }) => stage === name);
  const ends = [0];
  for (const name of CHAIN) ends.push(ends.at(-1) + (of(name)?.p50_us ?? 0));
  const whole = of(WHOLE);
  const chainMost = Math.max(ends.at(-1), whole?.p50_us ?? 0);
  const branchMost = ends[1] + (of(BRANCH)?.p50_us ?? 0);
  const wanted = Math.max(chainMost * 1.25, branchMost * 1.1, Math.min(whole?.p99_us ?? 0, chainMost * 4)) || null;
  if (wanted !== null && (top === null || wanted > top || wanted < top / 2.2)) top = rounded(wanted);
  const part = (us) => (us === null || us === undefined || top === null ? null : (us / top) * 100);
  showStages(
    all.map((stage) => {
      const at = CHAIN.indexOf(stage.stage);
      const from = stage.stage === WHOLE ? 0 : stage.stage === BRANCH ? ends[1] : (ends[at] ?? 0);
      const label = `from ${latency(from)}, half take ${latency(stage.p50_us)}, 99 % at most ${latency(stage.p99_us)}`;
      const known = stage.p50_us !== null && stage.p50_us !== undefined;
      return {
        stage,
        bar: {
          from: part(from),
          to: known ? part(from + stage.p50_us) : null,
          reach: known ? part(from + stage.p99_us) : null,
          kind: stage.stage === WHOLE ? "whole" : stage.stage === BRANCH ? "branch" : `step-${at + 1}`,
          label: known ? label : "nothing measured",
        },
      };
    }),
  );
  put(byId("stages-zero"), top === null ? "" : "0");
  put(byId("stages-scale"), top === null ? "" : latency(top));
}

function rounded(value) {
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].find((step) => step * unit >= value) * unit;
}

// ---- One transaction -------------------------------------------------------------------------------------------------

const MOMENTS = [
  { key: "scheduled_at", name: "scheduled", after: null, kind: "step-1" },
  { key: "sent_at", name: "sent", after: "scheduled_at", kind: "step-1" },
  { key: "acknowledged_at", name: "acknowledged", after: "sent_at", kind: "branch" },
  { key: "received_at", name: "received", after: "sent_at", kind: "step-2" },
  { key: "processed_at", name: "processed", after: "received_at", kind: "step-3" },
  { key: "committed_at", name: "committed", after: "processed_at", kind: "step-4" },
];

/** Microseconds from scheduled to committed; null while one of the two is not known. */
export function took(transaction) {
  const [from, to] = [micros(transaction.scheduled_at), micros(transaction.committed_at)];
  return from === null || to === null ? null : to - from;
}

const makeMoment = () => {
  const tr = row("", "bar", "figure", "figure");
  tr.children[1].append(bar());
  return tr;
};

const showMoments = rows(byId("way-rows"), makeMoment, (tr, { moment, transaction, begin, whole }) => {
  const at = micros(transaction[moment.key]);
  const before = moment.after ? micros(transaction[moment.after]) : at;
  const part = (us) => (us === null || begin === null || !whole ? null : ((us - begin) / whole) * 100);
  const step = at === null || before === null ? null : at - before;
  set(tr, { class: moment.kind === "branch" ? "branch" : null });
  cells(tr, [
    moment.name,
    undefined,
    moment.after ? since(begin, at) : clockWithMillis(transaction[moment.key]),
    moment.after ? latency(step) : "",
  ]);
  // The first moment is a point, and the others are the steps that lead to them.
  const label =
    at === null
      ? "not known"
      : moment.after
        ? `${latency(step)} after ${moment.after.replace("_at", "")}`
        : "the beginning";
  setBar(tr.children[1].firstChild, { from: part(before), to: part(at), reach: null, kind: moment.kind, label });
});

const since = (begin, at) =>
  begin === null || at === null ? DASH : at < begin ? `−${latency(begin - at)}` : `+${latency(at - begin)}`;

export function showWay(transaction) {
  byId("way").hidden = !transaction;
  if (!transaction) return;
  const times = MOMENTS.map(({ key }) => micros(transaction[key])).filter((time) => time !== null);
  const begin = times.length ? Math.min(...times) : null;
  const whole = times.length ? Math.max(...times) - begin : null;
  const name = byId("way-name");
  if (name.childElementCount === 0) name.replaceChildren(el("code"), el("span"));
  put(name.children[0], transaction.transaction_id ?? DASH);
  put(name.children[1], ` message ${count(transaction.sequence)} of its run`);
  showMoments(MOMENTS.map((moment) => ({ moment, transaction, begin, whole })));
}

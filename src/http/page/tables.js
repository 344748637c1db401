// The tables: partitions, the biggest totals with their SQL, the last transactions.

import { byId, cells, copyButton, el, explain, put, row, rows, set, svg } from "./dom.js";
import { clock, clockWithMillis, count, decimal, latency, seconds } from "./format.js";
import { showWay, took } from "./stages.js";

// ---- Partitions ------------------------------------------------------------------------------------------------------

const makePartition = () => {
  const tr = row("", "figure wide", "figure", "figure", "bar wide", "figure", "figure", "wide");
  tr.children[4].append(
    svg(
      "svg",
      { class: "span", width: "100%", height: 14, "aria-hidden": "true" },
      svg("rect", { class: "track", x: "0", y: "6.5", width: "100%", height: "1" }),
      svg("rect", { class: "body", x: "0", y: "3", height: "8", rx: "2" }),
    ),
  );
  return tr;
};

const showPartitionRows = rows(byId("partitions-rows"), makePartition, (tr, { partition, most }) => {
  cells(tr, [
    partition.partition,
    count(partition.log_start),
    count(partition.log_end),
    count(partition.committed),
    undefined,
    count(partition.lag_messages),
    seconds(partition.lag_seconds),
    partition.owned ? "this process" : "elsewhere, or nobody",
  ]);
  const part = most > 0 ? ((partition.lag_messages ?? 0) / most) * 100 : 0;
  set(tr.children[4].firstChild.children[1], { width: `${part.toFixed(1)}%` });
});

export function showPartitions({ partitions, roles, lag }) {
  const all = partitions ?? [];
  const table = document.querySelector("#partitions table");
  const here = roles?.includes("consumer");
  explain(
    byId("partitions-empty"),
    table,
    all.length
      ? null
      : here
        ? "No partition is assigned yet: the consumer waits for the broker or its group."
        : "The consumer is not in this process: the page of the process that runs it shows its partitions.",
  );
  // The longest bar is a fixed number of messages at least, so that a lag of 3 does not look like a crisis.
  const most = Math.max(1000, ...all.map(({ lag_messages: messages }) => messages ?? 0));
  showPartitionRows(all.map((partition) => ({ partition, most })));
  put(byId("partitions-sum"), all.length ? `${count(lag?.messages)} messages behind, ${seconds(lag?.seconds)} s` : "");
}

// ---- The biggest totals ----------------------------------------------------------------------------------------------

const USERS = {
  name: "Top users",
  id: "users",
  source: "top_users",
  none: "No user has a transaction yet.",
  columns: [
    ["user", "", (one) => one.user_id],
    ["transactions", "figure", (one) => count(one.transactions)],
    ["spend", "figure", (one) => decimal(one.spend)],
    ["", "unit", (one) => one.currency],
  ],
};
const SYMBOLS = {
  name: "Top symbols",
  id: "symbols",
  source: "top_symbols",
  none: "No trade yet: symbols come with market data, for example --source yfinance:FILE.",
  columns: [
    ["symbol", "", (one) => one.symbol],
    ["trades", "figure", (one) => count(one.trades)],
    ["quantity", "figure wide", (one) => decimal(one.quantity)],
    ["notional", "figure", (one) => decimal(one.notional)],
    ["last price", "figure wide", (one) => decimal(one.last_price)],
    ["", "unit", (one) => one.currency],
  ],
};

/** A table of totals with the question that gives it. */
class Totals {
  constructor({ name, id, source, none, columns }) {
    Object.assign(this, { source, none, id, answer: null });
    const headings = columns.map(([text, kind]) =>
      el("th", { scope: "col", class: kind }, text || el("span", { class: "hidden" }, "currency")),
    );
    const body = el("tbody");
    this.table = el(
      "table",
      {},
      el("caption", { class: "hidden" }, `${name} of all that is stored`),
      el("thead", {}, el("tr", {}, ...headings)),
      body,
    );
    this.note = el("p", { class: "empty" }, "Nothing heard yet.");
    this.table.hidden = true;
    this.when = el("p", { class: "note" });
    [this.sql, this.command, this.psql] = [el("code"), el("code"), el("code")];
    const asPsql = el(
      "div",
      { class: "command" },
      el("pre", {}, this.psql),
      copyButton("Copy psql", () => this.psql.textContent),
    );
    this.asked = el(
      "div",
      { class: "asked", hidden: true },
      el(
        "div",
        { class: "command" },
        el(
          "div",
          { class: "wrap", tabindex: "0", role: "region", "aria-label": `Command for ${name.toLowerCase()}` },
          this.command,
        ),
        copyButton("Copy command", () => this.command.textContent),
      ),
      el(
        "details",
        {},
        el("summary", {}, "SQL and psql"),
        el(
          "div",
          { class: "command" },
          el("pre", {}, this.sql),
          copyButton("Copy SQL", () => this.sql.textContent),
        ),
        asPsql,
      ),
    );
    this.asPsql = asPsql;
    byId(id).append(
      el("div", { class: "title" }, el("h2", { id: `${id}-title` }, name), this.when),
      this.table,
      this.note,
      this.asked,
    );
    this.show = rows(
      body,
      () => row(...columns.map(([, kind]) => kind)),
      (tr, one) =>
        cells(
          tr,
          columns.map(([, , text]) => text(one)),
        ),
    );
  }

  update(document) {
    const answer = document[this.source];
    const failed = answer?.error ?? null;
    // Rows of before stay while there is an error, whether the server keeps them or not.
    if (answer?.sql && !(failed && this.answer && !answer.rows?.length)) this.answer = answer;
    const known = this.answer;
    const asked = Boolean(known?.as_of);
    const empty = !known?.rows?.length;
    const why = failed ? sentence(failed) : asked ? this.none : "Asking PostgreSQL …";
    explain(this.note, this.table, empty ? why : null);
    this.show(known?.rows ?? []);
    const since = asked ? `as of ${clock(Date.parse(known.as_of))}` : "";
    put(this.when, failed && !empty ? `${sentence(failed)}; ${since}` : since);
    set(byId(this.id), { "data-old": Boolean(failed && !empty) });
    this.asked.hidden = !known;
    if (!known) return;
    put(this.sql, known.sql);
    put(this.command, known.command);
    put(this.psql, known.psql ?? "");
    this.asPsql.hidden = !known.psql;
  }
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

let totals = [];

export function makeTotals() {
  totals = [USERS, SYMBOLS].map((kind) => new Totals(kind));
}

export function showTotals(document) {
  for (const one of totals) one.update(document);
}

// ---- The last transactions -------------------------------------------------------------------------------------------

/** While one is chosen the list stands still, or it would be gone in a second. */
let shown = [];
let chosen = null;
let latest = null;

const idOf = (one) => `${one.partition}:${one.offset}`;

const makeTransaction = () => {
  const tr = row("pick", "figure wide", "", "wide", "figure", "figure", "figure wide");
  const input = el("input", { type: "radio", name: "transaction" });
  input.addEventListener("change", () => choose(input.value));
  tr.children[0].append(input);
  tr.addEventListener("click", (event) => event.target !== input && input.click());
  return tr;
};

const showTransactionRows = rows(byId("transactions-rows"), makeTransaction, (tr, one) => {
  const input = tr.children[0].firstChild;
  set(input, {
    value: idOf(one),
    "aria-label": `Show the way of the transaction of ${one.user_id ?? "an unknown user"} at offset ${one.offset}`,
  });
  input.checked = idOf(one) === idOf(chosen ?? shown[0]);
  set(tr, { "data-chosen": input.checked });
  cells(tr, [
    undefined,
    clockWithMillis(one.scheduled_at),
    one.user_id,
    one.kind,
    `${decimal(one.amount)} ${one.currency ?? ""}`,
    latency(took(one)),
    `${one.partition} : ${count(one.offset)}`,
  ]);
});

function choose(id) {
  chosen = shown.find((one) => idOf(one) === id) ?? null;
  showTransactions(latest);
}

export function makeTransactions() {
  byId("follow").addEventListener("click", () => {
    chosen = chosen ? null : (shown[0] ?? null);
    if (latest) showTransactions(latest);
  });
}

export function showTransactions(document) {
  latest = document;
  const all = document.transactions ?? [];
  if (!chosen) shown = all;
  // What is chosen learns what came to be known of it since.
  chosen &&= all.find((one) => idOf(one) === idOf(chosen)) ?? chosen;
  const table = byId("transactions-rows").parentElement;
  explain(
    byId("transactions-empty"),
    table,
    shown.length
      ? null
      : document.roles?.includes("consumer")
        ? "No transaction has been stored yet. The last 20 appear here as soon as one is."
        : "The consumer is not in this process: the page of the process that runs it shows what it stores.",
  );
  showTransactionRows(shown);
  const follow = byId("follow");
  put(follow, chosen ? "Follow the newest" : "Following the newest");
  set(follow, { "aria-pressed": String(!chosen) });
  follow.hidden = shown.length === 0;
  showWay(chosen ?? shown[0] ?? null);
}

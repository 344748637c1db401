// The last 15 minutes: four charts that share their time, a moment to look at, and the same as a table.

import { LineChart, ago, spanFor } from "./chart.js";
import { byId, cells, put, row, rows, set } from "./dom.js";
import { clock, count, duration, latency, rate, seconds, short } from "./format.js";
import { HeatMap } from "./heat.js";

const axisLatency = (us) => latency(us).replace(/\.0+ /, " ");

/** A lag of milliseconds is told in milliseconds. */
const age = (value) => (value !== null && value < 1 ? latency(value * 1e6) : duration(value));

export class History {
  constructor(changed) {
    this.charts = [
      new LineChart(byId("chart-rates"), {
        title: "Transactions per second",
        series: [
          { key: "stored_per_second", name: "stored", mark: "one", area: true },
          { key: "scheduled_per_second", name: "scheduled", mark: "two" },
        ],
        format: rate,
        tick: (value) => short(value),
        least: 4,
      }),
      new LineChart(byId("chart-latency"), {
        title: "End-to-end latency",
        series: [
          { key: "p50_us", name: "p50", mark: "one" },
          { key: "p99_us", name: "p99", mark: "two" },
          { key: "p999_us", name: "p99.9", mark: "three" },
        ],
        format: latency,
        tick: axisLatency,
        log: true,
        least: 1000,
      }),
      new HeatMap(byId("chart-heat")),
      new LineChart(byId("chart-lag"), {
        title: "Behind the log",
        series: [{ key: "lag_seconds", name: "age of the oldest record not yet stored", mark: "one", area: true }],
        format: age,
        tick: (value) => `${short(value)} s`,
        least: 0.8,
      }),
    ];
    this.moment = 0;
    this.span = 60;
    this.changed = changed;
    this.showMinutes = rows(byId("minutes-rows"), () => row("", "", "", "", "", "", ""), showMinute);
    this.listen();
  }

  /** A moment is chosen by the slider (keyboard, touch) or by pointing at a chart. */
  listen() {
    const slider = byId("moment");
    slider.addEventListener("input", () => this.look(-slider.valueAsNumber));
    byId("moment-now").addEventListener("click", () => this.look(0));
    byId("minutes").addEventListener("toggle", () => this.changed());
    for (const chart of this.charts) {
      const drawing = chart.axes.drawing;
      drawing.addEventListener("pointermove", (event) => {
        const at = chart.axes.secondsAt(event, this.span);
        if (at !== null) this.look(at);
      });
      drawing.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && this.look(0));
    }
    let width = 0;
    new ResizeObserver(([entry]) => {
      if (Math.abs(entry.contentRect.width - width) < 1) return;
      width = entry.contentRect.width;
      this.changed();
    }).observe(byId("history"));
  }

  look(secondsAgo) {
    this.moment = Math.max(0, Math.min(this.span, secondsAgo));
    byId("moment").value = String(-this.moment);
    this.changed();
  }

  show(history) {
    this.span = spanFor(history.times.length);
    set(byId("moment"), { min: -this.span });
    this.moment = Math.min(this.moment, this.span);
    for (const chart of this.charts) chart.show(history, this.span, this.moment);
    put(byId("history-span"), this.span === 60 ? "minute" : `${this.span / 60} minutes`);
    this.showMoment(history);
    if (byId("minutes").open) this.showMinutes(minutesOf(history));
  }

  showMoment(history) {
    const time = history.times[history.times.length - 1 - this.moment];
    const at = time === undefined ? "no figures of then" : clock(time);
    const text = this.moment === 0 ? `now, ${at}` : `${at}, ${duration(this.moment).replace(".0", "")} ago`;
    put(byId("moment-text"), text);
    set(byId("moment"), { "aria-valuetext": this.moment === 0 ? "now" : text });
    byId("moment-now").disabled = this.moment === 0;
  }
}

/** Whole minutes back from now, newest first. */
function minutesOf(history) {
  const minutes = [];
  for (let end = history.times.length; end > 0; end -= 60) {
    const part = (key) => history[key].slice(Math.max(0, end - 60), end).filter((value) => value !== null);
    minutes.push({ ends: history.times[end - 1], back: history.times.length - end, part });
  }
  return minutes;
}

const mean = (values) => (values.length ? values.reduce((a, b) => a + b, 0) / values.length : null);
const median = (values) => (values.length ? values.sort((a, b) => a - b)[Math.floor(values.length / 2)] : null);
const most = (values) => (values.length ? Math.max(...values) : null);

function showMinute(tr, { ends, back, part }) {
  cells(tr, [
    back === 0 ? `until now, ${clock(ends)}` : `${clock(ends)} (${ago(back)})`,
    count(mean(part("scheduled_per_second"))),
    count(mean(part("stored_per_second"))),
    latency(median(part("p50_us"))),
    latency(median(part("p99_us"))),
    latency(median(part("p999_us"))),
    seconds(most(part("lag_seconds"))),
  ]);
}

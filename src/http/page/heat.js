// The latency heat map: a column a second, a row a bucket of the histogram, darker where more messages are.

import { Axes, ago, frame } from "./chart.js";
import { el, put, set } from "./dom.js";
import { count, latency } from "./format.js";

/** Colours from few to many, equal steps to the eye, readable for the colour-blind: they differ in lightness first. */
const RAMPS = {
  light: ["#e4ecf7", "#a9c9ea", "#5f9ed6", "#2c6cb5", "#1f3f86", "#170f4a"],
  dark: ["#1c2540", "#2b3f8c", "#4a5fd0", "#a05bc8", "#f0876a", "#fde68a"],
};
const SHADES = 64;
/** Rows shown at least: 12 are a factor of 64 in latency. */
const ROWS_MIN = 12;

export class HeatMap {
  constructor(figure) {
    this.title = "How the latencies are spread";
    const { drawing, values } = frame(figure, {
      title: this.title,
      legend: [{ key: "most", name: "most messages in", mark: "" }],
    });
    this.value = values.get("most");
    this.axes = new Axes(drawing, this.title);
    this.canvas = el("canvas", { "aria-hidden": "true" });
    drawing.append(this.canvas);
    const key = el(
      "p",
      { class: "ramp" },
      el("span", {}, "fewer"),
      el("canvas", { width: SHADES, height: 1, "aria-hidden": "true" }),
      el("span", {}, "more messages a second"),
    );
    figure.append(key);
    this.key = key.children[1];
    this.low = null;
    this.high = null;
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.dark.addEventListener("change", () => this.colours());
    this.colours();
  }

  colours() {
    this.shades = ramp(RAMPS[this.dark.matches ? "dark" : "light"]);
    const image = new ImageData(SHADES, 1);
    this.shades.forEach((shade, at) => image.data.set([...shade, 255], at * 4));
    this.key.getContext("2d").putImageData(image, 0, 0);
    if (this.last) this.show(...this.last);
  }

  show(history, span, moment) {
    this.last = [history, span, moment];
    this.axes.measure();
    const columns = history.heat.slice(-span - 1);
    this.rows(columns);
    this.draw(columns, span);
    const bounds = history.bounds;
    this.axes.ticks(span, this.marks(bounds));
    this.axes.mark(moment, span);
    const at = history.heat.length - 1 - moment;
    put(this.value, mostOf(history.heat[at], bounds));
    const total = sum(columns);
    this.axes.nothing.hidden = total !== null;
    const words = total
      ? `most messages took ${mostOf(total, bounds)}; all lie ${extent(total, bounds)}`
      : "no message yet";
    set(this.axes.root, { "aria-label": `${this.title}, last ${ago(span).slice(1)}: ${words}.` });
  }

  /** Which rows are shown: all with messages. They grow at once, and shrink when four rows at an end are empty. */
  rows(columns) {
    let low = Infinity;
    let high = -1;
    for (const column of columns) {
      column?.forEach((messages, row) => {
        if (messages > 0) {
          low = Math.min(low, row);
          high = Math.max(high, row);
        }
      });
    }
    if (high < 0) [low, high] = this.low === null ? [8, 20] : [this.low, this.high];
    const missing = Math.max(0, ROWS_MIN - (high - low + 1));
    const most = Math.max(ROWS_MIN, columns.find(Boolean)?.length ?? 40) - 1;
    low = Math.max(0, low - Math.ceil(missing / 2));
    high = Math.min(most, Math.max(high, low + ROWS_MIN - 1));
    if (this.low === null || low < this.low || low > this.low + 4) this.low = low;
    if (this.high === null || high > this.high || high < this.high - 4) this.high = high;
  }

  /** A pixel a second and row; the browser scales it up without smoothing. */
  draw(columns, span) {
    const height = this.high - this.low + 1;
    const { left, top, width, height: pixels } = this.axes.inner;
    set(this.canvas, { width: span, height });
    for (const [name, value] of Object.entries({ left, top, width, height: pixels }))
      this.canvas.style[name] = `${value}px`;
    const image = new ImageData(span, height);
    const most = columns.reduce((max, column) => Math.max(max, ...(column ?? [0])), 1);
    const first = span - columns.length;
    columns.forEach((column, at) => {
      if (!column || first + at < 0) return;
      for (let row = this.low; row <= this.high; row += 1) {
        if (!column[row]) continue;
        const part = most > 1 ? Math.log1p(column[row]) / Math.log1p(most) : 1;
        const shade = this.shades[Math.min(SHADES - 1, Math.floor(part * SHADES))];
        image.data.set([...shade, 255], ((this.high - row) * span + first + at) * 4);
      }
    });
    this.canvas.getContext("2d").putImageData(image, 0, 0);
  }

  marks(bounds) {
    const rows = this.high - this.low + 1;
    const { top, height } = this.axes.inner;
    const every = Math.max(2, Math.ceil(rows / 5 / 2) * 2);
    const marks = [];
    for (let row = this.low; row < this.high; row += 1) {
      // The bound is the row's upper edge.
      if ((row - this.low + 1) % every === 0 && bounds[row] !== undefined) {
        marks.push([top + height * (1 - (row - this.low + 1) / rows), latency(bounds[row])]);
      }
    }
    return marks;
  }
}

const sum = (columns) =>
  columns.reduce((total, column) => {
    column?.forEach((messages, row) => {
      (total ??= [])[row] = (total[row] ?? 0) + messages;
    });
    return total;
  }, null);

function between(row, bounds) {
  if (row >= bounds.length) return `more than ${latency(bounds.at(-1))}`;
  return row === 0 ? `up to ${latency(bounds[0])}` : `${latency(bounds[row - 1])} to ${latency(bounds[row])}`;
}

function mostOf(column, bounds) {
  if (!column || !bounds.length) return "–";
  const most = Math.max(...column);
  return most > 0 ? `${between(column.indexOf(most), bounds)} (${count(most)})` : "–";
}

function extent(total, bounds) {
  const low = total.findIndex((messages) => messages > 0);
  const high = total.findLastIndex((messages) => messages > 0);
  if (low < 0) return "nowhere yet";
  return `between ${low === 0 ? "0" : latency(bounds[low - 1])} and ${high >= bounds.length ? "more" : latency(bounds[high])}`;
}

/** Colours between those given. */
function ramp(stops) {
  const rgb = stops.map((stop) => [1, 3, 5].map((at) => parseInt(stop.slice(at, at + 2), 16)));
  return Array.from({ length: SHADES }, (_, shade) => {
    const place = (shade / (SHADES - 1)) * (rgb.length - 1);
    const at = Math.min(rgb.length - 2, Math.floor(place));
    return rgb[at].map((from, channel) => Math.round(from + (rgb[at + 1][channel] - from) * (place - at)));
  });
}

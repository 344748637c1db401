// A chart of lines over time in SVG, of the width that it has. Scales grow at once and shrink late, so nothing jumps.

import { el, put, set, svg } from "./dom.js";

const HEIGHT = 168;
const LEFT = 52;
const RIGHT = 10;
const TOP = 8;
const BOTTOM = 20;

/** What all charts of the page share: how many seconds they reach back, by the age of the oldest figure. */
export const spanFor = (seconds) => [60, 120, 300, 900].find((span) => seconds <= span) ?? 900;

/** -900 of 900 seconds -> "−15 min" */
export const ago = (seconds) => (seconds === 0 ? "now" : seconds % 60 === 0 ? `−${seconds / 60} min` : `−${seconds} s`);

/** The frame of a figure: title, legend with live figures, and a drawing of one height. */
export function frame(figure, { title, legend }) {
  const values = new Map();
  const list = el("ul", { class: "legend" });
  for (const { key, name, mark } of legend) {
    const value = el("span", { class: "value" }, "–");
    values.set(key, value);
    list.append(el("li", { class: mark }, keyMark(mark), el("span", {}, name), value));
  }
  const drawing = el("div", { class: "plot" });
  figure.append(el("figcaption", {}, el("h3", { id: `${figure.id}-title` }, title), list), drawing);
  return { drawing, values };
}

/** Colour is never alone: lines differ in dashes, too. */
function keyMark(mark) {
  if (!mark) return "";
  return svg(
    "svg",
    { viewBox: "0 0 18 6", width: 18, height: 6, "aria-hidden": "true" },
    svg("path", { d: "M0 3h18", class: `line ${mark}` }),
  );
}

/** Axes and gridlines around an area of figures; `ticks` are [value, label], `y(value)` is in pixels. */
export class Axes {
  constructor(drawing, label) {
    this.drawing = drawing;
    this.grid = svg("g", { class: "grid" });
    this.content = svg("g");
    this.cursor = svg("path", { class: "cursor" });
    this.root = svg("svg", { role: "img", height: HEIGHT, "aria-label": label }, this.grid, this.content, this.cursor);
    this.nothing = el("p", { class: "nothing", hidden: true }, "No figures yet: they come with the first messages.");
    drawing.append(this.root, this.nothing);
    this.width = 0;
    this.drawn = "";
  }

  /** The size of today; true when it changed. */
  measure() {
    const width = Math.max(200, this.drawing.clientWidth);
    const changed = width !== this.width;
    this.width = width;
    if (changed) set(this.root, { width, viewBox: `0 0 ${width} ${HEIGHT}` });
    return changed;
  }

  get inner() {
    return { left: LEFT, top: TOP, width: this.width - LEFT - RIGHT, height: HEIGHT - TOP - BOTTOM };
  }

  x(secondsAgo, span) {
    const { left, width } = this.inner;
    return left + width * (1 - secondsAgo / span);
  }

  /** Draws gridlines and labels when they differ from what is there. */
  ticks(span, ticks) {
    const drawn = JSON.stringify([this.width, span, ticks]);
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    const { left, top, width, height } = this.inner;
    const lines = ticks.flatMap(([y, label]) => [
      svg("path", { d: `M${left} ${y.toFixed(1)}h${width}` }),
      svg("text", { x: left - 6, y: (y + 3.5).toFixed(1), "text-anchor": "end" }, label),
    ]);
    const parts = span === 900 ? 3 : width < 300 ? 2 : 4;
    for (let part = 0; part <= parts; part += 1) {
      const seconds = (span / parts) * part;
      const x = this.x(seconds, span);
      const anchor = part === 0 ? "end" : part === parts ? "start" : "middle";
      lines.push(svg("path", { d: `M${x.toFixed(1)} ${top + height}v4` }));
      lines.push(svg("text", { x: x.toFixed(1), y: HEIGHT - 3, "text-anchor": anchor }, ago(seconds)));
    }
    this.grid.replaceChildren(...lines);
  }

  /** A vertical line at a moment, or none. */
  mark(secondsAgo, span) {
    const { top, height } = this.inner;
    const there = secondsAgo > 0 && secondsAgo <= span;
    set(this.cursor, { d: there ? `M${this.x(secondsAgo, span).toFixed(1)} ${top}v${height}` : null });
  }

  /** Seconds ago below a pointer, or null outside of the figures. */
  secondsAt(event, span) {
    const { left, width } = this.inner;
    const part = (event.clientX - this.root.getBoundingClientRect().left - left) / width;
    return part < 0 || part > 1.02 ? null : Math.round((1 - Math.min(1, part)) * span);
  }
}

/** Lines over time. `series`: key, name, mark (class), area; `log`: a logarithmic scale from microseconds. */
export class LineChart {
  constructor(figure, { title, series, format, tick, log = false, least = 1 }) {
    Object.assign(this, { series, format, tick, log, least, title, top: null, bottom: null });
    const { drawing, values } = frame(figure, { title, legend: series });
    this.values = values;
    this.axes = new Axes(drawing, title);
    this.paths = series.map(({ mark, area }) => {
      const fill = area ? svg("path", { class: `area ${mark}` }) : null;
      const line = svg("path", { class: `line ${mark}` });
      this.axes.content.append(...(fill ? [fill, line] : [line]));
      return { fill, line };
    });
  }

  /** Shows the last `span` seconds, with the figures of `moment` seconds ago. */
  show(history, span, moment) {
    this.axes.measure();
    const from = Math.max(0, history.times.length - span - 1);
    const columns = this.series.map(({ key }) => history[key].slice(from));
    const known = columns.flat().filter((value) => value !== null && value >= 0);
    this.scale(known);
    this.axes.nothing.hidden = known.length > 0;
    this.axes.ticks(span, this.marks());
    columns.forEach((column, at) => this.draw(this.paths[at], column, span));
    this.axes.mark(moment, span);
    const at = history.times.length - 1 - moment;
    for (const { key } of this.series) put(this.values.get(key), this.format(history[key][at] ?? null));
    set(this.axes.root, { "aria-label": this.describe(columns, span) });
  }

  /** Rounded ends of the scale: they grow at once and shrink when less than a third is used. */
  scale(values) {
    const high = Math.max(this.least, ...values);
    const wanted = this.log ? decade(high * 1.05, Math.ceil) : nice(high * 1.06);
    if (this.top === null || wanted > this.top || high < this.top / 3) this.top = wanted;
    if (!this.log) return;
    const low = values.length ? Math.max(16, Math.min(...values)) : this.least / 10;
    const wantedLow = Math.min(decade(low, Math.floor), this.top / 10);
    if (this.bottom === null || wantedLow < this.bottom || low > this.bottom * 10 || this.bottom >= this.top)
      this.bottom = wantedLow;
  }

  y(value) {
    const { top, height } = this.axes.inner;
    const part = this.log
      ? Math.log(Math.max(value, this.bottom) / this.bottom) / Math.log(this.top / this.bottom)
      : value / this.top;
    return top + height * (1 - Math.min(1, part));
  }

  marks() {
    if (!this.log) return [0, 0.25, 0.5, 0.75, 1].map((part) => [this.y(part * this.top), this.tick(part * this.top)]);
    const all = steps(this.bottom, this.top);
    const decades = all.filter((value) => Number.isInteger(Math.round(Math.log10(value) * 1e6) / 1e6));
    return (all.length > 6 && decades.length > 1 ? decades : all).map((value) => [this.y(value), this.tick(value)]);
  }

  draw({ fill, line }, column, span) {
    const { top, height } = this.axes.inner;
    let d = "";
    let area = "";
    let open = null;
    column.forEach((value, at) => {
      const x = this.axes.x(column.length - 1 - at, span).toFixed(1);
      if (value === null) {
        if (open !== null) area += `L${open} ${top + height}Z`;
        open = null;
        return;
      }
      const y = this.y(value).toFixed(1);
      // A second between two gaps is a dot, which a line of no length with round ends shows.
      d += open === null ? `M${x} ${y}h.01` : `L${x} ${y}`;
      area += open === null ? `M${x} ${top + height}L${x} ${y}` : `L${x} ${y}`;
      open = x;
    });
    if (open !== null) area += `L${open} ${top + height}Z`;
    set(line, { d: d || null });
    if (fill) set(fill, { d: area || null });
  }

  describe(columns, span) {
    const parts = this.series.map(({ name }, at) => {
      const known = columns[at].filter((value) => value !== null);
      if (known.length === 0) return `${name}: nothing yet`;
      const least = known.reduce((a, b) => Math.min(a, b));
      const most = known.reduce((a, b) => Math.max(a, b));
      return `${name} now ${this.format(columns[at].at(-1))}, between ${this.format(least)} and ${this.format(most)}`;
    });
    return `${this.title}, last ${ago(span).slice(1)}: ${parts.join("; ")}.`;
  }
}

/** The next of 1, 2, 4, 5, 8 × 10^n at or above, so that quarters of it are round, too. */
function nice(value) {
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 6, 8, 10].find((step) => step * unit >= value) * unit;
}

/** The next of 1, 2, 5 × 10^n above or below. */
function decade(value, round) {
  const unit = 10 ** Math.floor(Math.log10(value));
  const all = [1, 2, 5, 10].map((step) => step * unit);
  return round === Math.ceil ? all.find((one) => one >= value) : all.findLast((one) => one <= value);
}

/** All of 1, 2, 5 × 10^n between, ends included. */
function steps(low, high) {
  const all = [];
  for (let unit = 10 ** Math.floor(Math.log10(low)); unit <= high; unit *= 10) {
    for (const step of [1, 2, 5]) if (step * unit >= low * 0.999 && step * unit <= high * 1.001) all.push(step * unit);
  }
  return all;
}

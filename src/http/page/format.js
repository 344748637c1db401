// Numbers, times and money as people read them. What is not known (null) is a dash, never a zero.

export const DASH = "–";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const fixed = [0, 1, 2].map(
  (digits) => new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }),
);
const clockTime = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

const isKnown = (value) => typeof value === "number" && Number.isFinite(value);

/** 11445 -> "11,445" */
export const count = (value) => (isKnown(value) ? whole.format(value) : DASH);

/** Per second: whole from 10 on, one decimal below, so that "0.4/s" does not read as nothing. */
export function rate(value) {
  if (!isKnown(value)) return DASH;
  return `${value !== 0 && value < 9.95 ? fixed[1].format(value) : whole.format(value)}/s`;
}

/** Microseconds -> [figure, unit] with two or three digits: "85 µs", "5.9 ms", "12 ms", "1.24 s", "2.1 min". */
export function latencyParts(us) {
  if (!isKnown(us)) return [DASH, ""];
  if (us < 999.5) return [whole.format(us), "µs"];
  if (us < 9_950) return [fixed[1].format(us / 1e3), "ms"];
  if (us < 999_500) return [whole.format(us / 1e3), "ms"];
  if (us < 9_995_000) return [fixed[2].format(us / 1e6), "s"];
  if (us < 99_950_000) return [fixed[1].format(us / 1e6), "s"];
  return [fixed[1].format(us / 6e7), "min"];
}

/** Microseconds -> "5.9 ms" */
export function latency(us) {
  const [figure, unit] = latencyParts(us);
  return unit ? `${figure} ${unit}` : figure;
}

/** Seconds -> "0.2", for columns that name their unit. */
export const seconds = (value) => (isKnown(value) ? fixed[1].format(value) : DASH);

/** Seconds -> "0.2 s", "12 s", "3 min 20 s", "2 h 5 min", "3 d 4 h" */
export function duration(value) {
  if (!isKnown(value)) return DASH;
  if (value < 10) return `${fixed[1].format(value)} s`;
  const total = Math.round(value);
  if (total < 60) return `${total} s`;
  if (total < 3600) return `${Math.floor(total / 60)} min ${total % 60} s`;
  if (total < 86_400) return `${Math.floor(total / 3600)} h ${Math.floor((total % 3600) / 60)} min`;
  return `${Math.floor(total / 86_400)} d ${Math.floor((total % 86_400) / 3600)} h`;
}

/** Milliseconds since 1970 -> "12:00:03" of this browser's time zone. */
export const clock = (ms) => (isKnown(ms) ? clockTime.format(ms) : DASH);

/** RFC 3339 -> "12:00:03.417" */
export function clockWithMillis(text) {
  const ms = Date.parse(text ?? "");
  return Number.isNaN(ms) ? DASH : `${clockTime.format(ms)}.${String(ms % 1000).padStart(3, "0")}`;
}

/** RFC 3339 -> microseconds since 1970, exactly: Date keeps milliseconds only. */
export function micros(text) {
  const ms = Date.parse(text ?? "");
  if (Number.isNaN(ms)) return null;
  const fraction = /\.(\d+)/.exec(text)?.[1] ?? "";
  return Math.floor(ms / 1000) * 1e6 + Number(fraction.padEnd(6, "0").slice(0, 6));
}

/** "54665.66" -> "54,665.66": a decimal stays text, no float ever touches it. */
export function decimal(text) {
  if (text === null || text === undefined) return DASH;
  const [, sign, integer, rest] = /^(-?)(\d+)(.*)$/.exec(String(text)) ?? [null, "", null, ""];
  if (integer === null) return String(text);
  return `${sign ? "−" : ""}${integer.replace(/\B(?=(\d{3})+$)/g, ",")}${rest}`;
}

/** 1_234_567 -> "1.2M": for axes. */
export function short(value) {
  if (value >= 1e6) return `${trim(value / 1e6)}M`;
  if (value >= 1e4) return `${trim(value / 1e3)}k`;
  return value >= 1000 ? whole.format(value) : trim(value);
}

const trim = (value) => String(Number(value.toPrecision(2 + (value >= 100))));

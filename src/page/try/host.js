// Draws what the example `host-metrics` publishes on `host/metrics`.

import { Chart } from "../base/chart.js";
import { byId, element } from "../base/dom.js";
import { bytes, bytesPerSecond, clock, percent } from "../base/format.js";
import { isRaw, number } from "../base/json.js";

export const HOST_CHANNEL = "host/metrics";
/** How far back the charts go, in seconds. */
const COVERED = 900;
/** Who publishes every minute still has a line. */
const GAP = 150;
const MAX_FIGURES = 60;

/** A member of a parsed message as a number; `undefined` if it is none. */
function figure(body, ...path) {
  const value = path.reduce((inner, name) => inner?.[name], body);
  const found = number(value);
  return value === undefined || value === null || !Number.isFinite(found) ? undefined : found;
}

/** How fast a counter of the host rises, per second of its own clock. */
function rise(now, before, ...path) {
  const seconds = figure(now, "uptime_secs") - figure(before, "uptime_secs");
  const more = figure(now, ...path) - figure(before, ...path);
  return seconds > 0 && more >= 0 ? more / seconds : undefined;
}

function busy(now, before) {
  const used = figure(now, "cpu", "busy_ticks") - figure(before, "cpu", "busy_ticks");
  const idle = figure(now, "cpu", "idle_ticks") - figure(before, "cpu", "idle_ticks");
  return used + idle > 0 ? (100 * used) / (used + idle) : undefined;
}

const since = (name) => (now) => `${bytes(figure(now, "network", name) ?? 0)} since start`;

// What is drawn: a name, the least full scale, the value, how it is written, and what stands below it.
const TILES = [
  ["CPU", 100, busy, percent, (now) => `load ${["1m", "5m", "15m"].map((span) => figure(now, "load", span)?.toFixed(2) ?? "?").join(" · ")}`],
  ["Memory", 100, (now) => figure(now, "memory", "used_percent"), percent, (now) => {
    const [total, free] = [figure(now, "memory", "total_kib"), figure(now, "memory", "available_kib")];
    return total === undefined || free === undefined ? "" : `${bytes((total - free) * 1024)} of ${bytes(total * 1024)}`;
  }],
  ["Network in", 1000, (now, before) => rise(now, before, "network", "received_bytes"), bytesPerSecond, since("received_bytes")],
  ["Network out", 1000, (now, before) => rise(now, before, "network", "sent_bytes"), bytesPerSecond, since("sent_bytes")],
];
let tiles;
let last;
let shown;

function makeTiles() {
  return TILES.map(([title, least, value, write, below]) => {
    const chart = new Chart({ title, seconds: COVERED, write, least, gap: GAP });
    const note = element("p", "note");
    byId("host-tiles").append(element("div", "tile", chart.figure, note));
    return (now, before, at) => {
      const current = value(now, before);
      // A number stays until there is another one: two messages may have come within one tick of the host's clock.
      if (current !== undefined) chart.push(at, current);
      chart.draw(at);
      note.textContent = below(now);
    };
  });
}

/** Shows a message's body. The same message may come over several transports: it counts once. */
export function showHost(body) {
  if (typeof body !== "object" || body === null) return;
  const text = JSON.stringify(body);
  if (text === shown) return;
  shown = text;
  tiles ??= makeTiles();
  byId("host").hidden = false;
  byId("host-name").textContent = typeof body.host === "string" ? body.host : "";
  byId("host-time").textContent = `at ${clock(new Date())}`;
  // Differences are taken between two messages of one machine only.
  const before = last?.host === body.host ? last : undefined;
  const at = performance.now() / 1000;
  tiles.forEach((update) => update(body, before, at));
  last = body;
  showFigures(body);
}

function showFigures(body) {
  const figures = [];
  const collect = (value, path) => {
    if (value !== null && typeof value === "object" && !isRaw(value)) {
      Object.entries(value).forEach(([key, inner]) => collect(inner, path ? `${path} ${key}` : key));
    } else if (figures.length < MAX_FIGURES) {
      figures.push(element("div", "", element("dt", "", path.replaceAll("_", " ")), element("dd", "", written(value))));
    }
  };
  collect(body, "");
  byId("host-figures").replaceChildren(...figures);
}

function written(value) {
  const found = number(value);
  if (typeof value === "string" || typeof value === "boolean" || !Number.isFinite(found)) return String(value);
  return found.toLocaleString(undefined, { maximumFractionDigits: 2 });
}

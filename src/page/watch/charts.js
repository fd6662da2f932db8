// What the broker is doing, as small charts of the last quarter of an hour, and as numbers.

import { Chart } from "../base/chart.js";
import { byId, element, keep } from "../base/dom.js";
import { amount, bytes, bytesPerSecond, count, percent } from "../base/format.js";

const COVERED = 900;
const PROTOCOLS = [["SSE", "sse_streams"], ["MQTT", "mqtt_connections"], ["Bayeux", "bayeux_sessions"]];

const waiting = ({ lanes }) => lanes.map((lane) => lane.waiting_deliveries);
const scaled = (value, by) => (value === undefined ? undefined : value * by);
const sum = (numbers) => numbers.reduce((all, one) => all + one, 0);

// What is drawn: a title, how numbers are written, the least full scale, the lines, and their values.
const CHARTS = [
  ["Messages in, per second", amount, 10, [""], (_, rate) => [rate("published_messages")]],
  ["Deliveries out, per second", amount, 10, [""], (_, rate) => [rate("delivered_messages")]],
  ["Payload in", bytesPerSecond, 1000, [""], (_, rate) => [rate("published_bytes")]],
  ["Connections", count, 10, PROTOCOLS.map(([name]) => name), ({ counts }) => PROTOCOLS.map(([, key]) => counts[key])],
  ["Deliveries that wait in lanes", count, 10, ["all", "fullest"], (now) => [sum(waiting(now)), Math.max(0, ...waiting(now))]],
  ["Lost, per second", amount, 1, ["dropped", "refused"], (_, rate) => [rate("dropped_messages"), rate("refused_messages")]],
  ["Memory", bytes, 1e6, [""], ({ counts }) => [counts.process_resident_memory_bytes]],
  ["CPU, of one core", percent, 100, [""], (_, rate) => [scaled(rate("process_cpu_seconds"), 100)]],
];

const TOTALS = [
  ["subscribers", ({ subscribers }) => count(subscribers)],
  ["subscriptions", ({ subscriptions }) => count(subscriptions)],
  ["channels in use", ({ channels }) => count(channels)],
  ["retained messages", (now) => `${count(now.retained_messages)} · ${bytes(now.retained_bytes)}`],
  ["messages in the log", (now) => `${count(now.log_messages)} · ${bytes(now.log_bytes)}`],
];

let charts;
let latest;
let values;

function make() {
  charts = CHARTS.map(([title, write, least, lines, read]) => {
    const chart = new Chart({ title, seconds: COVERED, write, lines, least });
    byId("charts").append(element("div", "tile", chart.figure));
    return { chart, read };
  });
  values = TOTALS.map(([name, write]) => {
    const value = element("dd");
    byId("totals").append(element("div", "", element("dt", "", name), value));
    return (now) => { value.textContent = write(now); };
  });
}

/** Takes the figures of one second. */
export function take(figures, rate) {
  if (!charts) make();
  latest = performance.now() / 1000;
  for (const { chart, read } of charts) chart.push(latest, ...read(figures, rate));
  values.forEach((update) => update(figures));
  byId("lanes-details").hidden = false;
  if (byId("lanes-details").open) showLanes(figures.lanes);
}

function showLanes(lanes) {
  const numbered = lanes.map((lane, at) => ({ ...lane, at }));
  const cells = ({ at, subscribers, waiting_deliveries: messages, waiting_bytes: held }) =>
    [String(at), count(subscribers), count(messages), bytes(held)];
  keep(byId("lanes"), numbered, ({ at }) => at,
    () => element("tr", "", rowHead(), ...[1, 2, 3].map(() => element("td", "n"))),
    (row, lane) => cells(lane).forEach((text, cell) => { row.children[cell].textContent = text; }));
}

function rowHead() {
  const head = element("th");
  head.scope = "row";
  return head;
}

/** Draws them: for who sees the page. */
export function draw() {
  if (latest === undefined) return;
  const now = performance.now() / 1000;
  for (const { chart } of charts) chart.draw(now);
}

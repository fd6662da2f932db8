// The messages that came, the newest first: each once, with the transports that it came over.

import { byId, element } from "../base/dom.js";
import { Chart } from "../base/chart.js";
import { amount, clock, count } from "../base/format.js";
import { textOf } from "../base/json.js";

const MAX_SHOWN = 100;
const MAX_TEXT = 2000;
/** Of messages that came over one transport only: how many different ones are remembered, and how many that are alike. */
const MAX_KNOWN = 1000;
const MAX_ALIKE = 100;

const totals = { SSE: 0, Bayeux: 0 };
/** By what a message is known by: those that may still come over the other transport. */
const known = new Map();
const waiting = new Set();
let isDrawing = false;
let thisSecond = 0;

/** One and the same message has one id. What is not recorded has none, and is known by what it is. */
const keyOf = ({ id, channel, body }) => id ?? `${channel}\n${textOf(body, MAX_TEXT)}`;

/** Shows a message that came over a transport. */
export function show(over, message) {
  totals[over] += 1;
  const entry = merged(over, message) ?? added(over, message);
  waiting.add(entry);
  // At a high rate, or while nobody looks, only what will be seen is drawn.
  if (waiting.size > MAX_SHOWN) waiting.delete(waiting.values().next().value);
  if (!isDrawing) requestAnimationFrame(draw);
  isDrawing = true;
}

/** The message, if it came over the other transport before. */
function merged(over, message) {
  const key = keyOf(message);
  const alike = known.get(key);
  const at = alike?.findIndex(({ overs }) => !overs.has(over)) ?? -1;
  if (at < 0) return undefined;
  const [entry] = alike.splice(at, 1);
  if (alike.length === 0) known.delete(key);
  entry.overs.add(over);
  // Only Server-Sent Events tell the event's name.
  entry.kind ??= message.kind;
  return entry;
}

function added(over, message) {
  thisSecond += 1;
  const entry = { ...message, at: new Date(), overs: new Set([over]) };
  const key = keyOf(message);
  const alike = known.get(key) ?? [];
  alike.push(entry);
  if (alike.length > MAX_ALIKE) alike.shift();
  known.set(key, alike);
  if (known.size > MAX_KNOWN) known.delete(known.keys().next().value);
  return entry;
}

function draw() {
  const list = byId("messages");
  isDrawing = false;
  for (const entry of waiting) {
    if (!entry.item) {
      entry.item = itemOf(entry);
      list.prepend(entry.item);
    }
    entry.item.querySelector(".overs").replaceChildren(...[...entry.overs].map((over) =>
      element("span", `over ${over.toLowerCase()}`, over)));
  }
  waiting.clear();
  while (list.children.length > MAX_SHOWN) list.lastElementChild.remove();
  byId("empty").hidden = list.children.length > 0;
  showTotals();
}

function itemOf({ at, channel, kind, body }) {
  const time = element("time", "", clock(at));
  time.dateTime = at.toISOString();
  const name = element("span", "name", channel + (kind ? ` · ${kind}` : ""));
  return element("li", "", time, element("span", "overs"), name, element("pre", "", textOf(body, MAX_TEXT)));
}

function showTotals() {
  byId("total-sse").textContent = count(totals.SSE);
  byId("total-bayeux").textContent = count(totals.Bayeux);
}

/** Forgets what would otherwise be taken for a message that is yet to come over the other transport. */
export function forget() {
  known.clear();
}

export function start() {
  const chart = new Chart({ title: "Messages per second", seconds: 60, write: amount, least: 5 });
  byId("rate").append(chart.figure);
  setInterval(() => {
    const now = performance.now() / 1000;
    chart.push(now, thisSecond);
    chart.draw(now);
    thisSecond = 0;
  }, 1000);
  byId("clear").addEventListener("click", () => {
    byId("messages").replaceChildren();
    byId("empty").hidden = false;
    totals.SSE = totals.Bayeux = 0;
    forget();
    showTotals();
  });
}

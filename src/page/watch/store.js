// What the store keeps on the disk, and whether it takes anything. A server without one has no such figures.

import { byId, element, keep } from "../base/dom.js";
import { bytes, clock, count, span } from "../base/format.js";

const LABEL = /^store_messages\{namespace="(.*)"\}$/;

/** Seconds that are usually a few thousandths of one. */
const short = (seconds) => (seconds < 1 ? `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms` : `${seconds.toFixed(1)} s`);

const FIGURES = [
  ["Head", ({ store_head: head }) => count(head)],
  ["On disk", ({ store_disk_bytes: held }) => bytes(held)],
  ["Free", ({ store_free_bytes: free }) => bytes(free)],
  ["Last commit", ({ store_last_commit_seconds: took }) => short(took)],
  ["Waiting", ({ store_waiting: waiting }) => count(waiting)],
];

let values;

function make() {
  values = FIGURES.map(([name, write]) => {
    const value = element("dd");
    byId("store-figures").append(element("div", "", element("dt", "", name), value));
    return (counts) => { value.textContent = write(counts); };
  });
}

/** A row for the namespaces with bounds of their own, and one for all others. */
function namespaces(counts) {
  return Object.keys(counts).map((series) => LABEL.exec(series)?.[1]).filter((name) => name !== undefined).map((name) => {
    const of = (metric) => counts[`${metric}{namespace="${name}"}`];
    return { name, messages: of("store_messages"), held: of("store_bytes"), oldest: of("store_oldest_timestamp") };
  });
}

function row({ name }) {
  const head = element("th", "", name === "*" ? "all others" : name);
  head.scope = "row";
  return element("tr", "", head, element("td", "n"), element("td", "n"), element("td", "n"));
}

export function take({ counts, time }) {
  const isThere = counts.store_state !== undefined;
  byId("store").hidden = !isThere;
  if (!isThere) return;
  if (!values) make();
  const takes = counts.store_state === 1;
  const state = byId("store-state");
  state.className = `state ${takes ? "open" : "failed"}`;
  const word = takes ? "takes messages" : "refuses";
  if (state.textContent !== word) state.textContent = word;
  values.forEach((update) => update(counts));
  const kept = namespaces(counts);
  const now = Date.parse(time) / 1000;
  const age = (oldest) => (oldest ? `${span(now - oldest)} ago` : "–");
  keep(byId("store-namespaces"), kept, ({ name }) => name, row, (made, { messages, held, oldest }) => {
    const cells = [count(messages), bytes(held), age(oldest)];
    cells.forEach((text, at) => { made.children[at + 1].textContent = text; });
    made.lastChild.title = oldest ? clock(new Date(oldest * 1000)) : "";
  });
}

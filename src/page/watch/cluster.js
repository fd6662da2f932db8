// Which nodes there are: how each is, who is connected to it, and what goes between it and the others.

import { byId, element, keep, say } from "../base/dom.js";
import { amount, count, span } from "../base/format.js";
import { ask } from "../base/server.js";
import { again } from "./again.js";

/** Milliseconds: as often as nodes say that they are there. */
const EVERY = 2000;
const STREAMS = [["messages", "stream of messages"], ["retained", "stream of retained messages"]];

const listeners = [];
/** What a node had sent and taken, and when that was asked. */
const before = new Map();

/** Calls `listener` when it is known that there is a cluster. */
export function onCluster(listener) {
  listeners.push(listener);
}

function row({ name, here }) {
  const head = element("th", "", name, element("span", "note"));
  head.scope = "row";
  if (here) head.append(element("span", "note", "answers here"));
  const numbers = ["n", "n", "n", "n roomy"].map((kind) => element("td", kind));
  return element("tr", "", head, element("td"), ...numbers);
}

/** What is not as it should be with a node's streams. */
const faults = (streams) => STREAMS.filter(([key]) => streams && streams[key] !== "there").map(([key, name]) => `${name}: ${streams[key]}`);

/** How fast a total rises since the node was asked before. */
function rates({ id, sent, received }, at) {
  const last = before.get(id);
  before.set(id, { sent, received, at });
  const seconds = last && (at - last.at) / 1000;
  const rate = (now, then) => (seconds > 0 && now >= then ? amount((now - then) / seconds) : "–");
  return last ? [rate(sent, last.sent), rate(received, last.received)] : ["–", "–"];
}

function update(made, node) {
  const [head, how, here, out, taken, heard] = made.children;
  const tells = node.connections !== undefined;
  head.children[0].textContent = tells ? `${node.version} · NATS ${node.round_trip_ms.toFixed(1)} ms` : "";
  how.replaceChildren(element("output", `state ${node.state === "ready" ? "open" : "failed"}`, node.state));
  const wrong = faults(node.streams);
  const streams = node.streams ? (wrong.length ? wrong.join(", ") : "streams are there") : tells ? "all in memory" : "";
  how.append(element("span", "note", streams));
  here.textContent = tells ? count(node.connections) : "–";
  [out.textContent, taken.textContent] = tells ? rates(node, performance.now()) : ["–", "–"];
  heard.textContent = node.here ? "now" : `${span(node.heard_ms / 1000)} ago`;
}

async function list() {
  const { nodes, partial } = await (await ask("/v1/nodes")).json();
  keep(byId("nodes"), nodes, ({ id }) => id, row, update);
  for (const id of before.keys()) if (!nodes.some((node) => node.id === id)) before.delete(id);
  const there = nodes.filter(({ state }) => state !== "gone").length;
  say(byId("cluster-note"), `${count(there)} ${there === 1 ? "node" : "nodes"}${partial ? "; not all have answered" : ""}.`);
  // Others than before may be listed from now on.
  if (byId("cluster").hidden) {
    byId("cluster").hidden = false;
    listeners.forEach((listener) => listener());
  }
}

const refresh = again(list, EVERY);
let begun = false;

/** Lists them from now on, where the figures are those of a node. */
export function take({ counts }) {
  if (begun || counts.cluster_connected === undefined) return;
  begun = true;
  refresh();
}

/** For who was refused, and may be let in now. */
export function begin() {
  begun = false;
}

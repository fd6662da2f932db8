// Channels in use and retained messages, as one tree.

import { button, byId, element, say } from "../base/dom.js";
import { bytes, count } from "../base/format.js";
import { ask, inPath } from "../base/server.js";
import { showHistory, showRetained } from "./history.js";
import { size, treeOf } from "./tree.js";

/** Names of either kind that are shown at a time; below a name there are fewer. */
const SHOWN = 500;
/** A folder with no more than so many channels is open from the start. */
const OPEN = 20;

async function load() {
  const below = byId("channels-below").value.trim().replace(/\/+$/, "");
  const note = byId("channels-note");
  note.classList.remove("failed");
  say(note, "Looking …");
  const [used, kept, itself] = await Promise.allSettled([
    read("channels", { prefix: below && `${below}/` }),
    read("retained", { filter: below ? `${below}/#` : "#" }),
    below && ask(`/v1/channels/${inPath(below)}`).then((answer) => answer.json()),
  ]);
  const leaves = new Map();
  const add = (leaf) => leaves.set(leaf.channel, { ...leaves.get(leaf.channel), ...leaf });
  const inUse = [...(itself.value ? [itself.value] : []), ...(used.value?.channels ?? [])];
  for (const { channel, subscribers, messages } of inUse) add({ channel, subscribers, messages });
  for (const { channel, time, bytes: size } of kept.value?.retained ?? []) add({ channel, retained: { time, size } });
  byId("channels").replaceChildren(list(treeOf([...leaves.values()].sort(byName))));
  const refused = [used, kept].flatMap(({ reason }) => reason ? [reason.message] : []);
  const more = used.value?.next || kept.value?.next ? " There are more: say below which name." : "";
  note.classList.toggle("failed", refused.length > 0);
  say(note, [...refused, leaves.size ? `${count(leaves.size)} shown.${more}` : "Nothing is there."].join(" "));
}

async function read(what, parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value);
  const query = new URLSearchParams([...given, ["limit", SHOWN]]);
  return (await ask(`/v1/${what}?${query}`)).json();
}

const byName = (one, other) => (one.channel < other.channel ? -1 : 1);

function list({ children }) {
  return element("ul", "", ...[...children.values()].map((child) => element("li", "", branch(child))));
}

function branch(node) {
  if (node.children.size === 0) return leafOf(node, node.name);
  const inside = size(node) - (node.leaf ? 1 : 0);
  const details = element("details", "", element("summary", "", `${node.name || "(empty)"}/ `, element("span", "note", count(inside))));
  if (node.leaf) details.append(leafOf(node, "(itself)"));
  // What is inside is made when it is seen.
  const fill = () => details.children.length > (node.leaf ? 2 : 1) || details.append(list(node));
  details.addEventListener("toggle", () => details.open && fill());
  if (inside <= OPEN) {
    fill();
    details.open = true;
  }
  return details;
}

function leafOf({ leaf: { channel, subscribers, messages, retained } }, name) {
  const facts = [];
  if (subscribers !== undefined) facts.push(`${count(subscribers)} subscribed`, `${count(messages)}${messages === 1000 ? "+" : ""} in the log`);
  const line = element("span", "leaf",
    button(name || "(empty)", "link", `History of ${channel}`, () => showHistory(channel)),
    element("span", "note", facts.join(" · ")));
  if (retained) {
    line.append(button(`retained, ${bytes(retained.size)}`, "badge", `Retained message of ${channel}, ${bytes(retained.size)}`,
      () => showRetained(channel)));
  }
  return line;
}

export function start() {
  byId("channels-form").addEventListener("submit", (event) => {
    event.preventDefault();
    load();
  });
}

/** Shows the tree, for who has just been let in. */
export const refresh = load;

// What was published on a channel, and what it retains.

import { byId, element, say } from "../base/dom.js";
import { clock, count } from "../base/format.js";
import { bodyOf, parse, textOf } from "../base/json.js";
import { ask, inPath } from "../base/server.js";

const SHOWN = 50;
const MAX_TEXT = 2000;

function item(envelope) {
  const at = new Date(envelope.time);
  const time = element("time", "", clock(at));
  time.dateTime = envelope.time;
  time.title = at.toLocaleString();
  const name = envelope.channel + (envelope.event ? ` · ${envelope.event}` : "");
  const head = element("span", "name", name, element("span", "note", envelope.id ?? "not recorded"));
  return element("li", "", time, head, element("pre", "", textOf(bodyOf(envelope), MAX_TEXT)));
}

async function show(path, read, sentence) {
  const note = byId("history-note");
  note.classList.remove("failed");
  byId("history").replaceChildren();
  say(note, "Looking …");
  try {
    const messages = read(parse(await (await ask(path)).text()));
    byId("history").replaceChildren(...messages.map(item));
    say(note, sentence(messages));
  } catch (error) {
    note.classList.add("failed");
    say(note, error.message);
  }
}

function load(filter) {
  return show(`/v1/history/${inPath(filter)}?order=desc&limit=${SHOWN}`, ({ messages }) => messages, ({ length }) =>
    length === 0 ? "The log holds nothing of it."
      : length === SHOWN ? `The last ${count(SHOWN)} messages.` : `All ${count(length)} that the log holds.`);
}

/** Goes to the history of a channel. */
export function showHistory(channel) {
  goTo(channel);
  load(channel);
}

/** Goes to what a channel retains. */
export function showRetained(channel) {
  goTo(channel);
  show(`/v1/retained/${inPath(channel)}`, (message) => [message], () => "The retained message.");
}

function goTo(channel) {
  byId("history-channel").value = channel;
  byId("history-title").scrollIntoView({ block: "start" });
  byId("history").focus({ preventScroll: true });
}

export function start() {
  byId("history-form").addEventListener("submit", (event) => {
    event.preventDefault();
    load(byId("history-channel").value.trim());
  });
}

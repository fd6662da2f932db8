// Who is called: webhooks, how their hosts do, what waits for them, and what was given up.

import { button, byId, element, keep, say } from "../base/dom.js";
import { bytes, count, span } from "../base/format.js";
import { ask } from "../base/server.js";
import { again } from "./again.js";

/** Dead letters that are shown at a time. */
const SHOWN = 20;
const STATES = { open: "called", failing: "left alone", failed: "not allowed there", gone: "wants nothing more" };

function row({ id, url }) {
  const head = element("th", "", id, element("span", "note", url));
  head.scope = "row";
  return element("tr", "", head, element("td"), element("td", "n"), element("td", "n"));
}

function update(made, { state, queue, last_error: error, dead_letters: dead }) {
  const [, how, waiting, letters] = made.children;
  how.replaceChildren(element("output", `state ${state === "open" ? "open" : "failed"}`, STATES[state] ?? state));
  if (error && state !== "open") how.append(element("span", "note", error.error));
  const oldest = queue.events > 0 ? ` · ${span(queue.oldest_ms / 1000)}` : "";
  waiting.textContent = `${count(queue.events)} · ${bytes(queue.bytes)}${oldest}`;
  letters.textContent = count(dead);
}

function letter({ id, hook }) {
  const again = button("Replay", "quiet", `Replay ${id} of ${hook}`, () => replay(id));
  const head = element("th", "", hook, element("span", "note", id));
  head.scope = "row";
  return element("tr", "", head, element("td"), element("td", "n roomy"), element("td", "", again));
}

function updateLetter(made, { cause, at, last }) {
  const [, why, age] = made.children;
  why.replaceChildren(cause.replace("_", " "), element("span", "note", last?.error ?? ""));
  age.textContent = span((Date.now() - Date.parse(at)) / 1000);
}

async function replay(id) {
  const note = byId("letters-note");
  note.classList.remove("failed");
  try {
    await ask(`/v1/dead-letters/${encodeURIComponent(id)}/replay`, { method: "POST" });
    await list();
  } catch (error) {
    note.classList.add("failed");
    say(note, error.message);
  }
}

async function list() {
  const { webhooks } = await (await ask("/v1/webhooks")).json();
  const { letters, next } = await (await ask(`/v1/dead-letters?limit=${SHOWN}`)).json();
  keep(byId("hooks"), webhooks, ({ id }) => id, row, update);
  keep(byId("letters"), letters, ({ id }) => id, letter, updateLetter);
  byId("hooks-table").hidden = webhooks.length === 0;
  byId("letters-table").hidden = letters.length === 0;
  say(byId("letters-note"), letters.length === 0 ? "No dead letters." : next ? `The oldest ${count(letters.length)} dead letters.` : "");
  byId("hooks-card").hidden = webhooks.length === 0 && letters.length === 0;
}

/** Lists them, for who has just been let in, and again from time to time. */
export const refresh = again(list);

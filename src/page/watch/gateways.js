// Whose functions are called: APIs, how their functions do, who is connected, and what waits.

import { byId, element, keep } from "../base/dom.js";
import { count } from "../base/format.js";
import { ask } from "../base/server.js";
import { again } from "./again.js";

const STATES = { open: "called", failing: "left alone" };

function row({ id, path }) {
  const head = element("th", "", id, element("span", "note", path));
  head.scope = "row";
  return element("tr", "", head, element("td"), element("td", "n"), element("td", "n"), element("td", "n"));
}

function update(made, { functions, connections, queue, dead_letters: dead }) {
  const [, how, here, waiting, letters] = made.children;
  how.replaceChildren(...functions.map(({ name, url, state, in_flight: under }) => {
    const kind = state === "open" ? "open" : "failed";
    const more = `${name} · ${url}${under > 0 ? ` · ${count(under)} under way` : ""}`;
    return element("div", "", element("output", `state ${kind}`, STATES[state] ?? state), element("span", "note", more));
  }));
  here.textContent = count(connections);
  waiting.textContent = count(queue);
  letters.textContent = count(dead);
}

async function list() {
  const { gateways } = await (await ask("/v1/gateways")).json();
  keep(byId("gateways"), gateways, ({ id }) => id, row, update);
  byId("gateways-card").hidden = gateways.length === 0;
}

/** Lists them, for who has just been let in, and again from time to time. */
export const refresh = again(list);

// Where requests go: routes, what is under way on them, and how their origins do.

import { byId, element, keep } from "../base/dom.js";
import { count, span } from "../base/format.js";
import { ask } from "../base/server.js";
import { again } from "./again.js";

const STATES = { open: "asked", failing: "left alone" };

function row({ id, host, path }) {
  const head = element("th", "", id, element("span", "note", `${host === "*" ? "" : host}${path}`));
  head.scope = "row";
  return element("tr", "", head, element("td"), element("td", "n"), element("td", "n roomy"));
}

function update(made, { origins, connections, last_active_at: last }) {
  const [, how, under, idle] = made.children;
  how.replaceChildren(...origins.map(({ url, state }) => {
    const kind = state === "open" ? "open" : "failed";
    return element("div", "", element("output", `state ${kind}`, STATES[state] ?? state), element("span", "note", url));
  }));
  under.textContent = count(connections);
  idle.textContent = span(Math.max(0, Date.now() - Date.parse(last)) / 1000);
}

async function list() {
  const { routes } = await (await ask("/v1/routes")).json();
  keep(byId("routes"), routes, ({ id }) => id, row, update);
  byId("routes-card").hidden = routes.length === 0;
}

/** Lists them, for who has just been let in, and again from time to time. */
export const refresh = again(list);

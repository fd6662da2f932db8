// Who is connected: listed when asked, and searched page by page.

import { button, byId, element, keep, say } from "../base/dom.js";
import { bytes, count, span } from "../base/format.js";
import { ask } from "../base/server.js";
import { onCluster } from "./cluster.js";
import { onClosed, showConnection } from "./connection.js";

/** Matches that are shown at a time. */
const SHOWN = 100;
/** Connections that are looked at for them before somebody has to ask for more. */
const SEARCHED = 10_000;
const PAGE = 1000;
const NAMES = { sse: "SSE", mqtt: "MQTT", bayeux: "Bayeux" };

let shown = [];
/** Where the next page begins; `null` behind the last. */
let next = null;
let searched = 0;
/** Whether a node has not answered. */
let partial = false;
let asking = 0;

/** What a search looks into, in small letters. */
function textOf({ id, user, client_id: client, transport, remote, subscriptions, node }) {
  return [id, user, client, transport, node, remote.ip, remote.user_agent, ...subscriptions].join("\n").toLowerCase();
}

function wanted() {
  const find = byId("connections-find").value.trim().toLowerCase();
  const protocol = byId("connections-protocol").value;
  return (connection) => (!protocol || connection.protocol === protocol) && (!find || textOf(connection).includes(find));
}

async function list({ goOn }) {
  const turn = ++asking;
  const note = byId("connections-note");
  const scope = byId("connections-of-nodes").hidden ? "" : `&scope=${byId("connections-scope").value}`;
  if (!goOn) [shown, next, searched, partial] = [[], "", 0, false];
  const [matches, most, until] = [wanted(), shown.length + SHOWN, searched + SEARCHED];
  say(note, "Looking …");
  try {
    while (next !== null && shown.length < most && searched < until) {
      const cursor = next ? `&cursor=${next}` : "";
      const page = await (await ask(`/v1/connections?limit=${PAGE}${scope}${cursor}`)).json();
      // Somebody has asked for something else meanwhile.
      if (turn !== asking) return;
      partial ||= page.partial === true;
      for (const connection of page.connections) {
        // Of a page only as many as there is room for: the rest begins the next one.
        if (shown.length === most) break;
        searched += 1;
        next = connection.id;
        if (matches(connection)) shown.push(connection);
      }
      const whole = next === (page.connections.at(-1)?.id ?? next);
      if (whole) next = page.next;
    }
    show();
  } catch (error) {
    if (turn === asking) show(error.message);
  }
}

function show(problem) {
  const note = byId("connections-note");
  note.classList.toggle("failed", problem !== undefined);
  keep(byId("connections"), shown, ({ id }) => id, row, update);
  byId("connections-table").hidden = shown.length === 0;
  byId("connections-more").hidden = next === null || problem !== undefined;
  const found = `${count(shown.length)} ${shown.length === 1 ? "connection" : "connections"}`;
  const looked = searched > shown.length ? `, of ${count(searched)} looked at` : "";
  const some = partial ? " A node has not answered: its clients are missing." : "";
  say(note, problem ?? (searched === 0 ? "Nobody is connected." : `${found}${looked}${next === null ? "" : "; there are more"}.`) + some);
}

/** Who it is, for people: the name that the server knows, or where it comes from. */
const nameOf = ({ user, client_id: client, remote, id }) => user ?? client ?? remote.ip ?? id;

function row(connection) {
  const name = nameOf(connection);
  const label = `Details of ${name}, ${NAMES[connection.protocol] ?? connection.protocol}`;
  const more = [connection.client_id, connection.remote.ip, connection.node && `on ${connection.node}`].filter((text) => text && text !== name).join(" · ");
  const head = element("th", "", button(name, "link", label, () => showConnection(connection.id)), element("span", "note", more));
  head.scope = "row";
  const protocol = element("td", "", NAMES[connection.protocol] ?? connection.protocol, element("span", "note", connection.transport));
  return element("tr", "", head, protocol, element("td", "n roomy"), element("td", "n"), element("td", "n roomy"));
}

function update(made, { connected_at: since, queue, dropped }) {
  const [, , age, waiting, lost] = made.children;
  age.textContent = span((Date.now() - Date.parse(since)) / 1000);
  waiting.textContent = `${count(queue.messages)} · ${bytes(queue.bytes)}`;
  lost.textContent = count(dropped);
}

export function start() {
  byId("connections-form").addEventListener("submit", (event) => {
    event.preventDefault();
    list({ goOn: false });
  });
  byId("connections-protocol").addEventListener("change", () => list({ goOn: false }));
  byId("connections-scope").addEventListener("change", () => list({ goOn: false }));
  onCluster(() => {
    byId("connections-of-nodes").hidden = false;
    list({ goOn: false });
  });
  byId("connections-more").addEventListener("click", () => list({ goOn: true }));
  onClosed((id) => {
    shown = shown.filter((connection) => connection.id !== id);
    show();
  });
}

/** Lists them, for who has just been let in. */
export const refresh = () => list({ goOn: false });

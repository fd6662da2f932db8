// One connection: all that is known of it, and its end.

import { announce, byId, element, say } from "../base/dom.js";
import { bytes, count } from "../base/format.js";
import { ask } from "../base/server.js";

const listeners = [];
let current;

/** Calls `listener(id)` when a connection was closed here. */
export function onClosed(listener) {
  listeners.push(listener);
}

const written = (time) => new Date(time).toLocaleString();

function rows(connection) {
  const { remote, queue, subscriptions } = connection;
  return [
    ["Id", connection.id],
    ["User", connection.user ?? "nobody by name"],
    ["Client identifier", connection.client_id],
    ["Protocol", `${connection.protocol} over ${connection.transport}`],
    ["Address", remote.ip ?? "not known"],
    ["TLS", remote.tls && `${remote.tls.version}, ${remote.tls.cipher}`],
    ["Program", remote.user_agent],
    ["Node", connection.node],
    ["Connected", written(connection.connected_at)],
    ["Last sign of life", written(connection.last_active_at)],
    ["Waiting for it", `${count(queue.messages)} messages, ${bytes(queue.bytes)}`],
    ["Thrown away", `${count(connection.dropped)} messages`],
    [`Subscriptions (${count(subscriptions.length)})`, subscriptions.slice(0, 100).join("\n") || "none"],
  ].filter(([, value]) => value);
}

/** Opens the dialog about one. */
export async function showConnection(id) {
  current = id;
  say(byId("connection-problem"));
  byId("connection-details").replaceChildren();
  byId("connection-close").hidden = true;
  byId("connection-reason").value = "";
  const dialog = byId("connection");
  if (!dialog.open) dialog.showModal();
  try {
    const connection = await (await ask(`/v1/connections/${id}`)).json();
    if (current !== id) return;
    byId("connection-details").replaceChildren(...rows(connection).map(([name, value]) =>
      element("div", "", element("dt", "", name), element("dd", "lines", value))));
    byId("connection-close").hidden = false;
  } catch (error) {
    if (current === id) say(byId("connection-problem"), error.message);
  }
}

async function close() {
  const reason = byId("connection-reason").value.trim();
  const query = reason ? `?${new URLSearchParams({ reason })}` : "";
  try {
    await ask(`/v1/connections/${current}${query}`, { method: "DELETE" });
    listeners.forEach((listener) => listener(current));
    byId("connection").close();
    announce("The connection is closed");
  } catch (error) {
    say(byId("connection-problem"), error.message);
  }
}

export function start() {
  byId("connection-close").addEventListener("submit", (event) => {
    event.preventDefault();
    close();
  });
  byId("connection-leave").addEventListener("click", () => byId("connection").close());
}

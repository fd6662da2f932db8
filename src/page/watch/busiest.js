// The channels with most messages, as the server found them in its log.

import { button, byId, element, keep, say } from "../base/dom.js";
import { amount, bytesPerSecond, count } from "../base/format.js";
import { showHistory } from "./history.js";

function row({ channel }) {
  const head = element("th", "", button(channel, "link", `History of ${channel}`, () => showHistory(channel)));
  head.scope = "row";
  return element("tr", "", head, element("td", "n"), element("td", "n"));
}

function update(made, { messages, bytes }) {
  made.children[1].textContent = amount(messages);
  made.children[2].textContent = bytesPerSecond(bytes);
}

export function take({ busiest: { seconds, recorded, seen, channels } }) {
  keep(byId("busiest"), channels, ({ channel }) => channel, row, update);
  byId("busiest-table").hidden = channels.length === 0;
  const covered = `In the last ${count(seconds)} s`;
  const estimate = recorded > seen ? `, estimated from ${count(seen)} of ${count(recorded)} messages` : "";
  say(byId("busiest-note"), seconds === 0 ? "Listening for the first second …"
    : channels.length === 0 ? `${covered} nothing was recorded.` : `${covered}${estimate}.`);
}

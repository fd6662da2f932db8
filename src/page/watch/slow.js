// The readers for whom most waits.

import { button, byId, element, keep, say } from "../base/dom.js";
import { bytes, count, span } from "../base/format.js";
import { showConnection } from "./connection.js";

/** Who it is, in a word. */
const nameOf = ({ id, user, protocol }) => `${user ?? id} · ${protocol}`;

function row(reader) {
  const name = nameOf(reader);
  const head = element("th", "", button(name, "link", `Details of ${name}`, () => showConnection(reader.id)));
  head.scope = "row";
  return element("tr", "", head, element("td", "n"), element("td", "n"), element("td", "n"));
}

function update(made, { queue, dropped, seconds }) {
  const cells = [`${count(queue.messages)} · ${bytes(queue.bytes)}`, count(dropped), span(seconds)];
  cells.forEach((text, at) => { made.children[at + 1].textContent = text; });
}

export function take({ slow }) {
  keep(byId("slow"), slow, ({ id }) => id, row, update);
  byId("slow-table").hidden = slow.length === 0;
  say(byId("slow-note"), slow.length === 0 ? "Nobody has anything waiting." : "");
}

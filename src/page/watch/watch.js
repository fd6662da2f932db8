// The tab *Watch*: opens the stream of figures when it is first shown, and hands each second to its parts.

import { announce, byId, say } from "../base/dom.js";
import { onToken } from "../base/session.js";
import * as busiest from "./busiest.js";
import * as channels from "./channels.js";
import * as charts from "./charts.js";
import * as cluster from "./cluster.js";
import * as connection from "./connection.js";
import * as connections from "./connections.js";
import { Figures } from "./figures.js";
import * as history from "./history.js";
import * as gateways from "./gateways.js";
import * as hooks from "./hooks.js";
import * as routes from "./routes.js";
import * as slow from "./slow.js";
import * as store from "./store.js";

let figures;
let isShown = false;
let isOpen = false;

function state(kind, text) {
  const output = byId("figures-state");
  output.className = `state ${kind}`;
  const word = kind === "failed" ? "refused" : kind === "open" ? "live" : "connecting";
  if (output.textContent !== word) {
    output.textContent = word;
    announce(`Figures: ${word}`);
  }
  const isSentence = !["open", "connecting", "reconnecting"].includes(text);
  say(byId("figures-problem"), isSentence ? text : "");
  // Lists are filled once the server has let us in: asking for each of them would be refused as often.
  if (kind === "open" && !isOpen) {
    connections.refresh();
    channels.refresh();
    hooks.refresh();
    gateways.refresh();
    routes.refresh();
    cluster.begin();
  }
  isOpen = kind === "open";
}

function take(now, rate) {
  charts.take(now, rate);
  busiest.take(now);
  slow.take(now);
  store.take(now);
  cluster.take(now);
  if (isShown) charts.draw();
}

function open() {
  figures?.close();
  isOpen = false;
  figures = new Figures({ onFigures: take, onState: state });
}

/** Says whether the tab is the one that is seen. What it has begun to keep it goes on keeping. */
export function shown(yes) {
  isShown = yes;
  if (yes && !figures) open();
  if (yes) charts.draw();
}

export function start() {
  connection.start();
  connections.start();
  channels.start();
  history.start();
  onToken(() => figures && open());
  addEventListener("pagehide", () => figures?.close());
  addEventListener("pageshow", ({ persisted }) => persisted && figures && open());
}

// The form that listens, over Server-Sent Events and Bayeux.

import { announce, byId, say } from "../base/dom.js";
import { EventStream } from "../base/events.js";
import { bodyOf, parse } from "../base/json.js";
import { serverFacts } from "../base/server.js";
import { onToken } from "../base/session.js";
import { Bayeux, bayeuxChannels } from "./bayeux.js";
import { HOST_CHANNEL, showHost } from "./host.js";
import { forget, show } from "./messages.js";

const NAMES = { sse: "Server-Sent Events", bayeux: "Bayeux" };
const NOT_SERVED = "is not served here";
const RETRY = 1000;
const open = {};
const refusals = {};
/** Where each is served, once the server has said it. */
let paths;

function state(name) {
  return (kind, text) => {
    const output = byId(`${name}-state`);
    output.className = `state ${kind}`;
    // A sentence has no room beside the box.
    const word = kind === "failed" ? "refused" : kind === "waiting" ? "connecting" : text;
    if (output.textContent !== word) {
      output.textContent = word;
      announce(`${NAMES[name]}: ${text}`);
    }
    refusals[name] = kind === "failed" || (kind === "waiting" && !["connecting", "reconnecting"].includes(text)) ? text : undefined;
    const said = Object.entries(refusals).filter(([, sentence]) => sentence);
    say(byId("listen-problem"), said.map(([of, sentence]) => `${NAMES[of]}: ${sentence}`).join("\n"));
  };
}

function stop() {
  for (const name of Object.keys(NAMES)) {
    open[name]?.close();
    delete open[name];
    state(name)("", "off");
  }
  forget();
}

/** Whether the filter asks for the host's figures itself: otherwise they come along to be drawn only. */
const wantsHost = (filter) => ["#", "**", HOST_CHANNEL, "host/*", "host/**", "host/#"].includes(filter);

function events(filter) {
  const query = new URLSearchParams({ format: "json" });
  query.append("channel", filter);
  if (!wantsHost(filter) && open.hostMayBeRead !== false) query.append("channel", HOST_CHANNEL);
  return new EventStream(`${paths.sse}?${query}`, {
    onState: (kind, text) => {
      // Who may listen to the filter need not be let in to the host's figures: then without them.
      if (kind === "failed" && query.getAll("channel").length > 1) {
        open.hostMayBeRead = false;
        open.sse = events(filter);
        return;
      }
      state("sse")(kind, text);
    },
    onEvent: ({ name, data }) => {
      if (name === "gap") return state("sse")("open", "open, some messages are gone");
      const envelope = parse(data);
      const message = { id: envelope.id ?? undefined, channel: envelope.channel, body: bodyOf(envelope), kind: envelope.event };
      if (message.channel === HOST_CHANNEL) showHost(message.body);
      if (message.channel !== HOST_CHANNEL || wantsHost(filter)) show("SSE", message);
    },
  });
}

function listen() {
  const filter = byId("filter").value.trim();
  stop();
  if (!filter || !paths) return;
  if (byId("over-sse").checked) {
    if (!paths.sse) state("sse")("failed", NOT_SERVED);
    else open.sse = events(filter);
  }
  if (byId("over-bayeux").checked) {
    if (!paths.bayeux) return state("bayeux")("failed", NOT_SERVED);
    const channels = bayeuxChannels(filter);
    if (!channels) return state("bayeux")("failed", "has no words for this filter");
    open.bayeux = new Bayeux(paths.bayeux, channels, {
      onState: state("bayeux"),
      onMessage: (message) => {
        if (message.channel === HOST_CHANNEL) showHost(message.body);
        show("Bayeux", message);
      },
    });
  }
}

/** Begins to listen as soon as it is known where. */
async function begin() {
  try {
    ({ paths } = await serverFacts());
    listen();
  } catch {
    for (const name of Object.keys(NAMES)) state(name)("waiting", "connecting");
    setTimeout(begin, RETRY);
  }
}

export function start() {
  byId("listen").addEventListener("submit", (event) => {
    event.preventDefault();
    listen();
  });
  for (const box of ["over-sse", "over-bayeux"]) byId(box).addEventListener("change", listen);
  onToken(() => {
    delete open.hostMayBeRead;
    listen();
  });
  addEventListener("pagehide", stop);
  addEventListener("pageshow", ({ persisted }) => persisted && listen());
  begin();
}

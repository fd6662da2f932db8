// Bayeux on a WebSocket, as little of it as listening takes.

import { parse } from "../base/json.js";
import { token } from "../base/session.js";

const LONGEST_DELAY = 30_000;

/** A filter in Bayeux' words; undefined if it has none for it. */
export function bayeuxChannels(filter) {
  const segments = filter.split("/");
  const last = segments.pop();
  if (segments.some((segment) => ["*", "**", "#", ""].includes(segment))) return undefined;
  const above = segments.map((segment) => `/${segment}`).join("");
  if (last === "#") return above ? [above, `${above}/**`] : ["/**"];
  return last ? [`${above}/${last}`] : undefined;
}

/** An error of the form `CODE:ARGUMENTS:TEXT` for people: what is meant first, then what it is about. */
function sentence(error = "refused") {
  const [, args, text] = /^\d+:([^:]*):(.*)$/s.exec(error) ?? [];
  return text === undefined ? error : `${(text || "refused").replaceAll("_", " ")}${args ? ` (${args})` : ""}`;
}

/**
 * Listens at a path to channels until it is closed; comes back by itself. `onMessage({ id, channel, body })`,
 * `onState(kind, text)`.
 */
export class Bayeux {
  constructor(path, channels, { onMessage, onState }) {
    this.path = path;
    this.channels = channels;
    this.onMessage = onMessage;
    this.onState = onState;
    this.delay = 1000;
    this.lastId = 0;
    this.open();
  }

  open() {
    this.onState("waiting", "connecting");
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.socket = new WebSocket(`${scheme}://${location.host}${this.path}`);
    this.socket.onopen = () => this.handshake();
    this.socket.onmessage = ({ data }) => parse(data).forEach((message) => this.take(message));
    this.socket.onclose = () => this.again();
  }

  send(...messages) {
    if (this.socket.readyState !== WebSocket.OPEN) return;
    this.socket.send(JSON.stringify(messages.map((message) => ({ id: String(++this.lastId), ...message }))));
  }

  handshake() {
    this.clientId = undefined;
    // With `replay` events bring the broker's id, by which one message is known over both transports.
    const ext = { replay: true };
    if (token()) ext.authentication = { token: token() };
    this.send({ channel: "/meta/handshake", version: "1.0", supportedConnectionTypes: ["websocket"], ext });
  }

  connect() {
    this.send({ channel: "/meta/connect", clientId: this.clientId, connectionType: "websocket" });
  }

  take(message) {
    switch (message.channel) {
      case "/meta/handshake":
        if (!message.successful) return this.refused(message);
        this.clientId = message.clientId;
        this.delay = 1000;
        this.send(...this.channels.map((subscription) =>
          ({ channel: "/meta/subscribe", clientId: this.clientId, subscription })));
        return this.connect();
      case "/meta/connect":
        if (message.successful) return this.connect();
        return message.advice?.reconnect === "handshake" ? this.handshake() : this.refused(message);
      case "/meta/subscribe":
        return message.successful ? this.onState("open", "open") : this.refused(message);
      default:
        if ("data" in message) {
          this.onMessage({ id: message.ext?.replay, channel: message.channel.slice(1), body: message.data });
        }
    }
  }

  refused(message) {
    this.onState("failed", sentence(message.error));
    if (message.advice?.reconnect === "none" || message.channel === "/meta/subscribe") this.close();
  }

  again() {
    if (this.closed) return;
    this.onState("waiting", "reconnecting");
    this.timer = setTimeout(() => this.open(), this.delay);
    this.delay = Math.min(this.delay * 2, LONGEST_DELAY);
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    if (this.clientId) this.send({ channel: "/meta/disconnect", clientId: this.clientId });
    this.socket.close();
  }
}

// Server-Sent Events over `fetch`: unlike `EventSource` it can show a token, and read why it is refused.

import { ask, Refused } from "./server.js";

const FIRST_DELAY = 1000;
const LONGEST_DELAY = 30_000;

/**
 * A stream that comes back by itself where it left off, as long as coming back makes sense.
 *
 * `onEvent({ name, data })`, and `onState(kind, text)` with the kinds `waiting`, `open` and `failed`. After `failed` it is
 * over.
 */
export class EventStream {
  constructor(path, { onEvent, onState }) {
    this.path = path;
    this.onEvent = onEvent;
    this.onState = onState;
    this.delay = FIRST_DELAY;
    this.run();
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    this.aborting?.abort();
  }

  async run() {
    this.onState("waiting", "connecting");
    try {
      await this.read();
      this.again(this.why ?? "reconnecting");
    } catch (error) {
      if (this.closed) return;
      if (error instanceof Refused && !error.passes) {
        this.closed = true;
        this.onState("failed", error.message);
      } else {
        this.again(error instanceof Refused ? error.message : "reconnecting", error.retryAfter);
      }
    }
  }

  again(why, delay) {
    if (this.closed) return;
    this.onState("waiting", why);
    this.timer = setTimeout(() => this.run(), delay ?? this.delay);
    this.delay = Math.min(this.delay * 2, LONGEST_DELAY);
  }

  async read() {
    this.aborting = new AbortController();
    const headers = { Accept: "text/event-stream" };
    if (this.lastId) headers["Last-Event-ID"] = this.lastId;
    const answer = await ask(this.path, { headers, signal: this.aborting.signal });
    this.why = undefined;
    this.isOpen = false;
    const lines = new Lines();
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      for (const line of lines.take(value)) this.takeLine(line);
    }
  }

  takeLine(line) {
    if (line === "") return this.dispatch();
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    switch (name) {
      case "":
        // A comment is a keep-alive, or says why the stream is about to end.
        this.why = value || undefined;
        break;
      case "event": this.name = value; break;
      case "data": this.data = this.data === undefined ? value : `${this.data}\n${value}`; break;
      case "id": this.lastId = value; break;
      case "retry": this.delay = Number(value) || this.delay; return;
    }
    // A stream that was only opened to say that there is no room never was open.
    if (!this.isOpen && !this.why) {
      this.isOpen = true;
      this.delay = FIRST_DELAY;
      this.onState("open", "open");
    }
  }

  dispatch() {
    const { name = "message", data } = this;
    this.name = this.data = undefined;
    if (data !== undefined) this.onEvent({ name, data });
  }
}

/** Cuts what comes into lines, which end with CR, LF or both. */
class Lines {
  rest = "";

  take(text) {
    // A CR at the end may be half of a line's end.
    const all = (this.rest + text).split(/\r\n|\n|\r(?!$)/);
    this.rest = all.pop();
    return all;
  }
}

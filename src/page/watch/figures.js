// The stream of figures: one object a second, and what two of them say together.

import { EventStream } from "../base/events.js";

/** `onFigures(figures, rate)`: `rate(name)` is how fast a total rises per second, `undefined` as long as that is not known. */
export class Figures {
  constructor({ onFigures, onState }) {
    this.stream = new EventStream("/v1/figures", {
      onState,
      onEvent: ({ name, data }) => name === "message" && this.take(JSON.parse(data), onFigures),
    });
  }

  take(figures, onFigures) {
    const before = this.before;
    this.before = figures;
    // The server's clock begins anew when it does, or when nobody has watched for a while.
    const seconds = before && (figures.at_ms - before.at_ms) / 1000;
    const total = (of, name) => of[name] ?? of.counts[name];
    onFigures(figures, (name) => {
      const more = seconds > 0 ? (total(figures, name) - total(before, name)) / seconds : undefined;
      return more >= 0 ? more : undefined;
    });
  }

  close() {
    this.stream.close();
  }
}

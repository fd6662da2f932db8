// A small chart of the last minutes: lines over time, with a scale and with numbers.

import { drawn, element } from "./dom.js";
import { clock, roundUp, span } from "./format.js";

/** What a chart shows as long as it knows no more, in seconds. */
const SPANS = [60, 300];
/** How often a screen reader's description is made anew, in milliseconds. */
const DESCRIBED_EVERY = 10_000;

/**
 * `title`, `seconds` that it covers in the end, `write` for numbers, `lines` by name (one without a name if there is but one),
 * `least`, below which the scale does not end, and `gap`: a line is broken where nothing came for so many seconds.
 */
export class Chart {
  constructor({ title, seconds, write, lines = [""], least = 1, gap = 3 }) {
    Object.assign(this, { title, seconds, write, least, gap });
    this.points = [];
    this.described = -Infinity;
    this.svg = drawn("svg", { viewBox: `0 0 ${seconds} 100`, preserveAspectRatio: "none", role: "img", "aria-label": title });
    const grid = drawn("path", { class: "grid", d: `M0 0.5H${seconds}M0 50H${seconds}M0 99.5H${seconds}` });
    this.svg.append(grid);
    this.lines = lines.map((name, at) => {
      const path = drawn("path", { class: `line line-${at}` });
      const value = element("output", "", "–");
      // What changes every second is read when it is asked for, not whenever it changes.
      value.setAttribute("aria-live", "off");
      this.svg.append(path);
      return { name, path, value };
    });
    this.top = element("span", "top");
    this.middle = element("span", "middle");
    this.begin = element("span");
    const values = element("span", "values", ...this.lines.map(({ name, value }, at) =>
      element("span", `value line-${at}`, name ? `${name} ` : "", value)));
    const scale = element("span", "scale", this.top, this.middle, element("span", "bottom", this.write(0)));
    const times = element("span", "times", this.begin, element("span", "", "now"));
    for (const hidden of [scale, times]) hidden.setAttribute("aria-hidden", "true");
    this.figure = element("figure", "chart", element("figcaption", "", element("span", "title", title), values), scale, this.svg, times);
    this.rescale(least);
    this.cover(SPANS[0]);
  }

  /** Adds one value for each line at a time in seconds; `undefined` is a hole. */
  push(at, ...values) {
    this.points.push({ at, values });
    while (this.points[0].at < at - this.seconds) this.points.shift();
    this.lines.forEach(({ value }, line) => {
      value.textContent = values[line] === undefined ? "–" : this.write(values[line]);
    });
  }

  /** Draws what is known. Apart from `push`, as a chart that nobody sees is not drawn. */
  draw(now) {
    const known = this.points.flatMap(({ values }) => values.filter((value) => value !== undefined));
    const most = Math.max(this.least, ...known);
    this.rescale(roundUp(most));
    const age = this.points.length ? now - this.points[0].at : 0;
    this.cover(SPANS.find((some) => some >= age) ?? this.seconds);
    this.lines.forEach(({ path }, line) => path.setAttribute("d", this.path(line, now)));
    if (performance.now() - this.described > DESCRIBED_EVERY && known.length) {
      this.described = performance.now();
      const current = this.lines.map(({ name, value }) => `${name} ${value.textContent}`.trim()).join(", ");
      const highest = this.write(Math.max(...known));
      this.svg.setAttribute("aria-label", `${this.title}: ${current} at ${clock(new Date())}; highest ${highest} in the last ${span(this.covered)}`);
    }
  }

  path(line, now) {
    let drawnTo;
    return this.points.map(({ at, values }) => {
      if (values[line] === undefined) {
        drawnTo = undefined;
        return "";
      }
      const goesOn = drawnTo !== undefined && at - drawnTo <= this.gap;
      drawnTo = at;
      const x = (this.seconds * (1 - (now - at) / this.covered)).toFixed(1);
      const y = (99 - (values[line] / this.scale) * 98).toFixed(1);
      // A point alone is drawn as a short line, or it would not be seen.
      return goesOn ? `L${x} ${y}` : `M${x} ${y}h0.5`;
    }).join("");
  }

  cover(seconds) {
    const covered = Math.min(seconds, this.seconds);
    if (covered === this.covered) return;
    this.covered = covered;
    this.begin.textContent = `${span(covered)} ago`;
  }

  rescale(scale) {
    if (scale === this.scale) return;
    this.scale = scale;
    this.top.textContent = this.write(scale);
    this.middle.textContent = this.write(scale / 2);
  }
}

// Numbers and times as people read them.

export const count = (value) => value.toLocaleString(undefined, { maximumFractionDigits: 0 });

/** A count that may be less than one. */
export const amount = (value) => value.toLocaleString(undefined, { maximumFractionDigits: value < 10 ? 1 : 0 });

export function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = value < 1000 ? 0 : Math.min(units.length - 1, Math.floor(Math.log10(value) / 3));
  const scaled = value / 1000 ** power;
  return `${scaled.toFixed(power && scaled < 10 ? 1 : 0)} ${units[power]}`;
}

export const bytesPerSecond = (value) => `${bytes(value)}/s`;

export const percent = (value) => `${value.toFixed(value < 10 ? 1 : 0)} %`;

export function clock(at) {
  return at.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
}

/** How long something takes or has taken, to the largest unit. */
export function span(seconds) {
  const units = [["d", 86_400], ["h", 3_600], ["min", 60]];
  const [name, size] = units.find(([, size]) => seconds >= size) ?? ["s", 1];
  return `${Math.max(0, Math.floor(seconds / size))} ${name}`;
}

/** A number that a scale may end at: 1, 2 or 5 and zeros. */
export function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999_999);
}

// JSON whose numbers stay what they are.

/** Parses JSON without changing its numbers, where the browser can: 12345678901234567890 stays what it is. */
export function parse(text) {
  if (!JSON.rawJSON) return JSON.parse(text);
  return JSON.parse(text, (_, value, context) =>
    typeof value === "number" && context ? JSON.rawJSON(context.source) : value);
}

/** A number of what was parsed so. */
export function number(value) {
  return Number(JSON.isRawJSON?.(value) ? value.rawJSON : value);
}

export const isRaw = (value) => Boolean(JSON.isRawJSON?.(value));

export function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** The body of an envelope, as the broker's JSON has it. */
export function bodyOf(envelope) {
  return "data" in envelope ? envelope.data : envelope.text ?? `base64 ${envelope.base64}`;
}

/** A body as text of at most so many characters. */
export function textOf(body, most) {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  return text.length > most ? `${text.slice(0, most)} …` : text;
}

// The key or token that this page shows to the server: kept for this tab of the browser only, until it is closed.

const PLACE = "fanwire-token";
const listeners = [];
let held = stored();

function stored() {
  try {
    return sessionStorage.getItem(PLACE) ?? "";
  } catch {
    // Where the browser keeps nothing, it lasts as long as the page.
    return "";
  }
}

export const token = () => held;

export function setToken(text) {
  held = text.trim();
  try {
    if (held) sessionStorage.setItem(PLACE, held);
    else sessionStorage.removeItem(PLACE);
  } catch {
    // As above.
  }
  listeners.forEach((listener) => listener());
}

/** Calls `listener` whenever there is another token, or none any more. */
export function onToken(listener) {
  listeners.push(listener);
}

/** Headers that show it. */
export function credentials(headers = {}) {
  return held ? { ...headers, Authorization: `Bearer ${held}` } : headers;
}

// Making and finding elements. What comes from the broker becomes text, never markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** An element; what is in it may be text, elements, or a list of both. */
export function element(name, className, ...content) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...content.filter((part) => part !== undefined && part !== null));
  return made;
}

export function drawn(name, attributes = {}) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** A button that is not the one of a form. `label` is what a screen reader says where the text alone is not enough. */
export function button(text, className, label, onClick) {
  const made = element("button", className, text);
  made.type = "button";
  if (label) made.setAttribute("aria-label", label);
  made.addEventListener("click", onClick);
  return made;
}

/** Says something to who does not see the page. */
export function announce(text) {
  byId("announce").textContent = text;
}

/** Shows a sentence, or hides its place. */
export function say(place, text = "") {
  if (place.textContent !== text) place.textContent = text;
  place.hidden = !text;
}

/**
 * Keeps the children of `parent` in step with `items`. A child whose item is still there stays, so that the focus does: it
 * is made once with `make(item)` and brought up to date with `update(child, item)`.
 */
export function keep(parent, items, keyOf, make, update) {
  const before = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  items.forEach((item, at) => {
    const key = String(keyOf(item));
    let child = before.get(key);
    before.delete(key);
    if (!child) {
      child = make(item);
      child.dataset.key = key;
    }
    update(child, item);
    if (parent.children[at] !== child) parent.insertBefore(child, parent.children[at] ?? null);
  });
  before.forEach((child) => child.remove());
}

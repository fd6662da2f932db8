// Tabs as the ARIA practices describe them: arrows, Home and End move, the chosen one alone is in the order of Tab.

/** Makes the buttons in `list` tabs; `onSelect(tab)` shows what belongs to one. Returns a function that selects one. */
export function tabs(list, onSelect) {
  const all = () => [...list.querySelectorAll("[role=tab]")];
  function select(chosen) {
    for (const tab of all()) {
      tab.setAttribute("aria-selected", String(tab === chosen));
      tab.tabIndex = tab === chosen ? 0 : -1;
    }
    onSelect(chosen);
  }
  list.addEventListener("click", ({ target }) => {
    const tab = target.closest("[role=tab]");
    if (tab) select(tab);
  });
  list.addEventListener("keydown", (event) => {
    const known = all();
    const at = known.indexOf(event.target.closest("[role=tab]"));
    const next = {
      ArrowRight: known[(at + 1) % known.length],
      ArrowLeft: known[(at - 1 + known.length) % known.length],
      Home: known[0],
      End: known.at(-1),
    }[event.key];
    if (at < 0 || !next) return;
    event.preventDefault();
    select(next);
    next.focus();
  });
  return select;
}

// The page at `/`: *Try* listens and publishes, *Watch* shows what the broker is doing. `base/` is what both use.

import { announce, byId } from "./base/dom.js";
import { setToken, token } from "./base/session.js";
import { tabs } from "./base/tabs.js";
import * as listen from "./try/listen.js";
import * as messages from "./try/messages.js";
import * as publish from "./try/publish.js";
import * as snippets from "./try/snippets.js";
import * as watch from "./watch/watch.js";

function showToken() {
  byId("token").value = "";
  byId("token").placeholder = token() ? "in use" : "none";
  byId("token-forget").hidden = !token();
}

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = byId("token").value.trim();
  if (!given) return;
  setToken(given);
  showToken();
  announce("The token is shown to the server from now on");
});
byId("token-forget").addEventListener("click", () => {
  setToken("");
  showToken();
  byId("token").focus();
  announce("The token is forgotten");
});
showToken();

messages.start();
publish.start();
snippets.start();
listen.start();
watch.start();

const select = tabs(byId("main-tabs"), (tab) => {
  const name = tab.getAttribute("aria-controls");
  for (const panel of ["try", "watch"]) byId(panel).hidden = panel !== name;
  history.replaceState(null, "", name === "try" ? location.pathname : `#${name}`);
  watch.shown(name === "watch");
});
select(byId(location.hash === "#watch" ? "tab-watch" : "tab-try"));

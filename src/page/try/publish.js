// The form that publishes, over HTTP.

import { byId } from "../base/dom.js";
import { isJson } from "../base/json.js";
import { ask, inPath } from "../base/server.js";

export function start() {
  byId("publish").addEventListener("submit", async (event) => {
    event.preventDefault();
    const [channel, data] = [byId("channel").value.trim(), byId("data").value];
    const receipt = byId("receipt");
    try {
      const type = isJson(data) ? "application/json" : "text/plain;charset=utf-8";
      const answer = await ask(`/v1/publish/${inPath(channel)}`, { method: "POST", headers: { "Content-Type": type }, body: data });
      const { id, receivers } = await answer.json();
      receipt.className = "help";
      receipt.textContent = `${id ?? "not recorded"}, ${receivers} ${receivers === 1 ? "receiver" : "receivers"}`;
    } catch (error) {
      receipt.className = "help failed";
      receipt.textContent = error.message;
    }
  });
}

// Lines to copy for the channel that the form publishes to.

import { announce, byId, element } from "../base/dom.js";
import { ask, inPath } from "../base/server.js";
import { tabs } from "../base/tabs.js";

const { origin, host, hostname } = location;
const socket = `${location.protocol === "https:" ? "wss" : "ws"}://${host}`;
/** Where MQTT over TCP is, once the server has said it; `undefined` if it is nowhere. */
let mqtt;

const SNIPPETS = {
  curl: (channel) => `# listen
curl -N ${origin}/sse/${inPath(channel)}

# publish
curl -d '{"hello":"world"}' -H 'Content-Type: application/json' \\
  ${origin}/v1/publish/${inPath(channel)}`,
  EventSource: (channel) => `const events = new EventSource("${origin}/sse/${inPath(channel)}");
events.onmessage = ({ data, lastEventId }) => console.log(lastEventId, data);`,
  CometD: (channel) => `import { CometD } from "cometd";

const cometd = new CometD();
cometd.configure({ url: "${origin}/cometd" });
cometd.handshake((reply) => {
  if (!reply.successful) return;
  cometd.subscribe(${JSON.stringify(`/${channel}`)}, ({ data }) => console.log(data));
  cometd.publish(${JSON.stringify(`/${channel}`)}, { hello: "world" });
});`,
  "MQTT.js": (channel) => `import mqtt from "mqtt";

${mqtt ? `// In a browser; from Node also ${mqtt}\n` : ""}const client = mqtt.connect("${socket}/mqtt");
client.on("message", (topic, payload) => console.log(topic, payload.toString()));
client.on("connect", () => {
  client.subscribe(${JSON.stringify(channel)});
  client.publish(${JSON.stringify(channel)}, '{"hello":"world"}');
});`,
};
let chosen = "curl";

function show() {
  const channel = byId("channel").value.trim() || "demo";
  byId("snippet").firstElementChild.textContent = SNIPPETS[chosen](channel);
}

/** Where the listener is for who reads this page: one on all addresses is where the page came from. */
function mqttAddress(said) {
  const [, ip, port] = /^(.*):(\d+)$/.exec(said) ?? [];
  return port && `mqtt://${["0.0.0.0", "[::]"].includes(ip) ? hostname : ip}:${port}`;
}

async function askServer() {
  try {
    const said = await (await ask("/page/server.json")).json();
    mqtt = mqttAddress(said.mqtt ?? "");
    show();
  } catch {
    // The lines are right without it.
  }
}

/** Puts text on the clipboard; where the browser keeps that for secure origins, selects it instead. */
async function copied(pre) {
  try {
    await navigator.clipboard.writeText(pre.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(pre);
    return false;
  }
}

export function start() {
  const list = byId("snippet-tabs");
  for (const name of Object.keys(SNIPPETS)) {
    const tab = element("button", "tab", name);
    tab.type = "button";
    tab.id = `tab-${name}`;
    tab.setAttribute("role", "tab");
    tab.setAttribute("aria-controls", "snippet");
    list.append(tab);
  }
  const select = tabs(list, (tab) => {
    chosen = tab.textContent;
    byId("snippet").setAttribute("aria-labelledby", tab.id);
    byId("copy").setAttribute("aria-label", `Copy the lines for ${chosen}`);
    show();
  });
  select(byId(`tab-${chosen}`));
  byId("channel").addEventListener("input", show);
  byId("copy").addEventListener("click", async () => {
    const said = (await copied(byId("snippet"))) ? "Copied" : "Selected";
    byId("copy").textContent = said;
    announce(`${chosen}: ${said}`);
    setTimeout(() => { byId("copy").textContent = "Copy"; }, 2000);
  });
  askServer();
}

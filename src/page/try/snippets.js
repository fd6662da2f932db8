// Lines to copy for the channel that the form publishes to.

import { announce, byId, element } from "../base/dom.js";
import { inPath, serverFacts } from "../base/server.js";
import { tabs } from "../base/tabs.js";

const { origin, host, hostname } = location;
const socket = `${location.protocol === "https:" ? "wss" : "ws"}://${host}`;
/** Where everything is, once the server has said it. */
let paths = {};
/** Addresses of MQTT over TCP, likewise; none if it is nowhere. */
let mqtt = [];

const SNIPPETS = {
  curl: (channel) => `# listen
curl -N ${origin}${paths.sse}/${inPath(channel)}

# publish
curl -d '{"hello":"world"}' -H 'Content-Type: application/json' \\
  ${origin}/v1/publish/${inPath(channel)}`,
  EventSource: (channel) => `const events = new EventSource("${origin}${paths.sse}/${inPath(channel)}");
events.onmessage = ({ data, lastEventId }) => console.log(lastEventId, data);`,
  CometD: (channel) => `import { CometD } from "cometd";

const cometd = new CometD();
cometd.configure({ url: "${origin}${paths.bayeux}" });
cometd.handshake((reply) => {
  if (!reply.successful) return;
  cometd.subscribe(${JSON.stringify(`/${channel}`)}, ({ data }) => console.log(data));
  cometd.publish(${JSON.stringify(`/${channel}`)}, { hello: "world" });
});`,
  "MQTT.js": (channel) => `import mqtt from "mqtt";

${mqtt.length ? `// In a browser; from Node also ${mqtt.join(" or ")}\n` : ""}const client = mqtt.connect("${socket}${paths.mqtt}");
client.on("message", (topic, payload) => console.log(topic, payload.toString()));
client.on("connect", () => {
  client.subscribe(${JSON.stringify(channel)});
  client.publish(${JSON.stringify(channel)}, '{"hello":"world"}');
});`,
};
/** What each needs a path of; curl and EventSource are two ways to the same. */
const OVER = { curl: "sse", EventSource: "sse", CometD: "bayeux", "MQTT.js": "mqtt" };
const RETRY = 1000;
let chosen = "curl";

function show() {
  const channel = byId("channel").value.trim() || "demo";
  const isServed = paths[OVER[chosen]];
  byId("snippet").firstElementChild.textContent = isServed ? SNIPPETS[chosen](channel) : "";
}

/**
 * Where a listener is for who reads this page: one on all addresses is where the page came from. So is one on this
 * machine's own, if it asks for a name that its certificate has.
 */
function address(scheme, said) {
  const [, ip, port] = /^(.*):(\d+)$/.exec(said ?? "") ?? [];
  const isHere = ["0.0.0.0", "[::]"].includes(ip) || (scheme === "mqtts" && ["127.0.0.1", "[::1]"].includes(ip));
  return port && `${scheme}://${isHere ? hostname : ip}:${port}`;
}

async function askServer() {
  try {
    const said = await serverFacts();
    paths = said.paths;
    mqtt = [address("mqtt", said.mqtt), address("mqtts", said.mqtts)].filter(Boolean);
    show();
  } catch {
    setTimeout(askServer, RETRY);
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

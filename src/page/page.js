// The page at `/`: listens over Server-Sent Events and Bayeux, publishes over HTTP. What comes from the broker is shown as
// text, never as markup.

const MAX_SHOWN = 100;
const MAX_TEXT = 2000;
const HOST_CHANNEL = "host/metrics";

const byId = (id) => document.getElementById(id);

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** Parses JSON without changing its numbers, where the browser can: 12345678901234567890 stays what it is. */
function parse(text) {
  if (!JSON.rawJSON) return JSON.parse(text);
  return JSON.parse(text, (_, value, context) =>
    typeof value === "number" && context ? JSON.rawJSON(context.source) : value);
}

class Events {
  constructor(filter, { onMessage, onState }) {
    const query = new URLSearchParams({ format: "json" });
    query.append("channel", filter);
    // The host's figures come along on the same stream, unless they were asked for anyway.
    if (filter !== HOST_CHANNEL) query.append("channel", HOST_CHANNEL);
    this.source = new EventSource(`/sse?${query}`);
    this.source.onopen = () => onState("open", "open");
    this.source.onerror = () => {
      const over = this.source.readyState === EventSource.CLOSED;
      onState(over ? "failed" : "waiting", over ? "refused" : "reconnecting");
    };
    this.source.onmessage = (event) => this.take(event, onMessage);
    this.source.addEventListener("gap", () => onState("open", "open, some messages are gone"));
    this.take = (event, deliver) => {
      const envelope = parse(event.data);
      const body = "data" in envelope ? envelope.data : envelope.text ?? `base64 ${envelope.base64}`;
      deliver({ channel: envelope.channel, body, kind: envelope.event });
    };
  }

  close() {
    this.source.close();
  }
}

class Bayeux {
  constructor(channels, { onMessage, onState }) {
    this.channels = channels;
    this.onMessage = onMessage;
    this.onState = onState;
    this.delay = 1000;
    this.lastId = 0;
    this.open();
  }

  open() {
    this.onState("waiting", "connecting");
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.socket = new WebSocket(`${scheme}://${location.host}/cometd`);
    this.socket.onopen = () => this.handshake();
    this.socket.onmessage = ({ data }) => parse(data).forEach((message) => this.take(message));
    this.socket.onclose = () => this.again();
  }

  send(...messages) {
    if (this.socket.readyState !== WebSocket.OPEN) return;
    this.socket.send(JSON.stringify(messages.map((message) => ({ id: String(++this.lastId), ...message }))));
  }

  handshake() {
    this.clientId = undefined;
    this.send({ channel: "/meta/handshake", version: "1.0", supportedConnectionTypes: ["websocket"] });
  }

  connect() {
    this.send({ channel: "/meta/connect", clientId: this.clientId, connectionType: "websocket" });
  }

  take(message) {
    switch (message.channel) {
      case "/meta/handshake":
        if (!message.successful) return this.refused(message);
        this.clientId = message.clientId;
        this.delay = 1000;
        this.send(...this.channels.map((subscription) =>
          ({ channel: "/meta/subscribe", clientId: this.clientId, subscription })));
        return this.connect();
      case "/meta/connect":
        if (message.successful) return this.connect();
        return message.advice?.reconnect === "handshake" ? this.handshake() : this.refused(message);
      case "/meta/subscribe":
        return message.successful ? this.onState("open", "open") : this.refused(message);
      default:
        if ("data" in message) this.onMessage({ channel: message.channel.slice(1), body: message.data });
    }
  }

  refused(message) {
    this.onState("failed", message.error ?? "refused");
    if (message.advice?.reconnect === "none" || message.channel === "/meta/subscribe") this.close();
  }

  again() {
    if (this.closed) return;
    this.onState("waiting", "reconnecting");
    this.timer = setTimeout(() => this.open(), this.delay);
    this.delay = Math.min(this.delay * 2, 30_000);
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    if (this.clientId) this.send({ channel: "/meta/disconnect", clientId: this.clientId });
    this.socket.close();
  }
}

/** A filter in Bayeux' words; undefined if it has none for it. */
function bayeuxChannels(filter) {
  const segments = filter.split("/");
  const last = segments.pop();
  if (segments.some((segment) => segment === "*" || segment === "")) return undefined;
  const above = segments.map((segment) => `/${segment}`).join("");
  if (last === "#") return above ? [above, `${above}/**`] : ["/**"];
  return last ? [`${above}/${last}`] : undefined;
}

let total = 0;
let thisSecond = 0;
const seconds = new Array(60).fill(0);
let waiting = [];

function show(over, message) {
  total += 1;
  thisSecond += 1;
  waiting.push({ over, at: new Date(), ...message });
  // At a high rate only what will be seen is drawn, once per frame.
  if (waiting.length > MAX_SHOWN) waiting = waiting.slice(-MAX_SHOWN);
  if (waiting.length === 1) requestAnimationFrame(draw);
}

function draw() {
  const list = byId("messages");
  const items = waiting.map(({ over, at, channel, body, kind }) => {
    const item = element("li");
    const time = element("time", "", at.toLocaleTimeString());
    time.dateTime = at.toISOString();
    const text = typeof body === "string" ? body : JSON.stringify(body);
    item.append(time, element("span", "over", over), element("span", "name", channel + (kind ? ` · ${kind}` : "")),
      element("pre", "", text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)} …` : text));
    return item;
  });
  waiting = [];
  list.prepend(...items.reverse());
  while (list.children.length > MAX_SHOWN) list.lastElementChild.remove();
  byId("empty").hidden = true;
  byId("total").textContent = total.toLocaleString();
}

function showHost(body) {
  if (typeof body !== "object" || body === null) return;
  byId("host").hidden = false;
  byId("host-time").textContent = `Last at ${new Date().toLocaleTimeString()}.`;
  const figures = [];
  const collect = (value, path) => {
    if (value !== null && typeof value === "object" && !(JSON.isRawJSON?.(value))) {
      Object.entries(value).forEach(([key, inner]) => collect(inner, path ? `${path} ${key}` : key));
    } else if (figures.length < 60) {
      const figure = element("div");
      figure.append(element("dt", "", path.replaceAll("_", " ")), element("dd", "", shown(value)));
      figures.push(figure);
    }
  };
  collect(body, "");
  byId("host-figures").replaceChildren(...figures);
}

function shown(value) {
  const number = Number(JSON.isRawJSON?.(value) ? value.rawJSON : value);
  if (typeof value === "string" || typeof value === "boolean" || !Number.isFinite(number)) return String(value);
  return number.toLocaleString(undefined, { maximumFractionDigits: 2 });
}

setInterval(() => {
  seconds.push(thisSecond);
  seconds.shift();
  byId("rate").textContent = thisSecond.toLocaleString();
  thisSecond = 0;
  const most = Math.max(1, ...seconds);
  const points = seconds.map((count, second) => `${(second * 60) / 59},${19 - (count / most) * 18}`);
  byId("graph").firstElementChild.setAttribute("points", points.join(" "));
}, 1000);

byId("clear").addEventListener("click", () => {
  byId("messages").replaceChildren();
  byId("empty").hidden = false;
  total = 0;
  byId("total").textContent = "0";
});

const open = {};

function state(name) {
  return (kind, text) => {
    const output = byId(`${name}-state`);
    output.className = `state ${kind}`;
    if (output.textContent !== text) {
      output.textContent = text;
      byId("announce").textContent = `${name === "sse" ? "Server-Sent Events" : "Bayeux"}: ${text}`;
    }
  };
}

function stop() {
  for (const name of ["sse", "bayeux"]) {
    open[name]?.close();
    delete open[name];
    state(name)("", "off");
  }
}

function listen() {
  const filter = byId("filter").value.trim();
  stop();
  if (!filter) return;
  const wantsHost = ["#", "**", HOST_CHANNEL, "host/*", "host/**", "host/#"].includes(filter);
  if (byId("over-sse").checked) {
    open.sse = new Events(filter, {
      onState: state("sse"),
      onMessage: (message) => {
        if (message.channel === HOST_CHANNEL) showHost(message.body);
        if (message.channel !== HOST_CHANNEL || wantsHost) show("SSE", message);
      },
    });
  }
  if (byId("over-bayeux").checked) {
    const channels = bayeuxChannels(filter);
    if (channels) {
      open.bayeux = new Bayeux(channels, {
        onState: state("bayeux"),
        onMessage: (message) => {
          if (message.channel === HOST_CHANNEL) showHost(message.body);
          show("Bayeux", message);
        },
      });
    } else {
      state("bayeux")("failed", "has no words for this filter");
    }
  }
}

byId("listen").addEventListener("submit", (event) => {
  event.preventDefault();
  listen();
});
byId("over-sse").addEventListener("change", listen);
addEventListener("pagehide", stop);
addEventListener("pageshow", ({ persisted }) => persisted && listen());
byId("over-bayeux").addEventListener("change", listen);

function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

byId("publish").addEventListener("submit", async (event) => {
  event.preventDefault();
  const [channel, data] = [byId("channel").value.trim(), byId("data").value];
  const receipt = byId("receipt");
  receipt.className = "help";
  try {
    const answer = await fetch(`/v1/publish/${channel.split("/").map(encodeURIComponent).join("/")}`, {
      method: "POST",
      headers: { "Content-Type": isJson(data) ? "application/json" : "text/plain;charset=utf-8" },
      body: data,
    });
    const said = await answer.json();
    receipt.classList.toggle("failed", !answer.ok);
    receipt.textContent = answer.ok
      ? `${said.id ?? "not recorded"}, ${said.receivers} ${said.receivers === 1 ? "receiver" : "receivers"}`
      : said.detail ?? answer.statusText;
  } catch (error) {
    receipt.classList.add("failed");
    receipt.textContent = `not sent: ${error.message}`;
  }
});

const { origin, host, hostname } = location;
const socket = `${location.protocol === "https:" ? "wss" : "ws"}://${host}`;
const SNIPPETS = [
  ["curl", `# listen\ncurl -N ${origin}/sse/demo\n\n# publish\ncurl -d '{"hello":"world"}' -H 'Content-Type: application/json' ${origin}/v1/publish/demo`],
  ["EventSource", `const events = new EventSource("${origin}/sse/demo");\nevents.onmessage = ({ data, lastEventId }) => console.log(lastEventId, data);`],
  ["CometD", `import { CometD } from "cometd";\n\nconst cometd = new CometD();\ncometd.configure({ url: "${origin}/cometd" });\ncometd.handshake((reply) => {\n  if (!reply.successful) return;\n  cometd.subscribe("/demo", ({ data }) => console.log(data));\n  cometd.publish("/demo", { hello: "world" });\n});`],
  ["MQTT.js", `import mqtt from "mqtt";\n\n// In a browser; from Node also mqtt://${hostname}:1883\nconst client = mqtt.connect("${socket}/mqtt");\nclient.on("connect", () => client.subscribe("demo"));\nclient.on("message", (topic, payload) => console.log(topic, payload.toString()));\nclient.publish("demo", '{"hello":"world"}');`],
];

for (const [name, code] of SNIPPETS) {
  const block = element("div");
  const head = element("div", "row spread");
  const copy = element("button", "quiet", "Copy");
  copy.type = "button";
  copy.setAttribute("aria-label", `Copy the lines for ${name}`);
  const pre = element("pre");
  pre.tabIndex = 0;
  pre.append(element("code", "", code));
  copy.addEventListener("click", async () => {
    copy.textContent = (await copied(code, pre)) ? "Copied" : "Selected";
    byId("announce").textContent = `${name}: ${copy.textContent}`;
    setTimeout(() => { copy.textContent = "Copy"; }, 2000);
  });
  head.append(element("h3", "", name), copy);
  block.append(head, pre);
  byId("snippets").append(block);
}

/** Puts text on the clipboard; where the browser keeps that for secure origins, selects it instead. */
async function copied(text, pre) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    getSelection().selectAllChildren(pre);
    return false;
  }
}

listen();

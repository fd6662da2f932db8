// The page at `/`: listens over Server-Sent Events and Bayeux, publishes over HTTP. What comes from the broker is shown as
// text, never as markup.

const MAX_SHOWN = 100;
const GRAPH_POINTS = 60;
const SVG = "http://www.w3.org/2000/svg";
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

/** A line of the last so many values, drawn from the right; the scale grows with the highest. */
class Graph {
  constructor(label, floor = 1) {
    this.floor = floor;
    this.values = new Array(GRAPH_POINTS).fill(undefined);
    this.svg = document.createElementNS(SVG, "svg");
    this.area = document.createElementNS(SVG, "polygon");
    this.line = document.createElementNS(SVG, "polyline");
    this.svg.setAttribute("viewBox", `0 0 ${GRAPH_POINTS - 1} 20`);
    this.svg.setAttribute("preserveAspectRatio", "none");
    this.svg.setAttribute("role", "img");
    this.svg.setAttribute("aria-label", label);
    this.svg.append(this.area, this.line);
  }

  push(value) {
    this.values.shift();
    this.values.push(value);
    const most = Math.max(this.floor, ...this.values.filter((known) => known !== undefined));
    const points = this.values
      .map((known, at) => known === undefined ? undefined : `${at},${19 - (known / most) * 18}`)
      .filter((point) => point !== undefined);
    this.line.setAttribute("points", points.join(" "));
    const first = GRAPH_POINTS - points.length;
    this.area.setAttribute("points", `${first},20 ${points.join(" ")} ${GRAPH_POINTS - 1},20`);
  }
}

const totals = { SSE: 0, Bayeux: 0 };
let thisSecond = 0;
let waiting = [];

function show(over, message) {
  totals[over] += 1;
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
    const time = element("time", "", clock(at));
    time.dateTime = at.toISOString();
    const text = typeof body === "string" ? body : JSON.stringify(body);
    item.append(time, element("span", `over ${over.toLowerCase()}`, over), element("span", "name", channel + (kind ? ` · ${kind}` : "")),
      element("pre", "", text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)} …` : text));
    return item;
  });
  waiting = [];
  list.prepend(...items.reverse());
  while (list.children.length > MAX_SHOWN) list.lastElementChild.remove();
  byId("empty").hidden = true;
  showTotals();
}

function showTotals() {
  byId("total-sse").textContent = totals.SSE.toLocaleString();
  byId("total-bayeux").textContent = totals.Bayeux.toLocaleString();
}

function clock(at) {
  return at.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
}

/** A member of a parsed message as a number; `undefined` if it is none. */
function figure(body, ...path) {
  const value = path.reduce((inner, name) => inner?.[name], body);
  const number = Number(JSON.isRawJSON?.(value) ? value.rawJSON : value);
  return value === undefined || value === null || !Number.isFinite(number) ? undefined : number;
}

/** How fast a counter of the host rises, per second of its own clock. */
function rise(now, before, ...path) {
  const seconds = figure(now, "uptime_secs") - figure(before, "uptime_secs");
  const more = figure(now, ...path) - figure(before, ...path);
  return seconds > 0 && more >= 0 ? more / seconds : undefined;
}

function busy(now, before) {
  const used = figure(now, "cpu", "busy_ticks") - figure(before, "cpu", "busy_ticks");
  const idle = figure(now, "cpu", "idle_ticks") - figure(before, "cpu", "idle_ticks");
  return used + idle > 0 ? (100 * used) / (used + idle) : undefined;
}

function inBytes(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = bytes < 1000 ? 0 : Math.min(units.length - 1, Math.floor(Math.log10(bytes) / 3));
  return `${(bytes / 1000 ** power).toFixed(power && bytes / 1000 ** power < 10 ? 1 : 0)} ${units[power]}`;
}

const percent = (value) => `${value.toFixed(value < 10 ? 1 : 0)} %`;
const perSecond = (value) => `${inBytes(value)}/s`;

// What is drawn of the host's messages: a name, the least full scale, the value, how it is written, and what stands below it.
const TILES = [
  ["CPU", 100, busy, percent, (now) => `load ${["1m", "5m", "15m"].map((span) => figure(now, "load", span)?.toFixed(2) ?? "?").join(" · ")}`],
  ["Memory", 100, (now) => figure(now, "memory", "used_percent"), percent, (now) => {
    const [total, free] = [figure(now, "memory", "total_kib"), figure(now, "memory", "available_kib")];
    return total === undefined || free === undefined ? "" : `${inBytes((total - free) * 1024)} of ${inBytes(total * 1024)}`;
  }],
  ["Network in", 1000, (now, before) => rise(now, before, "network", "received_bytes"), perSecond,
    (now) => `${inBytes(figure(now, "network", "received_bytes") ?? 0)} since start`],
  ["Network out", 1000, (now, before) => rise(now, before, "network", "sent_bytes"), perSecond,
    (now) => `${inBytes(figure(now, "network", "sent_bytes") ?? 0)} since start`],
].map(([name, floor, value, write, below]) => {
  const tile = element("div");
  const output = element("dd", "", "–");
  const note = element("dd", "note");
  const picture = element("dd", "picture");
  const graph = new Graph(`${name}, the last ${GRAPH_POINTS} messages`, floor);
  picture.append(graph.svg);
  tile.append(element("dt", "", name), output, note, picture);
  byId("host-tiles").append(tile);
  return (now, before) => {
    const current = value(now, before);
    output.textContent = current === undefined ? "–" : write(current);
    note.textContent = below(now);
    if (current !== undefined) graph.push(current);
  };
});

let lastHost;

function showHost(body) {
  if (typeof body !== "object" || body === null) return;
  byId("host").hidden = false;
  byId("host-name").textContent = typeof body.host === "string" ? body.host : "";
  byId("host-time").textContent = `at ${clock(new Date())}`;
  // Differences are taken between two messages of one machine only.
  const before = lastHost?.host === body.host ? lastHost : undefined;
  TILES.forEach((update) => update(body, before));
  lastHost = body;
  const figures = [];
  const collect = (value, path) => {
    if (value !== null && typeof value === "object" && !(JSON.isRawJSON?.(value))) {
      Object.entries(value).forEach(([key, inner]) => collect(inner, path ? `${path} ${key}` : key));
    } else if (figures.length < 60) {
      const entry = element("div");
      entry.append(element("dt", "", path.replaceAll("_", " ")), element("dd", "", shown(value)));
      figures.push(entry);
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

const rate = new Graph("Messages per second over the last minute", 4);
byId("graph").append(rate.svg);
setInterval(() => {
  rate.push(thisSecond);
  byId("rate").textContent = thisSecond.toLocaleString();
  thisSecond = 0;
}, 1000);

byId("clear").addEventListener("click", () => {
  byId("messages").replaceChildren();
  byId("empty").hidden = false;
  totals.SSE = totals.Bayeux = 0;
  showTotals();
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

function inPath(channel) {
  return channel.split("/").map(encodeURIComponent).join("/");
}

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
    const answer = await fetch(`/v1/publish/${inPath(channel)}`, {
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
// The lines for the channel that the form publishes to.
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

// In a browser; from Node also mqtt://${hostname}:1883
const client = mqtt.connect("${socket}/mqtt");
client.on("message", (topic, payload) => console.log(topic, payload.toString()));
client.on("connect", () => {
  client.subscribe(${JSON.stringify(channel)});
  client.publish(${JSON.stringify(channel)}, '{"hello":"world"}');
});`,
};
let snippet = "curl";

function showSnippet() {
  const channel = byId("channel").value.trim() || "demo";
  byId("snippet").firstElementChild.textContent = SNIPPETS[snippet](channel);
  byId("snippet").setAttribute("aria-labelledby", `tab-${snippet}`);
  byId("copy").setAttribute("aria-label", `Copy the lines for ${snippet}`);
  for (const tab of byId("snippet-tabs").children) {
    const chosen = tab.textContent === snippet;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
  }
}

for (const name of Object.keys(SNIPPETS)) {
  const tab = element("button", "tab", name);
  tab.type = "button";
  tab.id = `tab-${name}`;
  tab.setAttribute("role", "tab");
  tab.setAttribute("aria-controls", "snippet");
  tab.addEventListener("click", () => {
    snippet = name;
    showSnippet();
  });
  tab.addEventListener("keydown", ({ key }) => {
    const next = { ArrowRight: tab.nextElementSibling, ArrowLeft: tab.previousElementSibling }[key];
    next?.click();
    next?.focus();
  });
  byId("snippet-tabs").append(tab);
}
byId("channel").addEventListener("input", showSnippet);
byId("copy").addEventListener("click", async () => {
  const said = (await copied(byId("snippet").textContent, byId("snippet"))) ? "Copied" : "Selected";
  byId("copy").textContent = said;
  byId("announce").textContent = `${snippet}: ${said}`;
  setTimeout(() => { byId("copy").textContent = "Copy"; }, 2000);
});
showSnippet();

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

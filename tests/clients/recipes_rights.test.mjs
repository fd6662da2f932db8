// examples/recipes with rights: tokens over MQTT and Bayeux that expire and are renewed, and a cookie from another origin.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import http from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import mqtt from "mqtt";
import { chromium } from "playwright-core";
import { tokenExtension } from "../../examples/recipes/cometd-token.mjs";
import { connect } from "../../examples/recipes/mqtt-jwt.mjs";
import { publish } from "../../examples/recipes/publish.mjs";
import { connectCometd, disconnectCometd, subscribeCometd } from "./stock.mjs";
import { Cuttable, ROOT, startServer, until } from "./support.mjs";

const SECRET = "a secret of more than thirty-two bytes, for tests";

/** A token for `sub` that lives so many seconds. */
function token(sub, seconds, { secret = SECRET } = {}) {
    const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const claims = { iss: "recipes", sub, exp: Math.floor(Date.now() / 1000) + seconds };
    const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
    return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}

let server;
let folder;
let pages;
before(async () => {
    // Another host name is another site to the browser, and here another origin is enough.
    const page = await readFile(path.join(ROOT, "examples/recipes/eventsource-cookie.html"));
    pages = http.createServer((_, response) => response.writeHead(200, { "Content-Type": "text/html" }).end(page));
    pages.listen(0, "127.0.0.1");
    await once(pages, "listening");
    folder = await mkdtemp(path.join(tmpdir(), "fanwire-"));
    const config = path.join(folder, "fanwire.toml");
    await writeFile(config, `
[server]
allowed_origins = ["http://127.0.0.1:${pages.address().port}"]
[auth]
cookie = "fanwire"
[[issuers]]
iss = "recipes"
algorithms = ["HS256"]
secret = "${SECRET}"
leeway = "0s"
rights = [{ actions = ["publish", "subscribe", "history"], channels = ["orders/{user}/#"] }]
`);
    server = await startServer("--config", config);
});
after(async () => {
    pages?.close();
    pages?.closeAllConnections();
    await server?.kill();
    await rm(folder, { recursive: true, force: true });
});

const send = (channel, data) => publish(server.http, channel, data, { token: token("ann", 60) });

test("MQTT.js gets a new token when the old one expires, and what was missed", { timeout: 110_000 }, async () => {
    let asked = 0;
    const client = await connect(mqtt, server.mqtt, async () => token("ann", (asked += 1) === 1 ? 3 : 600));
    const received = [];
    let connects = 0;
    client.on("connect", () => (connects += 1));
    client.on("message", (topic, payload) => received.push([topic, payload.toString()]));
    client.on("error", () => {});
    await until("the connection", () => connects === 1);
    const [granted] = await client.subscribeAsync("orders/ann/#", { qos: 1 });
    assert.equal(granted.qos, 1);
    await assert.rejects(client.subscribeAsync("orders/bob/#", { qos: 1 }));
    await send("orders/ann/1", 1);
    await until("the first message", () => received.length === 1);
    await once(client, "close");
    await send("orders/ann/2", 2);
    await until("the second one", () => received.length === 2, { within: 20_000 });
    assert.deepEqual(received, [["orders/ann/1", "1"], ["orders/ann/2", "2"]]);
    assert.ok(asked >= 2 && connects >= 2, `${asked} tokens, ${connects} connections`);
    await client.endAsync();
});

test("CometD shakes hands again with a new token when the old one expires", { timeout: 110_000 }, async () => {
    for (const transport of ["long-polling", "websocket"]) {
        let asked = 0;
        const extension = tokenExtension(() => token("ann", (asked += 1) === 1 ? 3 : 600));
        const client = await connectCometd(server, transport, { extensions: [["token", extension]] });
        const received = [];
        const subscribe = () => client.subscribe("/orders/ann/*", (message) => received.push(message.data));
        let handshakes = 0;
        client.addListener("/meta/handshake", (reply) => {
            if (reply.successful) {
                handshakes += 1;
                subscribe();
            }
        });
        subscribe();
        await assert.rejects(subscribeCometd(client, "/orders/bob/*", () => {}), /403/);
        await send("orders/ann/3", 3);
        await until("the first message", () => received.includes(3));
        await until("another handshake", () => handshakes === 1, { within: 20_000 });
        await until("a message after it", async () => {
            await send("orders/ann/4", 4);
            return received.includes(4);
        });
        assert.ok(asked >= 2, transport);
        await disconnectCometd(client);
    }
    const stranger = tokenExtension(() => token("ann", 60, { secret: "another secret of more than thirty-two bytes" }));
    await assert.rejects(connectCometd(server, "long-polling", { extensions: [["token", stranger]] }), /403/);
});

test("a page of another origin listens with a cookie, resumes with it, and not without", { timeout: 110_000 }, async () => {
    const browser = await chromium.launch({
        executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
        args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
    });
    try {
        const proxy = await Cuttable.to(server.authority);
        const origin = `http://127.0.0.1:${pages.address().port}`;
        const target = (channel) => `${origin}/?url=${encodeURIComponent(`http://${proxy.authority}/sse/${channel}`)}`;
        const context = await browser.newContext();
        // Without: refused for good, as an EventSource takes any error.
        const anonymous = await context.newPage();
        await anonymous.goto(target("orders/ann/**"));
        await anonymous.locator("#state", { hasText: "refused" }).waitFor();

        await context.addCookies([{ name: "fanwire", value: token("ann", 600), url: origin, httpOnly: true }]);
        const page = await context.newPage();
        await page.goto(target("orders/ann/**?format=raw"));
        await page.locator("#state", { hasText: "open" }).waitFor();
        for (let n = 5; n < 8; n += 1) {
            await send("orders/ann/page", n);
            await page.locator("#messages li", { hasText: new RegExp(`^${n}$`) }).waitFor();
            proxy.cut();
        }
        assert.deepEqual(await page.locator("#messages li").allTextContents(), ["5", "6", "7"]);
        const other = await context.newPage();
        await other.goto(target("orders/bob/**"));
        await other.locator("#state", { hasText: "refused" }).waitFor();
        await proxy.close();
    } finally {
        await browser.close();
    }
});

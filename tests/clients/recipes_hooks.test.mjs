// examples/recipes: backends of Centrifugo's proxy and of Pusher's webhooks, behind a real server, as they are.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import { createRequire, register } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { connectMqtt } from "./stock.mjs";
import { ROOT, startServer, until } from "./support.mjs";

const SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

// The recipes find their package where this folder's are.
const found = createRequire(import.meta.url).resolve("standardwebhooks");
const hook = `export const resolve = (name, context, next) =>
    next(name === "standardwebhooks" ? ${JSON.stringify(`file://${found}`)} : name, context)`;
register(`data:text/javascript,${encodeURIComponent(hook)}`);
const recipe = (name) => import(path.join(ROOT, "examples/recipes", name));

let folder;
before(() => (folder = mkdtempSync(path.join(tmpdir(), "recipes-"))));
after(() => rmSync(folder, { recursive: true }));

async function listening(server) {
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return `http://127.0.0.1:${server.address().port}`;
}

/** A backend that answers by path, and what it was asked. */
async function backend(answers) {
    const requests = [];
    const server = http.createServer(async (request, response) => {
        let body = "";
        for await (const piece of request) body += piece;
        requests.push({ url: request.url, headers: request.headers, body });
        const answer = answers(request.url, JSON.parse(body));
        response.writeHead(answer === undefined ? 204 : 200, { "Content-Type": "application/json" });
        response.end(JSON.stringify(answer));
    });
    return { url: await listening(server), requests, close: () => (server.close(), server.closeAllConnections()) };
}

async function withHook(adapter, rest) {
    const url = await listening(adapter);
    const file = path.join(folder, "hook.toml");
    writeFileSync(file, `[[gateway.webhooks]]\nid = "recipe"\nurl = "${url}/"\nsecret = "${SECRET}"\n${rest}\n`);
    const server = await startServer("--config", file);
    const close = async () => {
        await server.kill();
        adapter.close();
        adapter.closeAllConnections();
    };
    return { server, close };
}

test("a backend of Centrifugo's proxy decides as it did", async () => {
    const { adapter } = await recipe("from-centrifugo.mjs");
    const app = await backend((url, asked) => {
        switch (url) {
            case "/connect":
                if (asked.data.token !== "ann's") return { disconnect: { code: 4501, reason: "unauthorized" } };
                return { result: { user: "ann", channels: ["inbox/ann"], data: { hello: 1 }, meta: { plan: "pro" } } };
            case "/subscribe":
                return asked.channel === "secret" ? { error: { code: 103, message: "permission denied" } } : { result: {} };
            default:
                return { result: { data: { ...asked.data, by: asked.user } } };
        }
    });
    const proxied = adapter({ secret: SECRET, connect: `${app.url}/connect`, subscribe: `${app.url}/subscribe`, publish: `${app.url}/publish` });
    const { server, close } = await withHook(proxied, 'events = ["connect", "subscribe", "publish"]');
    try {
        await assert.rejects(connectMqtt(server, "tcp", { protocolVersion: 5, username: "x", password: "bob's", reconnectPeriod: 0 }));
        const client = await connectMqtt(server, "tcp", { protocolVersion: 5, username: "x", password: "ann's" });
        const got = [];
        client.on("message", (topic, payload) => got.push([topic, JSON.parse(payload)]));
        await client.subscribeAsync("chat/1", { qos: 1 });
        const refused = await client.subscribeAsync("secret", { qos: 1 }).catch((error) => error);
        assert.ok(refused instanceof Error || refused[0].qos >= 0x80, "permission denied");
        const properties = { contentType: "application/json" };
        await client.publishAsync("chat/1", '{"text":"hi"}', { qos: 1, properties });
        // Without a key it is nobody's own publish, and asked about.
        await server.publish("inbox/ann", '{"n":1}');
        await until("both", () => got.length === 2);
        assert.deepEqual(got, [["chat/1", { text: "hi", by: "ann" }], ["inbox/ann", { n: 1, by: "" }]]);
        const subscribe = JSON.parse(app.requests.find(({ url }) => url === "/subscribe").body);
        assert.deepEqual([subscribe.user, subscribe.channel, subscribe.encoding], ["ann", "chat/1", "json"]);
        await client.endAsync();
    } finally {
        await close();
        app.close();
    }
});

test("a backend that hears Pusher's webhooks hears of channels as it did", async () => {
    const { adapter } = await recipe("from-pusher.mjs");
    const app = await backend(() => undefined);
    const pusher = { key: "a key", pusherSecret: "a secret" };
    const hook = adapter({ secret: SECRET, url: `${app.url}/pusher`, ...pusher });
    const { server, close } = await withHook(hook, 'events = ["occupied", "vacated", "message"]\nchannels = ["presence/**"]\nbatch = 100');
    const events = () => app.requests.flatMap(({ body }) => JSON.parse(body).events);
    try {
        const client = await connectMqtt(server, "tcp");
        await client.subscribeAsync("presence/one", { qos: 1 });
        await until("it is occupied", () => events().length === 1);
        await server.publish("presence/one", '{"x":1}', { query: "?event=client-moved" });
        await server.publish("presence/one", '{"x":2}', { query: "?event=other" });
        await client.endAsync();
        await until("all of it", () => events().length === 3, { within: 15_000 });
        const channel = "presence/one";
        assert.deepEqual(events(), [
            { name: "channel_occupied", channel },
            { name: "client_event", channel, event: "client-moved", data: '{"x":1}' },
            { name: "channel_vacated", channel },
        ]);
        for (const { headers, body } of app.requests) {
            assert.equal(headers["x-pusher-key"], pusher.key);
            assert.equal(headers["x-pusher-signature"], createHmac("sha256", pusher.pusherSecret).update(body).digest("hex"));
            assert.ok(Math.abs(Date.now() - JSON.parse(body).time_ms) < 60_000);
        }
    } finally {
        await close();
        app.close();
    }
});

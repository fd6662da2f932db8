// Webhooks against the reference library, the npm package `standardwebhooks`: the handler of docs/webhooks.md.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { Webhook } from "standardwebhooks";
import { connectMqtt } from "./stock.mjs";
import { startServer, until } from "./support.mjs";

const SECRETS = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", `whsec_${Buffer.alloc(32, 7).toString("base64")}`];
const EVENTS = ["connect", "subscribe", "publish", "disconnect", "occupied", "message", "broker.started"];

let backend, server, folder;
const events = [];
const unsigned = [];

before(async () => {
    backend = http.createServer(async (request, response) => {
        let body = "";
        for await (const piece of request) body += piece;
        const verified = [];
        for (const secret of SECRETS) {
            try {
                verified.push(new Webhook(secret).verify(body, request.headers));
            } catch (error) {
                unsigned.push(`${error.message}: ${body}`);
            }
        }
        const event = JSON.parse(body);
        events.push(...(Array.isArray(event) ? event : [event]));
        if (event.type === "publish" && event.data.data?.text === "damn") {
            const answer = JSON.stringify({ replace: { data: { text: "***" } } });
            return response.writeHead(200, { "content-type": "application/json" }).end(answer);
        }
        response.writeHead(verified.length === SECRETS.length ? 204 : 401).end();
    });
    await new Promise((resolve) => backend.listen(0, "127.0.0.1", resolve));
    folder = mkdtempSync(path.join(tmpdir(), "webhooks-"));
    const hook = (id, wanted, batch) => `[[gateway.webhooks]]
id = "${id}"
url = "http://127.0.0.1:${backend.address().port}/hooks"
secret = ${JSON.stringify(SECRETS)}
channels = ["chat/**"]
events = ${JSON.stringify(wanted)}
batch = ${batch}
`;
    const file = path.join(folder, "fanwire.toml");
    const batched = ["occupied", "message", "broker.started"];
    writeFileSync(file, hook("one", EVENTS.filter((name) => !batched.includes(name)), 1) + hook("several", batched, 20));
    server = await startServer("--config", file);
});

after(async () => {
    await server?.terminate();
    backend?.close();
    backend?.closeAllConnections();
    if (folder) rmSync(folder, { recursive: true });
});

test("every request is verified by the reference library, by each secret of two", async () => {
    const client = await connectMqtt(server, "tcp");
    await client.subscribeAsync("chat/1", { qos: 1 });
    const got = [];
    client.on("message", (_, payload) => got.push(payload.toString()));
    await client.publishAsync("chat/1", JSON.stringify({ text: "hello" }), { qos: 1 });
    await client.publishAsync("chat/1", JSON.stringify({ text: "damn" }), { qos: 1 });
    await until("both messages", () => got.length === 2);
    assert.deepEqual(got.map((text) => JSON.parse(text).text), ["hello", "***"]);
    await client.endAsync();
    const kinds = () => new Set(events.map((event) => event.type));
    await until(() => `all kinds, of ${[...kinds()]}`, () => EVENTS.every((kind) => kinds().has(kind)));
    assert.deepEqual(unsigned, []);
    const seqs = events.filter((event) => event.data.seq).map((event) => event.data.seq);
    assert.deepEqual(seqs, [1, 2, 3, 4, 5]);
});

test("MQTT over a WebSocket is decided about with what its upgrade says", async () => {
    const before = events.length;
    const options = { protocolVersion: 5, clientId: "browser-1", wsOptions: { headers: { Cookie: "session=1", Origin: server.http } } };
    const client = await connectMqtt(server, "ws", options);
    await client.subscribeAsync("chat/2", { qos: 1 });
    await client.publishAsync("chat/2", '{"text":"hi"}', { qos: 1 });
    await client.endAsync();
    const own = () => events.slice(before).filter(({ data }) => data.protocol === "mqtt");
    await until("its end", () => own().some(({ type }) => type === "disconnect"));
    assert.deepEqual(own().map(({ type }) => type), ["connect", "subscribe", "publish", "disconnect"]);
    const [connect] = own();
    assert.deepEqual([connect.data.client_id, connect.data.headers.cookie], ["browser-1", "session=1"]);
    for (const { data } of own()) assert.equal(data.transport, "websocket");
    assert.equal(new Set(own().map(({ data }) => data.connection)).size, 1);
    assert.deepEqual(unsigned, []);
});

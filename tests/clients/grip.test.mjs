// Holds and WebSocket-over-HTTP with the libraries that backends have: `@fanoutio/grip`, and `faas-grip` with the handler
// of a Lambda.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import {
    Channel,
    GripInstruct,
    HttpResponseFormat,
    Publisher,
    encodeWebSocketEvents,
    getWebSocketContextFromNodeReq,
    validateSig,
} from "@fanoutio/grip";
import { EventSource } from "eventsource";
import WebSocket from "ws";
import { startServer, until } from "./support.mjs";

const faasGrip = createRequire(import.meta.url)("faas-grip");
const KEY = "a secret of both sides";

let backend, server, folder;
const signatures = [];
const seen = [];

// An echo with a room, as the readme of @fanoutio/grip has it.
async function node(request, response) {
    const context = await getWebSocketContextFromNodeReq(request);
    if (context.isOpening()) {
        context.accept();
        context.subscribe("room");
        context.meta.user = "ann";
    }
    while (context.canRecv()) {
        const message = context.recv();
        if (message === null) {
            context.close();
            break;
        }
        seen.push([context.id, context.meta.user, message]);
        context.send(`echo: ${message}`);
    }
    response.writeHead(200, context.toHeaders());
    response.end(encodeWebSocketEvents(context.getOutgoingEvents()));
}

// The same as a Lambda behind an API gateway has it.
function lambda(event) {
    const socket = faasGrip.lambdaGetWebSocket(event);
    if (socket.isOpening()) {
        socket.accept();
        socket.subscribe("room");
    }
    while (socket.canRecv()) {
        const message = socket.recv();
        if (message === null) {
            socket.close();
            break;
        }
        socket.send(`echo: ${message}`);
    }
    return socket.toResponse();
}

// A client that is held on `news`: a stream behind the event that it has, or a response.
function hold(request, response) {
    const instruct = new GripInstruct();
    if (request.url.startsWith("/hold/poll")) {
        instruct.addChannel("polls");
        instruct.setHoldLongPoll(20);
        return response.writeHead(200, instruct.toHeaders({ "Content-Type": "text/plain", "X-Kept": "1" })).end("none");
    }
    const last = request.headers["last-event-id"];
    instruct.addChannel(new Channel("news", last));
    instruct.setHoldStream();
    instruct.setKeepAlive(":\n\n", 20);
    response.writeHead(200, instruct.toHeaders({ "Content-Type": "text/event-stream" })).end("retry: 10\n\n");
}

before(async () => {
    backend = http.createServer(async (request, response) => {
        signatures.push(await validateSig(request.headers["grip-sig"] ?? "", KEY));
        if (request.url.startsWith("/node")) return node(request, response);
        if (request.url.startsWith("/hold")) return hold(request, response);
        if (request.url.startsWith("/no")) return response.writeHead(403).end("not you");
        const pieces = [];
        for await (const piece of request) pieces.push(piece);
        const body = Buffer.concat(pieces).toString("base64");
        const answer = lambda({ httpMethod: request.method, headers: request.headers, body, isBase64Encoded: true });
        response.writeHead(answer.statusCode, answer.headers).end(Buffer.from(answer.body, "base64"));
    });
    await new Promise((resolve) => backend.listen(0, "127.0.0.1", resolve));
    folder = mkdtempSync(path.join(tmpdir(), "grip-"));
    const file = path.join(folder, "fanwire.toml");
    writeFileSync(
        file,
        `[[gateway.routes]]
id = "live"
dialect = "grip"
path = "/**"
origin = "http://127.0.0.1:${backend.address().port}"
sig_key = "${KEY}"
`,
    );
    server = await startServer("--config", file);
});

after(async () => {
    await server?.terminate();
    backend?.close();
    backend?.closeAllConnections();
    if (folder) rmSync(folder, { recursive: true });
});

// A client that keeps what it hears.
async function open(at) {
    const socket = new WebSocket(`${server.ws}${at}`);
    const heard = [];
    socket.on("message", (data) => heard.push(String(data)));
    const closed = new Promise((resolve) => socket.on("close", (code) => resolve(code)));
    await new Promise((resolve, reject) => socket.on("open", resolve).on("error", reject));
    return { socket, heard, closed };
}

for (const at of ["/node", "/lambda"]) {
    test(`an echo at ${at} with a room, and a clean close`, async () => {
        const { socket, heard, closed } = await open(at);
        for (let number = 0; number < 50; number++) socket.send(`${number}`);
        await until("all echoes", () => heard.length === 50);
        assert.deepEqual(heard, [...Array(50).keys()].map((number) => `echo: ${number}`));
        await server.publish("room", "to all", { type: "text/plain" });
        await until("what was published", () => heard.at(-1) === "to all");
        // The libraries close with code 0, which no frame may have.
        socket.close(1000);
        assert.equal(await closed, 1000);
    });
}

test("metadata comes back, and every request is signed", () => {
    assert.ok(seen.length >= 50);
    assert.equal(new Set(seen.map(([id]) => id)).size, 1);
    assert.ok(seen.every(([, user]) => user === "ann"));
    assert.ok(signatures.length > 0 && signatures.every((valid) => valid));
});

test("what the backend says instead reaches the client", async () => {
    const socket = new WebSocket(`${server.ws}/no`);
    const status = await new Promise((resolve) => {
        socket.on("unexpected-response", (_, response) => resolve(response.statusCode)).on("error", () => {});
    });
    assert.equal(status, 403);
    socket.terminate();
});

test("an EventSource gets all items of 4 kB and all batches once and in order, over a cut", async () => {
    const publisher = new Publisher({ control_uri: `${server.http}/grip` });
    const source = new EventSource(`${server.http}/hold/events`);
    const heard = [];
    source.onmessage = (event) => heard.push(event.data.split(" ")[0]);
    await new Promise((resolve) => (source.onopen = resolve));
    const news = (number, text) => `id: ${number}\ndata: ${number} ${text}\n\n`;
    const large = "x".repeat(4000);
    for (let number = 1; number <= 300; number++) {
        await publisher.publishHttpStream("news", news(number, large), `${number}`, number > 1 ? `${number - 1}` : undefined);
        await new Promise((resolve) => setTimeout(resolve, 10));
    }
    const { connections } = await (await fetch(`${server.http}/v1/connections`)).json();
    const held = connections.filter((connection) => connection.protocol === "grip");
    assert.deepEqual(held.map((connection) => connection.subscriptions), [["news"]]);
    const batches = async () => {
        for (let first = 301; first <= 1800; first += 100) {
            const items = [...Array(100).keys()].map((at) => ({
                channel: "news",
                id: `${first + at}`,
                "prev-id": `${first + at - 1}`,
                formats: { "http-stream": { content: news(first + at, "b") } },
            }));
            const response = await fetch(`${server.http}/grip/publish/`, { method: "POST", body: JSON.stringify({ items }) });
            assert.equal(response.status, 200);
        }
    };
    const cut = async () => {
        const response = await fetch(`${server.http}/v1/connections/${held[0].id}`, { method: "DELETE" });
        assert.ok(response.ok);
    };
    await Promise.all([batches(), cut()]);
    await until("everything", () => heard.length >= 1800);
    assert.deepEqual(heard, [...Array(1800).keys()].map((at) => `${at + 1}`));
    source.close();
});

test("a long poll is what is published", async () => {
    const publisher = new Publisher({ control_uri: `${server.http}/grip` });
    const polling = fetch(`${server.http}/hold/poll`);
    await until("a hold", async () => {
        const text = await (await fetch(`${server.http}/metrics`)).text();
        return /fanwire_grip_holds\{mode="response"\} 1/.test(text);
    });
    await publisher.publishHttpResponse("polls", new HttpResponseFormat({ code: 201, body: "news" }));
    const response = await polling;
    assert.deepEqual([response.status, response.headers.get("x-kept"), await response.text()], [201, "1", "news"]);
});

// Holds over HTTP/2: streams and responses that wait share a connection, and each gets its own.

import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import http2 from "node:http2";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { startServer, until } from "./support.mjs";

let backend, server, folder, session;

function hold(request, response) {
    const [, mode, channel] = request.url.split("/");
    const told = { "Grip-Hold": mode, "Grip-Channel": channel, "Content-Type": "text/plain", "X-Kept": "1" };
    if (mode === "stream") told["Grip-Keep-Alive"] = "kept\\n; format=cstring; timeout=1";
    if (mode === "response") told["Grip-Timeout"] = "5";
    response.writeHead(200, told).end("own\n");
}

before(async () => {
    backend = http.createServer(hold);
    await new Promise((resolve) => backend.listen(0, "127.0.0.1", resolve));
    folder = mkdtempSync(path.join(tmpdir(), "grip-"));
    const file = path.join(folder, "fanwire.toml");
    const origin = `http://127.0.0.1:${backend.address().port}`;
    writeFileSync(file, `[[gateway.routes]]\nid = "live"\ndialect = "grip"\npath = "/**"\norigin = "${origin}"\n`);
    server = await startServer("--config", file);
    session = http2.connect(server.http);
    await once(session, "connect");
    // Else one stream that is not read takes all that the connection may have.
    session.setLocalWindowSize(1 << 20);
});

after(async () => {
    session?.destroy();
    await server?.terminate();
    backend?.close();
    backend?.closeAllConnections();
    if (folder) rmSync(folder, { recursive: true });
});

/** One request on the connection that all share. */
function ask(at) {
    const stream = session.request({ ":path": at });
    const asked = { stream, text: "", isOver: false };
    stream.setEncoding("utf8");
    stream.on("data", (data) => (asked.text += data)).on("end", () => (asked.isOver = true)).on("error", () => {});
    asked.head = once(stream, "response").then(([headers]) => headers);
    return asked;
}

async function publish(...items) {
    const response = await fetch(`${server.http}/grip/publish/`, { method: "POST", body: JSON.stringify({ items }) });
    assert.equal(response.status, 200);
}

async function held(mode, count) {
    await until("the holds", async () => (await server.text("/metrics")).includes(`fanwire_grip_holds{mode="${mode}"} ${count}\n`));
}

test("many streams on one connection get what is theirs, in order", async () => {
    const streams = [...Array(50).keys()].map((at) => ask(`/stream/room-${at % 5}`));
    for (const stream of streams) {
        const headers = await stream.head;
        assert.equal(headers[":status"], 200);
        assert.equal(headers["x-kept"], "1");
        assert.ok(!Object.keys(headers).some((name) => name.startsWith("grip-")));
    }
    await held("stream", 50);
    for (let number = 0; number < 100; number++) {
        const item = (room) => ({ channel: `room-${room}`, formats: { "http-stream": { content: `${room}:${number}\n` } } });
        await publish(...[0, 1, 2, 3, 4].map(item));
    }
    const expected = (room) => `own\n${[...Array(100).keys()].map((number) => `${room}:${number}\n`).join("")}`;
    const without = (text) => text.replaceAll("kept\n", "");
    for (const [at, stream] of streams.entries()) {
        await until("all of it", () => without(stream.text).length >= expected(at % 5).length);
        assert.equal(without(stream.text), expected(at % 5));
    }
    await until("a sign of life", () => streams.every((stream) => stream.text.endsWith("kept\n")));
    // One that is cancelled is gone, and the others stay.
    streams[0].stream.close(http2.constants.NGHTTP2_CANCEL);
    await held("stream", 49);
    const close = (room) => ({ channel: `room-${room}`, formats: { "http-stream": { action: "close" } } });
    await publish(...[0, 1, 2, 3, 4].map(close));
    await until("the ends", () => streams.slice(1).every((stream) => stream.isOver));
    await held("stream", 0);
});

test("responses that wait are what is published, or in the end the origin's own", async () => {
    const responses = [...Array(20).keys()].map((at) => ask(`/response/${at === 0 ? "quiet" : "news"}`));
    await held("response", 20);
    await publish({ channel: "news", formats: { "http-response": { code: 201, headers: { "X-Item": "2" }, body: "news" } } });
    for (const response of responses.slice(1)) {
        const headers = await response.head;
        assert.deepEqual([headers[":status"], headers["x-kept"], headers["x-item"]], [201, "1", "2"]);
        await until("its end", () => response.isOver);
        assert.equal(response.text, "news");
    }
    assert.equal((await responses[0].head)[":status"], 200);
    await until("its end", () => responses[0].isOver);
    assert.equal(responses[0].text, "own\n");
    await held("response", 0);
});

test("a stream that its client does not read ends, and does not hold up its neighbours", async () => {
    const idle = session.request({ ":path": "/stream/flood" });
    await once(idle, "response");
    const reader = ask("/stream/flood");
    await reader.head;
    await held("stream", 2);
    const content = `${"x".repeat(99_999)}\n`;
    const ended = new Promise((resolve) => idle.on("close", resolve).on("error", () => {}));
    const length = () => reader.text.replaceAll("kept\n", "").length;
    for (let number = 1; number <= 60; number++) {
        await publish({ channel: "flood", formats: { "http-stream": { content } } });
        // As fast as one who reads can: faster, and it would be too slow as well.
        await until("the newest", () => length() >= 4 + number * content.length);
    }
    await until("all of it", () => length() === 4 + 60 * content.length);
    await held("stream", 1);
    idle.resume();
    await ended;
    reader.stream.close();
});

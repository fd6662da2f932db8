// Event streams read with `fetch`: @microsoft/fetch-event-source, and a reader that looks at the body alone.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { fetchEventSource } from "@microsoft/fetch-event-source";
import { Cuttable, startServer, until } from "./support.mjs";

// It is written for pages.
globalThis.window ??= globalThis;
globalThis.document ??= new EventTarget();

let server;
before(async () => (server = await startServer("--config", new URL("fetch_events.toml", import.meta.url).pathname)));
after(() => server?.kill());

/** Follows a stream until it is stopped, and keeps whatever it is told. */
function follow(url, options = {}) {
    const seen = { messages: [], opened: 0, errors: 0, closed: 0 };
    const stop = new AbortController();
    const done = fetchEventSource(url, {
        openWhenHidden: true,
        signal: stop.signal,
        onopen: async () => void (seen.opened += 1),
        onmessage: (message) => seen.messages.push(message),
        onerror: () => {
            seen.errors += 1;
            return 50;
        },
        onclose: () => {
            seen.closed += 1;
        },
        ...options,
    });
    return { seen, done, stop: () => stop.abort() };
}

const data = ({ seen }) => seen.messages.map((message) => message.data);

test("an opening, keep-alives and a goodbye are no messages", { timeout: 60_000 }, async () => {
    const stream = follow(`${server.http}/sse/fetch/quiet`);
    await until("the stream to open", () => stream.seen.opened === 1);
    // Several keep-alives: the file sets 200 ms.
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    assert.deepEqual(stream.seen.messages, []);
    await server.publish("fetch/quiet", "1");
    await until("a message", () => stream.seen.messages.length > 0);
    await new Promise((resolve) => setTimeout(resolve, 500));
    assert.deepEqual(data(stream), ["1"]);
    const [{ id }] = JSON.parse(await server.text("/v1/connections")).connections;
    await fetch(`${server.http}/v1/connections/${id}`, { method: "DELETE" });
    await stream.done;
    assert.deepEqual([data(stream), stream.seen.closed, stream.seen.errors], [["1"], 1, 0]);
});

test("a server that is killed did not end its streams", { timeout: 60_000 }, async () => {
    const doomed = await startServer();
    const proxy = await Cuttable.to(doomed.authority);
    const stream = follow(`http://${proxy.authority}/sse/fetch/killed`);
    const cut = assert.rejects(fetch(`${doomed.http}/sse/fetch/killed`).then((response) => response.text()), "the body is not whole");
    await until("the streams to open", async () =>
        stream.seen.opened === 1 && JSON.parse(await doomed.text("/v1/connections")).connections.length === 2);
    await doomed.kill();
    await cut;
    await until("it to come back", () => stream.seen.errors > 0);
    assert.equal(stream.seen.closed, 0);
    stream.stop();
    await stream.done;
    await proxy.close();
});

test("a stream that is cut before its first message misses nothing", { timeout: 60_000 }, async () => {
    const proxy = await Cuttable.to(server.authority);
    const stream = follow(`http://${proxy.authority}/sse/fetch/cut`);
    await until("the stream to open", () => stream.seen.opened === 1);
    // The line with the position is in the body, behind the head.
    await new Promise((resolve) => setTimeout(resolve, 200));
    for (let n = 1; n <= 3; n += 1) {
        proxy.cut();
        await server.publish("fetch/cut", String(n));
        await until(`message ${n}`, () => stream.seen.messages.length >= n);
    }
    assert.deepEqual(data(stream), ["1", "2", "3"]);
    stream.stop();
    await stream.done;
    await proxy.close();
});

test("a gap with nothing after it is told once, however often the stream is cut", { timeout: 60_000 }, async () => {
    const proxy = await Cuttable.to(server.authority);
    const stream = follow(`http://${proxy.authority}/sse/fetch/gap`, { headers: { "last-event-id": "elsewhere-7" } });
    await until("the gap", () => stream.seen.messages.length === 1);
    for (let opened = 2; opened <= 4; opened += 1) {
        proxy.cut();
        await until("it to be open again", () => stream.seen.opened >= opened);
    }
    await server.publish("fetch/gap", "1");
    await until("the message", () => stream.seen.messages.length > 1);
    assert.deepEqual(stream.seen.messages.map(({ event, data }) => event || data), ["gap", "1"]);
    stream.stop();
    await stream.done;
    await proxy.close();
});

test("a list of filters that fits no address is sent in a body, and resumed like any other", { timeout: 60_000 }, async () => {
    const proxy = await Cuttable.to(server.authority);
    const channels = Array.from({ length: 1_000 }, (_, n) => `fetch/list/${n}/${"x".repeat(50)}`);
    const stream = follow(`http://${proxy.authority}/sse`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ channels, format: "raw" }),
    });
    await until("the stream to open", () => stream.seen.opened === 1);
    for (const n of [0, 999]) {
        await server.publish(channels[n], String(n));
        await until("a message", () => data(stream).includes(String(n)));
        proxy.cut();
    }
    await until("it to be open again", () => stream.seen.opened === 3);
    assert.deepEqual(data(stream), ["0", "999"]);
    stream.stop();
    await stream.done;
    await proxy.close();
});

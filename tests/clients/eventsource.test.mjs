// The npm package `eventsource`: many channels on one stream, named events, resuming by id.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { EventSource } from "eventsource";
import { connectMqtt, openEvents } from "./stock.mjs";
import { Cuttable, startServer, until } from "./support.mjs";

let server;
before(async () => (server = await startServer()));
after(() => server?.kill());

function collect(source, type = "message") {
    const events = [];
    source.addEventListener(type, (event) => events.push(event));
    return events;
}

test("a payload of several lines arrives whole", async () => {
    const source = await openEvents(server, "/sse/lines");
    const events = collect(source);
    const payload = " leading space\nsecond\r\nthird\n";
    await server.publish("lines", payload, { type: "text/plain" });
    await until("the event", () => events.length === 1);
    // The standard's line ends are one: CR LF and LF are the same to the reader.
    assert.equal(events[0].data, payload.replaceAll("\r\n", "\n"));
    source.close();
});

test("a named event reaches its listener and no other", async () => {
    const source = await openEvents(server, "/sse/named");
    const named = collect(source, "price");
    const plain = collect(source);
    await server.publish("named", "1", { query: "?event=price" });
    await server.publish("named", "2");
    await until("the plain event", () => plain.length === 1);
    assert.deepEqual([named, plain].map((events) => events.map((event) => event.data)), [["1"], ["2"]]);
    source.close();
});

test("one stream carries several channels and wildcards, enveloped", async () => {
    const source = await openEvents(server, "/sse?channel=many/a&channel=many/b/*");
    const events = collect(source);
    for (const channel of ["many/a", "many/b/1", "many/c", "many/b/1/deep", "many/b/2"]) {
        await server.publish(channel, `{"in":"${channel}"}`);
    }
    await until("three events", () => events.length === 3);
    assert.deepEqual(events.map((event) => JSON.parse(event.data).channel), ["many/a", "many/b/1", "many/b/2"]);
    source.close();
});

test("cut streams resume by id: nothing is lost and nothing comes twice", { timeout: 60_000 }, async () => {
    const proxy = await Cuttable.to(server.authority);
    const source = await openEvents(server, "/sse/resume/**?format=json", { authority: proxy.authority });
    const events = collect(source);
    const gaps = collect(source, "gap");
    const total = 120;
    for (let n = 1; n <= total; n += 1) {
        await server.publish(`resume/${n % 3}`, String(n));
        if (n % 40 === 0) {
            proxy.cut();
        }
    }
    await until(() => `${events.length} events`, () => events.length >= total, { within: 30_000 });
    assert.deepEqual(events.map((event) => JSON.parse(event.data).data), Array.from({ length: total }, (_, n) => n + 1));
    assert.equal(gaps.length, 0);
    assert.ok(proxy.connections > 1, "the stream was cut");
    source.close();
    await proxy.close();
});

test("a first connection starts after the id it names", async () => {
    const first = await server.publish("from/id", "1");
    await server.publish("from/id", "2");
    await server.publish("from/id", "3");
    const source = await openEvents(server, `/sse/from/id?last_event_id=${first.id}`);
    const events = collect(source);
    await until("two events", () => events.length === 2);
    assert.deepEqual(events.map((event) => event.data), ["2", "3"]);
    source.close();
});

test("an id that the log no longer has is answered by a gap event", async () => {
    await server.publish("gone", "1");
    const source = new EventSource(`${server.http}/sse/gone?last_event_id=elsewhere-7`);
    const gaps = collect(source, "gap");
    await until("the gap event", () => gaps.length === 1);
    assert.equal(JSON.parse(gaps[0].data).requested, "elsewhere-7");
    source.close();
});

test("what MQTT retained is in the channel's history and reaches a stream by id", async () => {
    const before = await server.publish("kept/before", "0");
    const mqtt = await connectMqtt(server, "tcp");
    await mqtt.publishAsync("kept/state", '{"on":true}', { qos: 1, retain: true });
    const history = JSON.parse(await server.text("/v1/history/kept/state"));
    assert.deepEqual(history.messages.map((message) => message.data), [{ on: true }]);
    const source = await openEvents(server, `/sse/kept/state?last_event_id=${before.id}`);
    const events = collect(source);
    await until("the retained message", () => events.length === 1);
    assert.equal(events[0].data, '{"on":true}');
    assert.equal(events[0].lastEventId, history.messages[0].id);
    source.close();
    await mqtt.endAsync();
});

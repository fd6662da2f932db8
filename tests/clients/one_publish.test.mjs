// One publish reaches all: four kinds of subscriber on one channel, three kinds of publisher at the same time.

import assert from "node:assert/strict";
import { test } from "node:test";
import mqtt from "mqtt";
import { connectCometd, connectMqtt, disconnectCometd, openEvents, publishCometd, subscribeCometd } from "./stock.mjs";
import { startEmbedded, until } from "./support.mjs";
import { Tally } from "./tally.mjs";

const MESSAGES = 1000;
const PUBLISHERS = ["http", "mqtt", "bayeux"];
/** What a parser of numbers would change. */
const EXACT = '{"n":12345678901234567890,"x":1e400}';

test("each subscriber gets every message of every publisher once and in order", { timeout: 120_000 }, async () => {
    const server = await startEmbedded("race");
    const tallies = {};
    const tally = (name) => (tallies[name] = new Tally(name, PUBLISHERS));

    const embedded = tally("embedded");
    server.lines.on("line", (line) => embedded.take(JSON.parse(JSON.parse(line).payload)));
    const sse = tally("eventsource");
    const events = await openEvents(server, "/sse/race");
    events.addEventListener("message", ({ data }) => sse.take(JSON.parse(data)));
    const overMqtt = tally("mqtt");
    const device = await connectMqtt(server, "tcp");
    device.on("message", (_, payload) => overMqtt.take(JSON.parse(payload)));
    await device.subscribeAsync("race", { qos: 1 });
    const pages = [];
    for (const transport of ["websocket", "long-polling"]) {
        const overBayeux = tally(`cometd ${transport}`);
        const page = await connectCometd(server, transport);
        await subscribeCometd(page, "/race", ({ data }) => overBayeux.take(data));
        pages.push(page);
    }

    const publishers = {
        http: (n) => server.publish("race", JSON.stringify({ from: "http", n })),
        mqtt: (n) => device.publishAsync("race", JSON.stringify({ from: "mqtt", n }), { qos: 1 }),
        bayeux: (n) => publishCometd(pages[0], "/race", { from: "bayeux", n }),
    };
    await Promise.all(PUBLISHERS.map(async (name) => {
        for (let n = 1; n <= MESSAGES; n += 1) {
            await publishers[name](n);
        }
    }));

    const all = MESSAGES * PUBLISHERS.length;
    const counts = () => Object.values(tallies).map((one) => `${one.name} ${one.total()}`).join(", ");
    await until(() => `all of ${all}: ${counts()}`, () => Object.values(tallies).every((one) => one.total() >= all), { within: 60_000 });
    for (const one of Object.values(tallies)) {
        one.check(MESSAGES);
    }
    events.close();
    await device.endAsync();
    await Promise.all(pages.map(disconnectCometd));
    await server.kill();
});

test("numbers arrive as they were sent", { timeout: 30_000 }, async () => {
    const server = await startEmbedded("exact");
    const got = {};
    server.lines.on("line", (line) => (got.embedded = JSON.parse(line).payload));
    const events = await openEvents(server, "/sse/exact");
    events.addEventListener("message", ({ data }) => (got.sse = data));
    const device = await mqtt.connectAsync(`${server.ws}/mqtt`, { protocolVersion: 4 });
    device.on("message", (_, payload) => (got.mqtt = payload.toString()));
    await device.subscribeAsync("exact");
    // The client parses what it gets, so its socket is looked at instead.
    const page = await connectCometd(server, "websocket");
    const received = page.findTransport("websocket");
    const parse = JSON.parse;
    let onTheWire = "";
    JSON.parse = (text, reviver) => {
        onTheWire += text;
        return parse(text, reviver);
    };
    try {
        assert.ok(received);
        await subscribeCometd(page, "/exact", () => (got.bayeux = true));
        await server.publish("exact", EXACT);
        await until("all four", () => got.embedded && got.sse && got.mqtt && got.bayeux);
    } finally {
        JSON.parse = parse;
    }
    assert.deepEqual([got.embedded, got.sse, got.mqtt], [EXACT, EXACT, EXACT]);
    assert.ok(onTheWire.includes(`"data":${EXACT}`), onTheWire);
    const history = await server.text("/v1/history/exact");
    assert.ok(history.includes(`"data":${EXACT}`), history);
    events.close();
    await device.endAsync();
    await disconnectCometd(page);
    await server.kill();
});

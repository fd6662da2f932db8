// MQTT.js, speaking MQTT 3.1, 3.1.1 and 5 over TCP and over WebSocket.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, describe, test } from "node:test";
import mqtt from "mqtt";
import { connectMqtt, mqttUrl } from "./stock.mjs";
import { pause, startServer, until } from "./support.mjs";

let server;
before(async () => (server = await startServer()));
after(() => server?.kill());

const WAYS = [3, 4, 5].flatMap((protocolVersion) => ["tcp", "websocket"].map((transport) => ({ protocolVersion, transport })));

for (const { protocolVersion, transport } of WAYS) {
    describe(`MQTT.js, protocol level ${protocolVersion}, over ${transport}`, () => {
        const topic = (name) => `${transport}${protocolVersion}/${name}`;
        const protocolId = protocolVersion === 3 ? "MQIsdp" : "MQTT";
        const connect = (options) => connectMqtt(server, transport, { protocolVersion, protocolId, ...options });

        async function listen(filter, qos = 1, options = {}) {
            const client = await connect(options);
            const messages = [];
            client.on("message", (name, payload, packet) =>
                messages.push({ topic: name, text: payload.toString(), qos: packet.qos, retain: packet.retain }));
            const granted = await client.subscribeAsync(filter, { qos });
            return { client, messages, granted };
        }

        test("a message arrives at the lower of the two qualities of service", async () => {
            const { client, messages, granted } = await listen(topic("qos/#"));
            assert.equal(granted[0].qos, 1);
            await client.publishAsync(topic("qos/zero"), "0", { qos: 0 });
            await client.publishAsync(topic("qos/one"), "1", { qos: 1 });
            await until("two messages", () => messages.length === 2);
            assert.deepEqual(messages, [
                { topic: topic("qos/zero"), text: "0", qos: 0, retain: false },
                { topic: topic("qos/one"), text: "1", qos: 1, retain: false },
            ]);
            await client.endAsync();
        });

        test("`+` is one level, `#` is the level itself and all below", async () => {
            const { client, messages } = await listen([topic("w/+/x"), topic("deep/#")]);
            for (const name of ["w/a/x", "w/a/b/x", "w/x", "deep", "deep/a/b", "other"]) {
                await client.publishAsync(topic(name), name, { qos: 1 });
            }
            await until("three messages", () => messages.length >= 3);
            await pause(50);
            assert.deepEqual(messages.map((message) => message.text), ["w/a/x", "deep", "deep/a/b"]);
            await client.endAsync();
        });

        test("a retained message greets later subscribers until it is cleared", async () => {
            const publisher = await connect();
            await publisher.publishAsync(topic("state"), "first", { qos: 1, retain: true });
            await publisher.publishAsync(topic("state"), "second", { qos: 1, retain: true });
            const late = await listen(topic("state"));
            await until("the retained message", () => late.messages.length === 1);
            assert.deepEqual(late.messages[0], { topic: topic("state"), text: "second", qos: 1, retain: true });
            await publisher.publishAsync(topic("state"), "", { qos: 1, retain: true });
            await until("the clearing message", () => late.messages.length === 2);
            assert.deepEqual(late.messages[1], { topic: topic("state"), text: "", qos: 1, retain: false });
            const later = await listen(topic("state"));
            await pause(100);
            assert.deepEqual(later.messages, []);
            await Promise.all([publisher, late.client, later.client].map((client) => client.endAsync()));
        });

        test("a will is published for a client that vanishes, not for one that leaves", async () => {
            const { client, messages } = await listen(topic("wills/+"));
            const will = (name) => ({ will: { topic: topic(`wills/${name}`), payload: name, qos: 1 } });
            const vanishing = await connect(will("vanished"));
            const leaving = await connect(will("left"));
            await leaving.endAsync();
            vanishing.on("error", () => {});
            vanishing.stream.destroy();
            await until("the will", () => messages.length === 1);
            await pause(50);
            assert.deepEqual(messages.map((message) => message.text), ["vanished"]);
            await client.endAsync();
        });

        test("a second connection with the same client id takes over", async () => {
            const clientId = topic("same");
            const first = await connect({ clientId });
            let closed = false;
            first.on("close", () => (closed = true));
            const second = await connect({ clientId });
            await until("the first to be closed", () => closed);
            assert.ok(second.connected);
            await second.endAsync();
        });

        test("pings keep an idle connection", { timeout: 15_000 }, async () => {
            const { client, messages } = await listen(topic("idle"), 1, { keepalive: 1 });
            await pause(3000);
            assert.ok(client.connected);
            await server.publish(topic("idle"), "still here", { type: "text/plain" });
            await until("the message", () => messages.length === 1);
            await client.endAsync();
        });

        test("1 MiB arrives whole, in both directions, at every quality of service", async () => {
            const client = await connect();
            const arrived = [];
            client.on("message", (_, payload) => arrived.push(payload));
            await client.subscribeAsync(topic("big"), { qos: 2 });
            for (const qos of [0, 1, 2]) {
                const payload = randomBytes(1 << 20);
                await client.publishAsync(topic("big"), payload, { qos });
                await until("the message", () => arrived.length === 1);
                assert.ok(arrived.pop().equals(payload), `QoS ${qos}`);
            }
            await client.endAsync();
        });

        test("a session keeps what came while its client was away", async () => {
            const kept = { clientId: topic("kept"), clean: false, properties: { sessionExpiryInterval: 60 } };
            if (protocolVersion < 5) {
                delete kept.properties;
            }
            const first = await connect(kept);
            await first.subscribeAsync(topic("away"), { qos: 2 });
            await first.endAsync();
            const publisher = await connect();
            for (const qos of [1, 2]) {
                await publisher.publishAsync(topic("away"), `at ${qos}`, { qos });
            }
            await publisher.endAsync();
            // The messages come right behind CONNACK: whoever listens for them does so before.
            const arrived = [];
            const again = mqtt.connect(mqttUrl(server, transport), { protocolVersion, protocolId, reconnectPeriod: 0, ...kept });
            again.on("message", (_, payload) => arrived.push(payload.toString()));
            await until("both", () => arrived.length === 2);
            assert.deepEqual(arrived, ["at 1", "at 2"]);
            await again.endAsync();
        });
    });
}

// Bursts: a publisher far quicker than its subscriber, and a page that publishes everything at once.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { after, before, describe, test } from "node:test";
import { connectMqtt } from "./stock.mjs";
import { startServer, until } from "./support.mjs";

const missing = spawnSync("mosquitto_pub", ["--help"]).error && "mosquitto-clients are not installed";

let server;
before(async () => (server = await startServer()));
after(() => server?.kill());

/** A subscriber with the payloads it has got. */
async function listen(transport, filter, qos, options = {}) {
    const client = await connectMqtt(server, transport, options);
    const got = [];
    client.on("message", (_, payload) => got.push(payload.toString()));
    await client.subscribeAsync(filter, { qos });
    return { client, got };
}

const numbers = (count) => Array.from({ length: count }, (_, n) => `${n}`);

describe("mosquitto_pub -l to one connected MQTT.js", { skip: missing }, () => {
    for (const transport of ["tcp", "websocket"]) {
        for (const qos of [1, 2]) {
            test(`5,000 lines at QoS ${qos} over ${transport} all arrive, once and in order`, async () => {
                const topic = `bursts/${transport}/${qos}`;
                const { client, got } = await listen(transport, topic, qos);
                let closed = 0;
                client.on("close", () => (closed += 1));
                const { hostname, port } = new URL(server.mqtt);
                const publisher = spawn("mosquitto_pub", ["-h", hostname, "-p", port, "-t", topic, "-q", `${qos}`, "-l"]);
                const lines = numbers(5000);
                publisher.stdin.end(lines.join("\n") + "\n");
                await until("all lines", () => got.length >= lines.length || closed, { within: 120_000 });
                assert.equal(closed, 0);
                assert.deepEqual(got, lines);
                await client.endAsync();
            });
        }
    }
});

describe("MQTT.js publishes 3,000 messages at QoS 2 in one go, whatever the receive maximum", () => {
    for (const transport of ["tcp", "websocket"]) {
        test(`over ${transport}: it stays connected, and each arrives once`, async () => {
            const topic = `at_once/${transport}`;
            const { client: listener, got } = await listen(transport, topic, 2, { protocolVersion: 5 });
            const publisher = await connectMqtt(server, transport, { protocolVersion: 5 });
            let closed = 0;
            publisher.on("close", () => (closed += 1));
            const lines = numbers(3000);
            await Promise.all(lines.map((line) => publisher.publishAsync(topic, line, { qos: 2 })));
            await until("all of them", () => got.length >= lines.length, { within: 120_000 });
            assert.equal(closed, 0);
            assert.deepEqual(got, lines);
            await Promise.all([publisher.endAsync(), listener.endAsync()]);
        });
    }
});

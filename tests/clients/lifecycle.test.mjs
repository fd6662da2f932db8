// What clients see when others die badly, and when the server is asked to stop.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import { BAYEUX_TRANSPORTS, connectCometd, connectMqtt, openEvents, subscribeCometd } from "./stock.mjs";
import { startServer, until } from "./support.mjs";

const ROUNDS = Number(process.env.FW_TEST_KILL_ROUNDS ?? 3);
/** MQTT 5.0 §3.14.2.1. */
const SHUTTING_DOWN = 0x8b;
const VICTIM = fileURLToPath(new URL("victim.mjs", import.meta.url));

test(`subscribers killed with SIGKILL, ${ROUNDS} times, harm nobody`, { timeout: 60_000 + ROUNDS * 5000 }, async () => {
    const server = await startServer();
    const source = await openEvents(server, "/sse/chat/all");
    const received = [];
    source.onmessage = (event) => received.push(Number(event.data));
    let n = 0;
    for (let round = 0; round < ROUNDS; round += 1) {
        const victim = spawn(process.execPath, [VICTIM, server.authority, server.mqtt], { stdio: ["ignore", "pipe", "inherit"] });
        await once(victim.stdout, "data");
        for (let i = 0; i < 50; i += 1) {
            await server.publish("chat/all", String((n += 1)));
            if (i === 25) {
                victim.kill("SIGKILL");
            }
        }
    }
    await until(() => `${received.length} of ${n}`, () => received.length === n);
    assert.deepEqual(received, Array.from({ length: n }, (_, i) => i + 1));
    await until("the dead to be forgotten", async () => {
        const { receivers } = await server.publish("chat/all", "0");
        // Bayeux sessions outlive their connection by design: 10 seconds and a sweep.
        return receivers === 1;
    }, { within: 25_000 });
    assert.match(await server.text("/healthz"), /./);
    source.close();
    await server.kill();
});

test("SIGTERM: every client is told and the server ends with 0 in time", { timeout: 40_000 }, async () => {
    const server = await startServer();
    const told = { sse: false, mqtt: false, bayeux: 0 };
    const source = await openEvents(server, "/sse/chat/all");
    source.onerror = () => {
        told.sse = true;
        source.close();
    };
    const mqtt = await connectMqtt(server, "tcp");
    mqtt.on("error", () => {});
    mqtt.on("close", () => (told.mqtt = true));
    // Version 5 has a packet for it.
    const five = await connectMqtt(server, "websocket", { protocolVersion: 5 });
    five.on("error", () => {});
    five.on("disconnect", ({ reasonCode }) => (told.reason = reasonCode));
    const bayeux = [];
    for (const transport of BAYEUX_TRANSPORTS) {
        const client = await connectCometd(server, transport);
        client.configure({ url: `${server.http}/cometd`, logLevel: "error", maxBackoff: 100 });
        await subscribeCometd(client, "/chat/all", () => {});
        const listener = client.addListener("/meta/connect", (reply) => {
            if (!reply.successful || reply.advice?.reconnect === "none") {
                told.bayeux += 1;
                client.removeListener(listener);
                client.disconnect();
            }
        });
        bayeux.push(client);
    }
    const started = Date.now();
    const code = await server.terminate();
    assert.equal(code, 0);
    assert.ok(Date.now() - started < 20_000, "all of it takes at most 20 s");
    await until(() => `to be told: ${JSON.stringify(told)}`, () => told.sse && told.mqtt && told.reason === SHUTTING_DOWN && told.bayeux === 2);
});

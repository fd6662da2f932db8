// examples/host-metrics: a script that lives for milliseconds publishes real figures; every protocol shows them.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { BAYEUX_TRANSPORTS, connectCometd, connectMqtt, disconnectCometd, openEvents, subscribeCometd } from "./stock.mjs";
import { ROOT, startServer, until } from "./support.mjs";

const SCRIPT = path.join(ROOT, "examples/host-metrics/publish.sh");

let server;
before(async () => (server = await startServer()));
after(() => server?.kill());

test("the script's figures reach SSE, MQTT and Bayeux, and those who come later", { timeout: 30_000 }, async () => {
    const received = { sse: [], mqtt: [], "long-polling": [], websocket: [] };
    const source = await openEvents(server, "/sse/host/metrics");
    source.onmessage = (event) => received.sse.push(JSON.parse(event.data));
    const mqtt = await connectMqtt(server, "tcp");
    mqtt.on("message", (topic, payload) => received.mqtt.push(JSON.parse(payload)));
    await mqtt.subscribeAsync("host/metrics", { qos: 1 });
    const bayeux = [];
    for (const transport of BAYEUX_TRANSPORTS) {
        const client = await connectCometd(server, transport);
        await subscribeCometd(client, "/host/metrics", (message) => received[transport].push(message.data));
        bayeux.push(client);
    }

    const runs = 3;
    for (let n = 0; n < runs; n += 1) {
        await promisify(execFile)(SCRIPT, [server.http]);
    }
    await until(() => JSON.stringify(received), () => Object.values(received).every((figures) => figures.length === runs));
    for (const figures of Object.values(received)) {
        assert.deepEqual(figures, received.sse);
    }

    const total = Number(/^MemTotal: +(\d+)/m.exec(await readFile("/proc/meminfo", "utf8"))[1]);
    const uptime = Number((await readFile("/proc/uptime", "utf8")).split(" ")[0]);
    const [first, , last] = received.sse;
    assert.equal(last.memory.total_kib, total);
    assert.ok(uptime - last.uptime_secs >= 0 && uptime - last.uptime_secs < 30, "it is this machine, now");
    assert.ok(last.cpu.busy_ticks + last.cpu.idle_ticks >= first.cpu.busy_ticks + first.cpu.idle_ticks);

    const late = await connectMqtt(server, "websocket");
    const retained = [];
    late.on("message", (topic, payload, packet) => retained.push([JSON.parse(payload), packet.retain]));
    await late.subscribeAsync("host/metrics");
    await until("the retained figures", () => retained.length === 1);
    assert.deepEqual(retained[0], [last, true]);

    source.close();
    await Promise.all([mqtt.endAsync(), late.endAsync(), ...bayeux.map(disconnectCometd)]);
});

test("the script fails, and says why, when there is no server", { timeout: 30_000 }, async () => {
    await assert.rejects(promisify(execFile)(SCRIPT, ["http://127.0.0.1:1"]), /127\.0\.0\.1/);
});

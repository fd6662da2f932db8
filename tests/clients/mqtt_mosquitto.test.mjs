// mosquitto_pub, mosquitto_sub and mosquitto_rr, speaking MQTT 3.1, 3.1.1 and 5 over TCP.

import assert from "node:assert/strict";
import { execFile, spawn, spawnSync } from "node:child_process";
import { after, before, describe, test } from "node:test";
import { promisify } from "node:util";
import { connectMqtt } from "./stock.mjs";
import { startServer, until } from "./support.mjs";

const run = promisify(execFile);
const missing = spawnSync("mosquitto_sub", ["--help"]).error && "mosquitto-clients are not installed";

let server;
before(async () => (server = await startServer()));
after(() => server?.kill());

/** Where the server is, in the clients' words. */
function at(version) {
    const { hostname, port } = new URL(server.mqtt);
    return ["-h", hostname, "-p", port, "-V", version];
}

/** A running mosquitto_sub with the lines it has printed; it is subscribed once a retained message has come. */
async function listen(version, topic, ...args) {
    await run("mosquitto_pub", [...at(version), "-t", topic, "-m", "ready", "-r", "-q", "1"]);
    const child = spawn("mosquitto_sub", [...at(version), "-t", topic, "-F", "%t %q %r %p", ...args]);
    const lines = [];
    child.stdout.setEncoding("utf8").on("data", (text) => lines.push(...text.split("\n").filter(Boolean)));
    await until("the retained message", () => lines.length === 1);
    assert.match(lines.shift(), / 1 ready$/);
    return { child, lines };
}

for (const version of ["mqttv31", "mqttv311", "mqttv5"]) {
    describe(`mosquitto clients, ${version}`, { skip: missing }, () => {
        const topic = (name) => `mosquitto/${version}/${name}`;

        for (const qos of ["0", "1", "2"]) {
            test(`a message at QoS ${qos}`, async () => {
                const { child, lines } = await listen(version, topic(`qos${qos}`), "-q", qos);
                await run("mosquitto_pub", [...at(version), "-t", topic(`qos${qos}`), "-m", "hello there", "-q", qos]);
                await until("the message", () => lines.length === 1);
                assert.equal(lines[0], `${topic(`qos${qos}`)} ${qos} 0 hello there`);
                child.kill();
            });
        }

        test("many lines arrive once and in order", async () => {
            const { child, lines } = await listen(version, topic("lines"), "-q", "2", "-C", "1001");
            const publisher = spawn("mosquitto_pub", [...at(version), "-t", topic("lines"), "-l", "-q", "2"]);
            const numbers = Array.from({ length: 1000 }, (_, n) => `${n}`);
            publisher.stdin.end(numbers.join("\n") + "\n");
            await until("all lines", () => lines.length === 1000, { within: 60_000 });
            assert.deepEqual(lines.map((line) => line.split(" ")[3]), numbers);
            child.kill();
        });

        test("a session keeps what came while its client was away", async () => {
            const session = ["-c", "-i", topic("session").replaceAll("/", "-"), "-q", "1", "-t", topic("away")];
            if (version === "mqttv5") {
                session.push("-x", "60");
            }
            await run("mosquitto_sub", [...at(version), ...session, "-E"]);
            await run("mosquitto_pub", [...at(version), "-t", topic("away"), "-m", "waiting", "-q", "1"]);
            const { stdout } = await run("mosquitto_sub", [...at(version), ...session, "-C", "1", "-W", "20"]);
            assert.equal(stdout, "waiting\n");
        });

        test("nothing comes over which the client would close its connection", async () => {
            const { child, lines } = await listen(version, topic("ready"), "-t", `${topic("wise")}/#`, "-q", "1");
            const publisher = await connectMqtt(server, "tcp", { protocolVersion: 5 });
            for (const character of ["\u0001", "\n", "\u0085", "\ufdd0", "\uffff"]) {
                const refused = publisher.publishAsync(`${topic("wise")}/${character}`, "unwise", { qos: 1, retain: true });
                await assert.rejects(refused, ({ code }) => code === 0x90);
                const unwise = { contentType: character, userProperties: { [character]: "a", b: character } };
                await publisher.publishAsync(topic("wise"), "wise", { qos: 1, properties: unwise });
            }
            await publisher.publishAsync(topic("wise"), "last", { qos: 1 });
            await until("the last message", () => lines.some((line) => line.endsWith(" last")));
            // Had it connected again, the retained message would have come again.
            assert.deepEqual(lines.map((line) => line.split(" ")[3]), [...Array(5).fill("wise"), "last"]);
            await publisher.endAsync();
            child.kill();
        });

        test("the will of a client that is killed", async () => {
            const watcher = await connectMqtt(server, "tcp");
            const wills = [];
            watcher.on("message", (_, payload) => wills.push(payload.toString()));
            await watcher.subscribeAsync(topic("will"), { qos: 1 });
            const will = ["--will-topic", topic("will"), "--will-payload", "gone", "--will-qos", "1"];
            const { child } = await listen(version, topic("dying"), ...will);
            child.kill("SIGKILL");
            await until("the will", () => wills.length === 1);
            assert.deepEqual(wills, ["gone"]);
            await watcher.endAsync();
        });
    });
}

describe("mosquitto clients, properties of version 5", { skip: missing }, () => {
    test("properties pass through", async () => {
        const watcher = await connectMqtt(server, "websocket", { protocolVersion: 5 });
        const packets = [];
        watcher.on("message", (_, __, packet) => packets.push(packet.properties));
        await watcher.subscribeAsync("mosquitto/properties", { qos: 1 });
        const properties = [
            ["content-type", "text/plain"],
            ["user-property", "a", "1"],
            ["user-property", "a", "2"],
            ["response-topic", "answers"],
            ["correlation-data", "c"],
        ].flatMap((property) => ["-D", "publish", ...property]);
        await run("mosquitto_pub", [...at("mqttv5"), "-t", "mosquitto/properties", "-m", "x", ...properties]);
        await until("the message", () => packets.length === 1);
        const { contentType, userProperties, responseTopic, correlationData } = packets[0];
        assert.deepEqual([contentType, responseTopic, `${correlationData}`], ["text/plain", "answers", "c"]);
        assert.deepEqual(userProperties.a, ["1", "2"]);
        await watcher.endAsync();
    });

    test("mosquitto_rr gets the answer to its request", async () => {
        const service = await connectMqtt(server, "websocket", { protocolVersion: 5 });
        service.on("message", (_, payload, { properties }) => {
            const { responseTopic, correlationData } = properties;
            service.publish(responseTopic, `${payload}, too`, { properties: { correlationData } });
        });
        await service.subscribeAsync("mosquitto/service", { qos: 1 });
        const request = ["-t", "mosquitto/service", "-e", "mosquitto/answer", "-m", "hello", "-W", "20"];
        const { stdout } = await run("mosquitto_rr", [...at("mqttv5"), ...request]);
        assert.equal(stdout, "hello, too\n");
        await service.endAsync();
    });
});

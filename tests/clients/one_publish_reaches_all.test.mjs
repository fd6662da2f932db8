// The main job: what is published once, over any protocol, reaches the subscribers of every protocol.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Agent, request } from "node:http";
import {
    BAYEUX_TRANSPORTS, connectCometd, connectMqtt, disconnectCometd, openEvents, publishCometd, subscribeCometd,
} from "./stock.mjs";
import { startEmbedded, until } from "./support.mjs";
import { Tally } from "./tally.mjs";

const EACH = Number(process.env.FW_TEST_MESSAGES ?? 1000);
// How far a publisher may be ahead of the slowest subscriber: queues are bounded on purpose, and this test is about
// what happens within their bounds.
const AHEAD = 200;
const SOURCES = ["http", "mqtt", "bayeux"];
const EXACT = '{"n":12345678901234567890,"x":1e400}';

let server;
before(async () => (server = await startEmbedded()));
after(() => server?.kill());

test(`${EACH} messages from each of HTTP, MQTT and Bayeux reach every subscriber once and in order`, {
    timeout: 60_000 + EACH * 20,
}, async () => {
    const tallies = [];
    const tally = (name) => {
        const one = new Tally(name, SOURCES);
        tallies.push(one);
        return one;
    };
    const close = [];

    const embedded = tally("embedded");
    server.lines.on("line", (line) => {
        assert.ok(line.startsWith("embedded "), line);
        embedded.take(JSON.parse(line.slice("embedded ".length)));
    });
    for (const transport of BAYEUX_TRANSPORTS) {
        const counted = tally(`cometd ${transport}`);
        const client = await connectCometd(server, transport);
        await subscribeCometd(client, "/chat/all", (message) => counted.take(message.data));
        close.push(() => disconnectCometd(client));
    }
    for (const transport of ["tcp", "websocket"]) {
        const counted = tally(`mqtt ${transport}`);
        const client = await connectMqtt(server, transport);
        client.on("message", (topic, payload, packet) => {
            assert.equal(packet.dup, false, "nothing was cut, so nothing is sent again");
            counted.take(JSON.parse(payload));
        });
        await client.subscribeAsync("chat/all", { qos: 1 });
        close.push(() => client.endAsync());
    }
    const counted = tally("eventsource");
    const source = await openEvents(server, "/sse/chat/all");
    source.onmessage = (event) => counted.take(JSON.parse(event.data));
    close.push(() => source.close());

    const slowest = (from) => Math.min(...tallies.map((one) => one.seen.get(from)));
    const paced = async (from, publish) => {
        for (let n = 1; n <= EACH; n += 1) {
            await until(() => `${from} ${n}: ${describe(tallies)}`, () => n - slowest(from) <= AHEAD, { within: 30_000 });
            await publish({ from, n });
        }
    };
    const mqtt = await connectMqtt(server, "tcp");
    const bayeux = await connectCometd(server, "websocket");
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    close.push(() => mqtt.endAsync(), () => disconnectCometd(bayeux), () => agent.destroy());
    const acknowledged = [];
    await Promise.all([
        paced("http", (message) => post(agent, message)),
        // Not one at a time: up to AHEAD packets are unacknowledged.
        paced("mqtt", async (message) => {
            acknowledged.push(mqtt.publishAsync("chat/all", JSON.stringify(message), { qos: 1 }));
        }),
        paced("bayeux", (message) => publishCometd(bayeux, "/chat/all", message)),
    ]);
    await Promise.all(acknowledged);
    await until(() => describe(tallies), () => tallies.every((one) => one.total() >= EACH * SOURCES.length), { within: 30_000 });
    for (const one of tallies) {
        one.check(EACH);
    }
    await Promise.all(close.map((end) => end()));
});

test("JSON arrives byte for byte over every protocol, whoever published it", { timeout: 30_000 }, async () => {
    const channel = "exact/json";
    const events = [];
    const source = await openEvents(server, `/sse/${channel}`);
    source.onmessage = (event) => events.push(event.data);
    const enveloped = [];
    const envelopes = await openEvents(server, `/sse/${channel}?format=json`);
    envelopes.onmessage = (event) => enveloped.push(event.data);
    const payloads = [];
    const mqtt = await connectMqtt(server, "tcp");
    mqtt.on("message", (topic, payload) => payloads.push(payload.toString()));
    await mqtt.subscribeAsync(channel, { qos: 1 });
    const socket = await RawBayeux.open(server);
    await socket.subscribe(`/${channel}`);
    const polling = await RawPolling.open(server);
    await polling.subscribe(`/${channel}`);

    await server.publish(channel, EXACT);
    await mqtt.publishAsync(channel, EXACT, { qos: 1 });
    await socket.publish(`/${channel}`, EXACT);
    await server.publish(null, `{"channel":"${channel}","data":${EXACT}}`);

    await until(() => `${events.length} ${enveloped.length} ${payloads.length}`, () =>
        events.length === 4 && enveloped.length === 4 && payloads.length === 4);
    assert.deepEqual(new Set(events), new Set([EXACT]));
    assert.deepEqual(new Set(payloads), new Set([EXACT]));
    for (const text of enveloped) {
        assert.ok(text.includes(`"data":${EXACT}`), text);
    }
    const wanted = `"data":${EXACT}`;
    await until(() => `WebSocket text: ${socket.received}`, () => occurrences(socket.received, wanted) === 4);
    await until(() => `long-polling text: ${polling.received}`, async () => {
        await polling.connect();
        return occurrences(polling.received, wanted) === 4;
    });
    const history = await server.text(`/v1/history/${channel}`);
    assert.equal(occurrences(history, wanted), 4, history);

    source.close();
    envelopes.close();
    socket.close();
    await mqtt.endAsync();
});

function describe(tallies) {
    return tallies.map((one) => `${one.name} ${[...one.seen.values()]} ${one.faults}`).join("; ");
}

function occurrences(text, part) {
    return text.split(part).length - 1;
}

function post(agent, message) {
    return new Promise((resolve, reject) => {
        const body = JSON.stringify(message);
        const outgoing = request(`${server.http}/v1/publish/chat/all`, {
            agent,
            method: "POST",
            headers: { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) },
        }, (response) => {
            response.resume();
            response.on("end", () =>
                response.statusCode === 200 ? resolve() : reject(new Error(`publish: ${response.statusCode}`)));
        });
        outgoing.on("error", reject);
        outgoing.end(body);
    });
}

// The stock clients parse what they receive; these two keep the text.

/** Bayeux over a WebSocket, as text. */
class RawBayeux {
    static async open(to) {
        const { WebSocket } = await import("ws");
        const raw = new RawBayeux();
        raw.received = "";
        raw.socket = new WebSocket(`${to.ws}/cometd`);
        raw.socket.on("message", (data) => (raw.received += data));
        await new Promise((resolve, reject) => raw.socket.on("open", resolve).on("error", reject));
        raw.socket.send('[{"channel":"/meta/handshake","version":"1.0","supportedConnectionTypes":["websocket"],"id":"1"}]');
        raw.id = await until("a client id", () => /"clientId":"([^"]+)"/.exec(raw.received)?.[1]);
        raw.socket.send(`[{"channel":"/meta/connect","clientId":"${raw.id}","connectionType":"websocket","id":"2"}]`);
        return raw;
    }

    async subscribe(channel) {
        this.socket.send(`[{"channel":"/meta/subscribe","clientId":"${this.id}","subscription":"${channel}","id":"3"}]`);
        await until("the subscribe reply", () => this.received.includes('"/meta/subscribe"'));
    }

    async publish(channel, data) {
        this.socket.send(`[{"channel":"${channel}","clientId":"${this.id}","data":${data},"id":"4"}]`);
    }

    close() {
        this.socket.terminate();
    }
}

/** Bayeux over long-polling, as text. */
class RawPolling {
    static async open(to) {
        const raw = new RawPolling();
        raw.url = `${to.http}/cometd`;
        raw.received = "";
        const reply = await raw.send('"channel":"/meta/handshake","version":"1.0","supportedConnectionTypes":["long-polling"]');
        raw.id = /"clientId":"([^"]+)"/.exec(reply)[1];
        await raw.connect();
        return raw;
    }

    async send(fields) {
        const response = await fetch(this.url, {
            method: "POST",
            headers: { "Content-Type": "application/json", ...(this.cookie ? { Cookie: this.cookie } : {}) },
            body: `[{${fields}}]`,
        });
        this.cookie ??= response.headers.getSetCookie().map((cookie) => cookie.split(";")[0]).join("; ");
        const text = await response.text();
        assert.equal(response.status, 200, text);
        this.received += text;
        return text;
    }

    connect() {
        return this.send(`"channel":"/meta/connect","clientId":"${this.id}","connectionType":"long-polling","advice":{"timeout":200}`);
    }

    subscribe(channel) {
        return this.send(`"channel":"/meta/subscribe","clientId":"${this.id}","subscription":"${channel}"`);
    }
}

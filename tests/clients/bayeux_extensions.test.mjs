// The stock clients' extensions, remote calls to an embedding service, and clients written for Salesforce.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { AckExtension } from "cometd/AckExtension.js";
import { BinaryExtension } from "cometd/BinaryExtension.js";
import { TimeStampExtension } from "cometd/TimeStampExtension.js";
import { TimeSyncExtension } from "cometd/TimeSyncExtension.js";
import {
    BAYEUX_TRANSPORTS, connectCometd, connectFaye, disconnectCometd, publishCometd, subscribeCometd,
} from "./stock.mjs";
import { pause, startServer, startService, until } from "./support.mjs";

// Salesforce's streams: ids in `data.event.replayId`, as integers.
const SALESFORCE = `
[bayeux.events]
replay_in_data = ["event/**", "data/**", "topic/**"]
`;

// The same with rights: what Salesforce calls an access token is a key here.
const TOKEN = "00Dxx0000001gPz!AQEAQ";
const WITH_RIGHTS = `${SALESFORCE}
[[keys]]
id = "app"
hash = "sha256:${createHash("sha256").update(TOKEN).digest("hex")}"
rights = [{ actions = ["publish", "subscribe", "history"], channels = ["topic/**", "event/**"] }]
`;

let folder, server, service, guarded;
before(async () => {
    folder = mkdtempSync(path.join(tmpdir(), "fanwire-"));
    const file = path.join(folder, "fanwire.toml");
    writeFileSync(file, SALESFORCE);
    server = await startServer("--config", file);
    service = await startService();
    const rights = path.join(folder, "rights.toml");
    writeFileSync(rights, WITH_RIGHTS);
    guarded = await startServer("--config", rights);
});
after(async () => {
    await Promise.all([server?.kill(), service?.kill(), guarded?.kill()]);
    rmSync(folder, { recursive: true, force: true });
});

/** What Salesforce gives its users for cometd: replay from a position, and remember the newest one. */
class ReplayExtension {
    constructor(channel, replay) {
        Object.assign(this, { channel, replay, enabled: false });
    }

    incoming(message) {
        if (message.channel === "/meta/handshake") {
            this.enabled = message.ext?.replay === true;
        } else if (message.channel === this.channel) {
            this.replay = message.data?.event?.replayId ?? this.replay;
        }
        return message;
    }

    outgoing(message) {
        if (message.channel === "/meta/subscribe" && this.enabled) {
            message.ext = { ...message.ext, replay: { [this.channel]: this.replay } };
        }
        return message;
    }

    registered() {}
    unregistered() {}
}

/** The same as jsforce has it, for faye: with callbacks. */
class FayeReplayExtension {
    constructor(channel, replay) {
        this.inner = new ReplayExtension(channel, replay);
    }

    incoming(message, callback) {
        callback(this.inner.incoming(message));
    }

    outgoing(message, callback) {
        callback(this.inner.outgoing(message));
    }
}

for (const transport of BAYEUX_TRANSPORTS) {
    describe(`extensions over ${transport}`, () => {
        test("timesync compares clocks", async () => {
            const timesync = new TimeSyncExtension();
            const client = await connectCometd(server, transport, { extensions: [["timesync", timesync]] });
            await until("an exchange", () => timesync.getNetworkLag() >= 0 && timesync.getTimeOffset() !== undefined);
            assert.ok(Math.abs(timesync.getTimeOffset()) < 2000, `${timesync.getTimeOffset()} ms apart`);
            await disconnectCometd(client);
        });

        test("a timestamp that a client sends is no harm", async () => {
            const client = await connectCometd(server, transport, { extensions: [["timestamp", new TimeStampExtension()]] });
            const received = [];
            await subscribeCometd(client, "/stamped", (message) => received.push(message.data));
            await publishCometd(client, "/stamped", 1);
            await until("the message", () => received.length === 1);
            await disconnectCometd(client);
        });

        test("bytes pass through, and those of other protocols arrive in the same form", async () => {
            const client = await connectCometd(server, transport, { extensions: [["binary", new BinaryExtension()]] });
            const received = [];
            await subscribeCometd(client, "/bytes", (message) => received.push([...new Uint8Array(message.data.data)]));
            const bytes = Uint8Array.from([0, 1, 254, 255, 7]);
            await new Promise((resolve, reject) => {
                client.publishBinary("/bytes", bytes, true, {}, (reply) => (reply.successful ? resolve() : reject(new Error(reply.error))));
            });
            for (const length of [1, 2, 3, 4, 5]) {
                await server.publish("bytes", Buffer.from([255, 254, 253, 252, 0].slice(0, length)), { type: "application/octet-stream" });
            }
            await until("six messages", () => received.length === 6);
            const expected = [1, 2, 3, 4, 5].map((length) => [255, 254, 253, 252, 0].slice(0, length));
            assert.deepEqual(received, [[...bytes], ...expected]);
            await disconnectCometd(client);
        });
    });

    describe(`remote calls over ${transport}`, () => {
        test("are answered at once, later, with a failure, and in the end", async () => {
            const client = await connectCometd(service, transport);
            const call = (target, content) => new Promise((resolve) => client.remoteCall(target, content, 10_000, resolve));
            const time = await call("time", {});
            assert.equal(time.successful, true);
            assert.ok(time.data.seconds > 1_700_000_000);
            const [tea, air, stuck] = await Promise.all([
                call("price", { item: "tea" }),
                call("price", { item: "air" }),
                call("stuck", {}),
            ]);
            assert.deepEqual([tea.successful, tea.data.price], [true, 3.5]);
            assert.deepEqual([air.successful, air.data], [false, "no such item"]);
            assert.deepEqual([stuck.successful, stuck.data], [false, "timeout"]);
            await disconnectCometd(client);
        });

        test("a service answers on its channel, and may refuse", async () => {
            const client = await connectCometd(service, transport);
            const received = [];
            await subscribeCometd(client, "/service/greet", (message) => received.push(message.data.text));
            await publishCometd(client, "/service/greet", { name: "Ada" });
            await until("the greeting", () => received.length === 1);
            assert.deepEqual(received, ["hello Ada"]);
            await assert.rejects(publishCometd(client, "/service/greet", {}), /400:name:name_missing/);
            await disconnectCometd(client);
        });
    });

    describe(`clients written for Salesforce over ${transport}`, () => {
        test("cometd replays what was missed, from the last id on", async () => {
            const channel = `/event/cometd-${transport}`;
            const publish = (n) => server.publish(channel.slice(1), JSON.stringify({ payload: { n } }));
            await publish(0);
            await publish(1);
            const replay = new ReplayExtension(channel, -2);
            const first = await connectCometd(server, transport, { extensions: [["replay", replay], ["ack", new AckExtension()]] });
            const received = [];
            await subscribeCometd(first, channel, (message) => received.push(message.data));
            await until("the kept ones", () => received.length === 2);
            assert.deepEqual(received.map((data) => data.payload.n), [0, 1]);
            assert.ok(received.every((data) => Number.isInteger(data.event.replayId)));
            await disconnectCometd(first);

            await publish(2);
            const second = await connectCometd(server, transport, { extensions: [["replay", replay]] });
            await subscribeCometd(second, channel, (message) => received.push(message.data));
            await publish(3);
            await until("the missed and the new", () => received.length === 4);
            assert.deepEqual(received.map((data) => data.payload.n), [0, 1, 2, 3]);
            await disconnectCometd(second);
        });

        test("an id that was never given is refused as Salesforce does it", async () => {
            const channel = `/event/bad-${transport}`;
            const extensions = [["replay", new ReplayExtension(channel, 99_999_999)]];
            const client = await connectCometd(server, transport, { extensions });
            await assert.rejects(subscribeCometd(client, channel, () => {}), /400::The replayId \{99999999\} you provided was invalid/);
            await disconnectCometd(client);
        });

        test("faye, as jsforce uses it, replays too", { timeout: 20_000 }, async () => {
            const channel = `/topic/faye-${transport}`;
            await server.publish(channel.slice(1), '{"sobject":{"n":0}}');
            const client = connectFaye(server, transport);
            client.addExtension(new FayeReplayExtension(channel, -2));
            const received = [];
            await client.subscribe(channel, (data) => received.push(data.sobject.n));
            await server.publish(channel.slice(1), '{"sobject":{"n":1}}');
            await until("both", () => received.length === 2);
            await pause(50);
            assert.deepEqual(received, [0, 1]);
            await client.disconnect();
        });

        test("with rights, jsforce's header lets faye in, and replay", { timeout: 20_000 }, async () => {
            const channel = `/topic/rights-${transport}`;
            const publish = async (n) => {
                const response = await fetch(`${guarded.http}/v1/publish${channel}`, {
                    method: "POST",
                    headers: { Authorization: `OAuth ${TOKEN}`, "Content-Type": "application/json" },
                    body: JSON.stringify({ sobject: { n } }),
                });
                assert.equal(response.status, 200);
            };
            await publish(0);
            const client = connectFaye(guarded, transport);
            client.setHeader("Authorization", `OAuth ${TOKEN}`);
            client.addExtension(new FayeReplayExtension(channel, -2));
            const received = [];
            await client.subscribe(channel, (data) => received.push(data.sobject.n));
            await publish(1);
            await until("both", () => received.length === 2);
            assert.deepEqual(received, [0, 1]);
            await client.disconnect();
        });
    });
}

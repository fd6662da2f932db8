// The npm packages `cometd` (in Node) and `faye`, over long-polling and over WebSocket.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import {
    BAYEUX_TRANSPORTS, connectCometd, connectFaye, disconnectCometd, publishCometd, subscribeCometd,
} from "./stock.mjs";
import { Cuttable, pause, startServer, until } from "./support.mjs";

let server;
before(async () => (server = await startServer()));
after(() => server?.kill());

for (const transport of BAYEUX_TRANSPORTS) {
    describe(`cometd over ${transport}`, () => {
        test("subscribes, receives its own and others' messages, unsubscribes", async () => {
            const client = await connectCometd(server, transport);
            const received = [];
            const subscription = await new Promise((resolve, reject) => {
                const handle = client.subscribe("/cometd/room", (message) => received.push(message), (reply) =>
                    reply.successful ? resolve(handle) : reject(new Error(JSON.stringify(reply))));
            });
            await publishCometd(client, "/cometd/room", { text: "mine" });
            await server.publish("cometd/room", '{"text":"theirs"}');
            await until("two messages", () => received.length === 2);
            assert.deepEqual(received.map((message) => message.data.text), ["mine", "theirs"]);
            for (const message of received) {
                assert.equal(message.channel, "/cometd/room");
                assert.equal(message.clientId, undefined, "a client id is a credential");
            }
            await new Promise((resolve) => client.unsubscribe(subscription, resolve));
            await server.publish("cometd/room", '{"text":"late"}');
            await pause(100);
            assert.equal(received.length, 2);
            await disconnectCometd(client);
        });

        test("`*` is one segment, `**` is one or more, overlaps come once", async () => {
            const client = await connectCometd(server, transport);
            const seen = { one: [], rest: [] };
            await subscribeCometd(client, "/wild/*", (message) => seen.one.push(message.channel));
            await subscribeCometd(client, "/wild/**", (message) => seen.rest.push(message.channel));
            for (const channel of ["wild", "wild/a", "wild/a/b", "other"]) {
                await server.publish(channel, "1");
            }
            await until("the deep message", () => seen.rest.includes("/wild/a/b"));
            await pause(50);
            assert.deepEqual(seen, { one: ["/wild/a"], rest: ["/wild/a", "/wild/a/b"] });
            await disconnectCometd(client);
        });

        test("a batch keeps its order", async () => {
            const client = await connectCometd(server, transport);
            const received = [];
            await subscribeCometd(client, "/batch", (message) => received.push(message.data));
            client.batch(() => {
                for (let n = 0; n < 20; n += 1) {
                    client.publish("/batch", n);
                }
            });
            await until("20 messages", () => received.length === 20);
            assert.deepEqual(received, Array.from({ length: 20 }, (_, n) => n));
            await disconnectCometd(client);
        });

        test("null, false, 0 and the empty string are data", async () => {
            const client = await connectCometd(server, transport);
            const received = [];
            await subscribeCometd(client, "/empty", (message) => received.push(message.data));
            for (const value of ["null", "false", "0", '""']) {
                await server.publish("empty", value);
            }
            await until("four messages", () => received.length === 4);
            assert.deepEqual(received, [null, false, 0, ""]);
            await disconnectCometd(client);
        });

        test("text and bytes that are not JSON arrive too", async () => {
            const client = await connectCometd(server, transport);
            const received = [];
            await subscribeCometd(client, "/foreign", (message) => received.push(message.data));
            await server.publish("foreign", "plain text", { type: "text/plain" });
            await server.publish("foreign", Buffer.from([0xff, 0x00]), { type: "application/octet-stream" });
            await until("two messages", () => received.length === 2);
            assert.equal(received[0], "plain text");
            assert.equal(typeof received[1], "object");
            await disconnectCometd(client);
        });

        test("an illegal subscription is refused and the session lives on", async () => {
            const client = await connectCometd(server, transport);
            await assert.rejects(subscribeCometd(client, "/a/*/b", () => {}), /403/);
            await publishCometd(client, "/fine", 1);
            await disconnectCometd(client);
        });

        test("the session survives a cut connection", { timeout: 30_000 }, async () => {
            const proxy = await Cuttable.to(server.authority);
            const client = await connectCometd(server, transport, { authority: proxy.authority });
            client.configure({ url: `http://${proxy.authority}/cometd`, logLevel: "error", backoffIncrement: 50 });
            const handshakes = [];
            client.addListener("/meta/handshake", (reply) => handshakes.push(reply));
            const received = [];
            await subscribeCometd(client, "/survive", (message) => received.push(message.data));
            await server.publish("survive", "1");
            await until("the first", () => received.length === 1);
            proxy.cut();
            await pause(200);
            await server.publish("survive", "2");
            await until(() => `the second: ${received}, handshakes ${handshakes.length}`, () => received.length === 2);
            assert.deepEqual(received, [1, 2]);
            assert.deepEqual(handshakes, [], "the old session went on");
            await disconnectCometd(client);
            await proxy.close();
        });
    });

    describe(`faye over ${transport}`, () => {
        test("subscribes, publishes, receives", { timeout: 20_000 }, async () => {
            const client = connectFaye(server, transport);
            const received = [];
            await client.subscribe("/faye/room", (data) => received.push(data));
            await client.publish("/faye/room", { text: "mine" });
            await server.publish("faye/room", '{"text":"theirs"}');
            await until(() => `two messages: ${JSON.stringify(received)}`, () => received.length === 2);
            assert.deepEqual(received.map((data) => data.text).sort(), ["mine", "theirs"]);
            await client.disconnect();
        });

        test("its wildcards match", { timeout: 20_000 }, async () => {
            const client = connectFaye(server, transport);
            const received = [];
            await client.subscribe("/fayewild/**", (data) => received.push(data));
            await server.publish("fayewild/a", "1");
            await server.publish("fayewild/a/b", "2");
            await until("two messages", () => received.length === 2);
            assert.deepEqual(received, [1, 2]);
            await client.disconnect();
        });

        test("a refused subscription reaches its errback", { timeout: 20_000 }, async () => {
            const client = connectFaye(server, transport);
            await assert.rejects(Promise.resolve(client.subscribe("/meta/secret", () => {})));
            await client.disconnect();
        });
    });
}

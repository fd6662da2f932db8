// The stock cometd client with its ack extension, while its connections are cut in the middle of responses and frames.

import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import { after, before, describe, test } from "node:test";
import { AckExtension } from "cometd/AckExtension.js";
import { BAYEUX_TRANSPORTS, connectCometd, disconnectCometd, subscribeCometd } from "./stock.mjs";
import { pause, startServer, until } from "./support.mjs";

// 7 every day, 1,000 in scripts/soak.
const CUTS = Number(process.env.FW_TEST_CUTS ?? 7);
const MESSAGES = Math.ceil((CUTS * 200) / 7);
const WINDOW = 5;

/** A TCP proxy that cuts a connection after a random number of bytes towards the client, `cuts` times in all once armed. */
class Cutter {
    static async to(authority) {
        const cutter = new Cutter();
        cutter.left = 0;
        cutter.cuts = 0;
        const [host, port] = authority.split(":");
        cutter.server = net.createServer((client) => {
            const upstream = net.connect(Number(port), host);
            let budget = 40 + Math.floor(Math.random() * 8000);
            for (const [one, other] of [[client, upstream], [upstream, client]]) {
                one.on("error", () => {});
                one.on("close", () => other.destroy());
            }
            client.pipe(upstream);
            upstream.on("data", (bytes) => {
                if (cutter.left === 0) {
                    client.write(bytes);
                    return;
                }
                if (bytes.length < budget) {
                    budget -= bytes.length;
                    client.write(bytes);
                    return;
                }
                cutter.left -= 1;
                cutter.cuts += 1;
                // Its beginning arrives, the rest never does.
                client.write(bytes.subarray(0, budget - 1), () => (Math.random() < 0.5 ? client.resetAndDestroy() : client.destroy()));
                upstream.removeAllListeners("data");
                upstream.resetAndDestroy();
            });
            // A close at the server's side passes on what is still to be written.
            upstream.on("end", () => client.end());
        });
        cutter.server.listen(0, "127.0.0.1");
        await once(cutter.server, "listening");
        cutter.authority = `127.0.0.1:${cutter.server.address().port}`;
        return cutter;
    }

    close() {
        this.server.close();
    }
}

let server;
before(async () => (server = await startServer()));
after(() => server?.kill());

for (const transport of BAYEUX_TRANSPORTS) {
    describe(`cometd with ack over ${transport}`, () => {
        test(`${MESSAGES} messages over ${CUTS} cuts arrive once and in order`, { timeout: 60_000 + CUTS * 4000 }, async () => {
            const cutter = await Cutter.to(server.authority);
            const extensions = [["ack", new AckExtension()]];
            const client = await connectCometd(server, transport, { authority: cutter.authority, extensions });
            client.configure({ url: `http://${cutter.authority}/cometd`, logLevel: "error", backoffIncrement: 20, maxBackoff: 100 });
            const handshakes = [];
            client.addListener("/meta/handshake", (reply) => handshakes.push(reply));
            const received = [];
            await subscribeCometd(client, `/cut/${transport}`, (message) => received.push(message.data.n));
            cutter.left = CUTS;
            let published = 0;
            while (published < MESSAGES || cutter.left > 0) {
                await server.publish(`cut/${transport}`, JSON.stringify({ n: published, pad: "x".repeat(100) }));
                published += 1;
                // As many on their way as a frame can hold that gets through between two cuts.
                await until(() => `message ${published}: ${received.length} came over ${cutter.cuts} cuts`, () => published - received.length < WINDOW, {
                    within: 60_000,
                });
            }
            await until(() => `${published} messages: ${received.length} came over ${cutter.cuts} cuts`, () => received.length >= published, {
                within: 30_000,
            });
            await pause(200);
            assert.deepEqual(received, Array.from({ length: published }, (_, n) => n));
            assert.equal(cutter.cuts, CUTS);
            assert.deepEqual(handshakes, [], "the session went on");
            await disconnectCometd(client);
            cutter.close();
        });
    });
}

// The `eventsource` client.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { openEvents } from "./stock.mjs";
import { Cuttable, startServer, until } from "./support.mjs";

let server;
before(async () => (server = await startServer()));
after(() => server.kill());

test("a cut stream resumes by id and loses and repeats nothing", { timeout: 60_000 }, async () => {
    const proxy = await Cuttable.to(server.authority);
    const events = await openEvents(server, "/sse/resume", { authority: proxy.authority });
    const got = [];
    events.addEventListener("message", ({ data }) => got.push(Number(data)));
    for (let n = 0; n < 300; n += 1) {
        await server.publish("resume", String(n));
        if (n % 100 === 50) {
            proxy.cut();
        }
    }
    await until(() => `300 messages, ${got.length} came`, () => got.length >= 300, { within: 30_000 });
    assert.deepEqual(got, Array.from({ length: 300 }, (_, n) => n));
    events.close();
    await proxy.close();
});

test("several channels share one stream, and named events keep their names", { timeout: 30_000 }, async () => {
    const events = await openEvents(server, "/sse?channel=many/a&channel=many/b/*");
    const got = [];
    events.addEventListener("message", ({ data }) => got.push(JSON.parse(data).channel));
    events.addEventListener("alarm", ({ data }) => got.push(`alarm ${JSON.parse(data).channel}`));
    await server.publish("many/a", "1");
    await server.publish("many/b/c", "2", { query: "?event=alarm" });
    await server.publish("many/c", "3");
    await server.publish("many/a", "4");
    await until("three events", () => got.length === 3);
    assert.deepEqual(got, ["many/a", "alarm many/b/c", "many/a"]);
    events.close();
});

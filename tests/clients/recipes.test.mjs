// examples/recipes: what the documentation tells people to copy, run as it stands.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import http from "node:http";
import path from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import worker from "../../examples/recipes/worker.mjs";
import { handler } from "../../examples/recipes/lambda.mjs";
import { publish, Refused } from "../../examples/recipes/publish.mjs";
import { openEvents } from "./stock.mjs";
import { Cuttable, ROOT, startServer, until } from "./support.mjs";

let server;
before(async () => (server = await startServer()));
after(() => server?.kill());

/** A server that answers with `answers` in turn, then hands on to the real one. `lost` hands on, but loses the answer. */
async function moody(answers) {
    const requests = [];
    const stub = http.createServer(async (request, response) => {
        const chunks = [];
        for await (const chunk of request) {
            chunks.push(chunk);
        }
        const body = Buffer.concat(chunks);
        requests.push({ url: request.url, headers: request.headers, body });
        const answer = answers.shift();
        if (answer === "cut") {
            return request.socket.destroy();
        }
        if (answer?.status) {
            response.writeHead(answer.status, answer.headers);
            return response.end(answer.body);
        }
        const real = await fetch(server.http + request.url, { method: request.method, headers: forwarded(request.headers), body });
        if (answer === "lost") {
            return request.socket.destroy();
        }
        response.writeHead(real.status, { "Content-Type": real.headers.get("Content-Type") });
        response.end(Buffer.from(await real.arrayBuffer()));
    });
    stub.listen(0, "127.0.0.1");
    await once(stub, "listening");
    const close = () => {
        stub.close();
        stub.closeAllConnections();
    };
    return { url: `http://127.0.0.1:${stub.address().port}`, requests, close };
}

function forwarded(headers) {
    const skipped = ["host", "connection", "content-length", "transfer-encoding", "expect"];
    return Object.fromEntries(Object.entries(headers).filter(([name]) => !skipped.includes(name)));
}

const busy = { status: 429, headers: { "Retry-After": "0" }, body: '{"status":429,"code":"busy","detail":"try again"}' };

async function history(channel) {
    return JSON.parse(await server.text(`/v1/history/${channel}`)).messages;
}

test("curl publishes once though an answer is lost, and says what is refused", { timeout: 110_000 }, async () => {
    const script = path.join(ROOT, "examples/recipes/publish.sh");
    const front = await moody([busy, "lost"]);
    const environment = { ...process.env, FANWIRE_TOKEN: "" };
    const run = promisify(execFile);
    const { stdout } = await run(script, [front.url, "recipes/curl", '{"n":1}', "key 1"], { env: environment });
    assert.match(stdout, /^\{"channel":"recipes\/curl","id":"[^"]+".*"duplicate":true\}\n$/);
    const again = await run(script, [server.http, "recipes/curl", '{"n":1}', "key 1"], { env: environment });
    assert.equal(JSON.parse(again.stdout).duplicate, true);
    assert.deepEqual((await history("recipes/curl")).map((message) => message.data), [{ n: 1 }]);
    await assert.rejects(run(script, [server.http, "recipes/*/x", "1"], { env: environment }), (error) => {
        assert.equal(error.code, 1);
        assert.equal(JSON.parse(error.stdout).code, "invalid_channel");
        return true;
    });
    assert.equal(front.requests.at(-1).headers.authorization, undefined);
    // Without rights nobody looks at a token.
    await run(script, [front.url, "recipes/curl", "2"], { env: { ...process.env, FANWIRE_TOKEN: "secret" } });
    assert.equal(front.requests.at(-1).headers.authorization, "Bearer secret");
    front.close();
});

test("fetch publishes once though connections break before and after the message was taken", { timeout: 110_000 }, async () => {
    const front = await moody([busy, "cut", "lost"]);
    const receipt = await publish(front.url, "recipes/fetch 1", { text: "é" });
    assert.deepEqual([receipt.channel, receipt.duplicate], ["recipes/fetch 1", true]);
    assert.deepEqual((await history("recipes/fetch%201")).map((message) => [message.id, message.data]), [[receipt.id, { text: "é" }]]);
    assert.equal(front.requests.length, 4);
    assert.equal(new Set(front.requests.map((request) => request.headers["idempotency-key"])).size, 1);
    await assert.rejects(publish(server.http, "recipes/*/x", 1), (error) => error instanceof Refused && error.code === "invalid_channel");
    await assert.rejects(publish(front.url, "a", 1, { tries: 1, signal: AbortSignal.abort() }));
    front.close();
});

const record = (number, keys, image, eventName = "INSERT") => ({
    eventID: `event-${number}`,
    eventName,
    eventSource: "aws:dynamodb",
    eventSourceARN: "arn:aws:dynamodb:eu-west-1:1:table/orders/stream/2026-01-01T00:00:00.000",
    dynamodb: { SequenceNumber: String(1000 + number), Keys: keys, ...(image && { NewImage: image }), StreamViewType: "NEW_IMAGE" },
});

test("a Lambda run of a DynamoDB stream: one bad item harms only itself, and a second run publishes nothing twice", async () => {
    const batch = {
        Records: [
            record(1, { id: { S: "a" } }, { id: { S: "a" }, total: { N: "12345678901234567890.5" }, tags: { SS: ["x"] }, done: { BOOL: false } }),
            record(2, { id: { S: "*" } }, { id: { S: "*" } }),
            record(3, { id: { S: "b" }, at: { N: "7" } }, { lines: { L: [{ M: { n: { N: "1" } } }, { NULL: true }] } }),
            record(4, { id: { S: "a" } }, null, "REMOVE"),
        ],
    };
    process.env.FANWIRE_URL = server.http;
    process.env.FANWIRE_TOKEN = "";
    const told = [];
    const log = console.error;
    console.error = (...words) => told.push(words.join(" "));
    try {
        for (let run = 0; run < 2; run += 1) {
            assert.deepEqual(await handler(batch), { batchItemFailures: [] });
        }
        assert.match(told[0], /^not published: event-2 invalid_channel /);
        const messages = await history("table/orders/**");
        assert.deepEqual(
            messages.map(({ channel, event }) => [channel, event]),
            [["table/orders/a", "insert"], ["table/orders/b/7", "insert"], ["table/orders/a", "remove"]],
        );
        const raw = await server.text("/v1/history/table/orders/a?limit=1");
        assert.ok(raw.includes('"data":{"id":"a","total":12345678901234567890.5,"tags":["x"],"done":false}'), raw);
        assert.deepEqual(messages[1].data, { lines: [{ n: 1 }, null] });

        // What may succeed later is reported, and nothing else: Lambda runs that again.
        const front = await moody([
            { status: 200, body: '{"id":"k-1"}\n{"error":{"status":400,"code":"x"}}\n{"error":{"status":503}}\n' },
        ]);
        process.env.FANWIRE_URL = front.url;
        assert.deepEqual(await handler(batch), { batchItemFailures: [{ itemIdentifier: "1003" }, { itemIdentifier: "1004" }] });
        front.close();
        process.env.FANWIRE_URL = "http://127.0.0.1:1";
        const all = batch.Records.map(({ dynamodb }) => ({ itemIdentifier: dynamodb.SequenceNumber }));
        assert.deepEqual(await handler(batch), { batchItemFailures: all });
    } finally {
        console.error = log;
    }
});

test("a Worker takes webhooks, answers at once, and passes the stream on", { timeout: 30_000 }, async () => {
    const front = await moody([busy]);
    const env = { FANWIRE_URL: front.url, FANWIRE_TOKEN: "" };
    const waiting = [];
    const context = { waitUntil: (promise) => waiting.push(promise) };
    const call = (method, pathname, init) => worker.fetch(new Request(`https://worker.example${pathname}`, { method, ...init }), env, context);
    const hook = () => call("POST", "/hooks/pay", { body: '{"paid":1}', headers: { "Content-Type": "application/json", "X-Delivery-Id": "d1" } });

    assert.deepEqual([(await hook()).status, (await hook()).status], [202, 202]);
    await Promise.all(waiting);
    const messages = await history("hooks/pay");
    assert.deepEqual(messages.map((message) => message.data), [{ paid: 1 }], "delivered twice, published once");
    for (const [method, pathname] of [["GET", "/"], ["GET", "/hooks/pay"], ["POST", "/events/pay"], ["POST", "/hooks/a/b"]]) {
        assert.equal((await call(method, pathname)).status, 404, `${method} ${pathname}`);
    }

    const abort = new AbortController();
    const direct = { FANWIRE_URL: server.http, FANWIRE_TOKEN: "" };
    const request = new Request("https://worker.example/events/pay?last_event_id=earliest", { signal: abort.signal });
    const stream = await worker.fetch(request, direct, context);
    assert.equal(stream.headers.get("Content-Type"), "text/event-stream");
    const reader = stream.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    while (!text.includes('data: {"paid":1}\n\n')) {
        text += (await reader.read()).value;
    }
    abort.abort();
    await until("the stream to end at the server", async () => JSON.parse(await server.text("/v1/channels/hooks/pay")).subscribers === 0);
    front.close();
});

test("an EventSource behind a Worker-like proxy resumes where it was", { timeout: 30_000 }, async () => {
    const proxy = await Cuttable.to(server.authority);
    const source = await openEvents(server, "/sse/recipes/resume", { authority: proxy.authority });
    const received = [];
    source.onmessage = ({ data }) => received.push(data);
    await publish(server.http, "recipes/resume", 1);
    await until("the first", () => received.length === 1);
    proxy.cut();
    await publish(server.http, "recipes/resume", 2);
    await until("the second", () => received.length === 2, { within: 20_000 });
    assert.deepEqual(received, ["1", "2"]);
    source.close();
    await proxy.close();
});

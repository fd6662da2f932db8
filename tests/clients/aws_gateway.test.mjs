// A gateway as AWS API Gateway has them: the chat of docs/aws-gateway.md as it stands there, and the AWS SDK's client of
// `@connections`, of which only the endpoint is another one.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import {
    ApiGatewayManagementApiClient,
    DeleteConnectionCommand,
    ForbiddenException,
    GetConnectionCommand,
    GoneException,
    PayloadTooLargeException,
    PostToConnectionCommand,
} from "@aws-sdk/client-apigatewaymanagementapi";
import WebSocket from "ws";
import { ROOT, freePort, startServer, until } from "./support.mjs";

const KEY = { accessKeyId: "AKIDFANWIRECHECK", secretAccessKey: "a secret for tests" };
const AWS = `[aws]
[[aws.keys]]
access_key = "${KEY.accessKeyId}"
secret = "${KEY.secretAccessKey}"
gateways = ["*"]
`;

let folder;
before(() => (folder = mkdtempSync(path.join(tmpdir(), "gateway-"))));
after(() => rmSync(folder, { recursive: true }));

function written(name, text) {
    const file = path.join(folder, name);
    writeFileSync(file, text);
    return file;
}

/** A WebSocket that is open, and what it has got. */
async function opened(url) {
    const socket = new WebSocket(url);
    const got = [];
    socket.on("message", (data) => got.push(data.toString()));
    await once(socket, "open");
    return { socket, got };
}

const status = async (url) => {
    const socket = new WebSocket(url);
    socket.on("error", () => {});
    const [, response] = await once(socket, "unexpected-response");
    return response.statusCode;
};

test("the chat of the documentation runs as it stands there", async () => {
    const page = readFileSync(path.join(ROOT, "docs/aws-gateway.md"), "utf8");
    const block = (language) => new RegExp(`\`\`\`${language}\\n(.*?)\`\`\``, "s").exec(page)[1];
    const port = await freePort();
    const here = (text) => text.replaceAll("9000", port);
    const js = block("js");
    assert.ok(js.split("\n").length <= 60, "sixty lines");
    const chat = spawn(process.execPath, [written("chat.mjs", here(js))]);
    let said = "";
    chat.stdout.on("data", (data) => (said += data));
    const server = await startServer("--config", written("chat.toml", here(block("toml"))));
    try {
        const url = `${server.ws}/dev?room=`;
        await until("functions run", () => fetch(`http://127.0.0.1:${port}`).then(() => true, () => false));
        const [ann, bob, elsewhere] = [await opened(`${url}one`), await opened(`${url}one`), await opened(`${url}two`)];
        assert.equal(await status(`${server.ws}/dev`), 400, "a chat has rooms");
        ann.socket.send(JSON.stringify({ action: "send", room: "one", text: "hello" }));
        await until("both have it", () => ann.got.length === 1 && bob.got.length === 1);
        const { from, text } = JSON.parse(bob.got[0]);
        assert.deepEqual([bob.got[0], text], [ann.got[0], "hello"]);
        ann.socket.send(JSON.stringify({ action: "dance" }));
        await until("an answer", () => ann.got.length === 2);
        assert.deepEqual(JSON.parse(ann.got[1]), { error: "unknown action" });
        assert.deepEqual([bob.got.length, elsewhere.got], [1, []]);
        ann.socket.close(4001);
        await until("its end is told", () => said.includes(`${from} left: 4001`));
    } finally {
        await server.kill();
        chat.kill();
    }
});

/** Functions that remember who is connected, as handlers do in a table. */
async function functions(keys = "") {
    const table = new Set();
    const backend = http.createServer(async (request, response) => {
        let body = "";
        for await (const piece of request) body += piece;
        const { eventType, connectionId } = JSON.parse(body).requestContext;
        if (eventType === "CONNECT") table.add(connectionId);
        response.end(JSON.stringify({ statusCode: 200 }));
    });
    backend.listen(0, "127.0.0.1");
    await once(backend, "listening");
    const file = written("api.toml", `${AWS}
[[gateway.aws]]
name = "chat"
path = "/dev"
route_selection = "$request.body.action"
integrations.main = { url = "http://127.0.0.1:${backend.address().port}/invoke", timeout = "5s" }
routes."$connect" = { integration = "main" }
${keys}
`);
    const server = await startServer("--config", file);
    const client = (credentials) =>
        new ApiGatewayManagementApiClient({ region: "us-east-1", endpoint: `${server.http}/dev`, credentials, maxAttempts: 1 });
    const close = async () => {
        await server.kill();
        backend.close();
        backend.closeAllConnections();
    };
    return { server, table, client, close };
}

test("what a client compresses is bounded by what it sent, as what it does not", async () => {
    const { server, close } = await functions("max_message_bytes = 4000\nmax_frame_bytes = 2000");
    try {
        const closed = async (pieces, perMessageDeflate) => {
            const socket = new WebSocket(`${server.ws}/dev`, { perMessageDeflate });
            const got = [];
            socket.on("message", (data) => got.push(data.toString()));
            await once(socket, "open");
            pieces.forEach((piece, index) => socket.send("x".repeat(piece), { fin: index === pieces.length - 1 }));
            // No route: an answer says that it was taken.
            const end = once(socket, "close").then(([code]) => code);
            const taken = until("taken", () => got.length > 0).then(() => "taken");
            taken.catch(() => {});
            const how = await Promise.race([end, taken]);
            socket.terminate();
            return how;
        };
        for (const deflate of [false, { threshold: 0 }]) {
            for (const [pieces, how] of [[[2000], "taken"], [[2001], 1009], [[2000, 2000], "taken"], [[1000, 2001], 1009], [[2000, 1999, 2], 1009]]) {
                assert.equal(await closed(pieces, deflate), how, `${pieces} ${JSON.stringify(deflate)}`);
            }
        }
    } finally {
        await close();
    }
});

test("the SDK posts to connections, looks at them and closes them", async () => {
    const { server, table, client, close } = await functions();
    try {
        const { socket, got } = await opened(`${server.ws}/dev`);
        const [ConnectionId] = table;
        const api = client(KEY);
        await api.send(new PostToConnectionCommand({ ConnectionId, Data: "hello é" }));
        await api.send(new PostToConnectionCommand({ ConnectionId, Data: Buffer.from([0xff, 0]) }));
        await until("both", () => got.length === 2);
        assert.equal(got[0], "hello é");
        const shown = await api.send(new GetConnectionCommand({ ConnectionId }));
        assert.ok(shown.ConnectedAt instanceof Date && shown.LastActiveAt >= shown.ConnectedAt);
        assert.equal(shown.Identity.SourceIp, "127.0.0.1");
        const tooLarge = new PostToConnectionCommand({ ConnectionId, Data: "x".repeat((128 << 10) + 1) });
        await assert.rejects(api.send(tooLarge), PayloadTooLargeException);
        const closed = once(socket, "close");
        await api.send(new DeleteConnectionCommand({ ConnectionId }));
        assert.equal((await closed)[0], 1000);
        for (const Command of [PostToConnectionCommand, GetConnectionCommand, DeleteConnectionCommand]) {
            const gone = new Command({ ConnectionId, Data: "late" });
            await assert.rejects(api.send(gone), (error) => error instanceof GoneException && error.$metadata.httpStatusCode === 410);
        }
        const forger = client({ ...KEY, secretAccessKey: "another" });
        await assert.rejects(forger.send(new GetConnectionCommand({ ConnectionId })), (error) => {
            assert.equal(error.name, "InvalidSignatureException");
            assert.ok(!(error instanceof ForbiddenException));
            return true;
        });
    } finally {
        await close();
    }
});

/** What a handler of a table's stream does with each batch: every new item goes to all who are connected. */
async function fanOut(event, table, api) {
    for (const { eventName, dynamodb } of event.Records) {
        if (eventName !== "INSERT") continue;
        const item = JSON.stringify({ id: dynamodb.Keys.id.S, text: dynamodb.NewImage.text.S });
        const posts = [...table].map(async (ConnectionId) => {
            try {
                await api.send(new PostToConnectionCommand({ ConnectionId, Data: item }));
            } catch (error) {
                if (!(error instanceof GoneException)) throw error;
                table.delete(ConnectionId);
            }
        });
        await Promise.all(posts);
    }
}

test("a table's stream is fanned out in order, and who is gone is taken out of the table", async () => {
    const { server, table, client, close } = await functions();
    try {
        const clients = [];
        for (let n = 0; n < 12; n += 1) clients.push(await opened(`${server.ws}/dev`));
        const leaving = clients.splice(0, 3);
        for (const { socket } of leaving) {
            socket.close();
            await once(socket, "close");
        }
        const record = (n, eventName = "INSERT") => ({
            eventID: String(n), eventName, eventVersion: "1.1", eventSource: "aws:dynamodb", awsRegion: "us-east-1",
            dynamodb: { Keys: { id: { S: String(n) } }, NewImage: { id: { S: String(n) }, text: { S: `item ${n}` } }, SequenceNumber: String(n) },
        });
        const Records = [...Array.from({ length: 10 }, (_, n) => record(n)), record(10, "MODIFY")];
        await until("the server knows who has left", async () =>
            JSON.parse(await server.text("/v1/connections")).connections.length === clients.length);
        await fanOut({ Records }, table, client(KEY));
        await until("all of it", () => clients.every(({ got }) => got.length === 10));
        const expected = Array.from({ length: 10 }, (_, n) => ({ id: String(n), text: `item ${n}` }));
        for (const { got } of clients) assert.deepEqual(got.map((text) => JSON.parse(text)), expected);
        assert.equal(table.size, clients.length);
    } finally {
        await close();
    }
});

test("a handler as it was written for API Gateway posts to all others by what its event says", async () => {
    const table = new Set();
    const handler = async ({ requestContext: { connectionId, domainName, stage, routeKey }, body }) => {
        if (routeKey === "$connect") table.add(connectionId);
        if (routeKey === "$disconnect") table.delete(connectionId);
        if (routeKey === "sendmessage") {
            const api = new ApiGatewayManagementApiClient({ region: "us-east-1", endpoint: `http://${domainName}/${stage}`, credentials: KEY });
            const others = [...table].filter((id) => id !== connectionId);
            const Data = JSON.parse(body).message;
            await Promise.all(others.map((ConnectionId) => api.send(new PostToConnectionCommand({ ConnectionId, Data }))));
        }
        return { statusCode: 200 };
    };
    const runtime = http.createServer(async (request, response) => {
        let body = "";
        for await (const piece of request) body += piece;
        response.end(JSON.stringify(await handler(JSON.parse(body))));
    });
    runtime.listen(0, "127.0.0.1");
    await once(runtime, "listening");
    const routes = ["$connect", "$disconnect", "sendmessage"].map((key) => `routes."${key}" = { integration = "main" }`);
    const file = written("moved.toml", `${AWS}
[[gateway.aws]]
name = "abcd1234"
path = "/production"
route_selection = "$request.body.action"
integrations.main = { url = "http://127.0.0.1:${runtime.address().port}/2015-03-31/functions/chat/invocations" }
${routes.join("\n")}
`);
    const server = await startServer("--config", file);
    try {
        const clients = [];
        for (let n = 0; n < 3; n += 1) clients.push(await opened(`${server.ws}/production`));
        const [sender, ...others] = clients;
        for (let n = 0; n < 5; n += 1) sender.socket.send(JSON.stringify({ action: "sendmessage", message: String(n) }));
        await until("all others have all", () => others.every(({ got }) => got.length === 5));
        for (const { got } of others) assert.deepEqual(got, ["0", "1", "2", "3", "4"]);
        assert.deepEqual(sender.got, []);
        for (const { socket } of clients) socket.close();
        await until("the table is empty", () => table.size === 0);
    } finally {
        await server.kill();
        runtime.close();
        runtime.closeAllConnections();
    }
});

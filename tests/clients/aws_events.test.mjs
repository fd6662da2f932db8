// Events of a WebSocket API beside those of serverless-offline, which many try their functions with: member by member, which
// are there and of what kind they are. What differs stands here, with the reason.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import WebSocket from "ws";
import { freePort, startServer, until } from "./support.mjs";

const isThere = await import("serverless-offline").then(() => true, () => false);
const skip = isThere ? false : "serverless-offline is not installed (npm ci)";

/** What `identity` of serverless-offline has besides: members of REST APIs, always null. */
const OF_REST = [
    "accessKey", "accountId", "caller", "cognitoAuthenticationProvider", "cognitoAuthenticationType", "cognitoIdentityId",
    "cognitoIdentityPoolId", "principalOrgId", "user", "userArn",
].map((name) => [`requestContext.identity.${name}`, "null", "absent"]);

/** It does not know what the client calls itself; AWS does. */
const AGENT = ["requestContext.identity.userAgent", "null", "string"];

/** AWS names messages, and nothing else so. */
const MESSAGE_ID = ["requestContext.messageId", "string", "absent"];

/** [member, there, here] of each event, as all of them are. */
const EXPECTED = {
    $connect: [...OF_REST, AGENT, MESSAGE_ID],
    send: [...OF_REST, AGENT],
    $default: [...OF_REST, AGENT],
    $disconnect: [
        // As AWS has it: which client it was cannot be seen elsewhere.
        ["headers.X-Forwarded-For", "absent", "string"],
        ["multiValueHeaders.X-Forwarded-For", "absent", "array of string"],
        // Since 2022 AWS says how a client left.
        ["requestContext.disconnectReason", "absent", "string"],
        ["requestContext.disconnectStatusCode", "absent", "number"],
        ...OF_REST, AGENT, MESSAGE_ID,
    ],
};

/** What the two say of one event in members that say the same on every machine: [member, there, here]. */
const SAID = {
    // The route that was taken, as AWS has it; serverless-offline says what the message named.
    $default: [["requestContext.routeKey", "nope", "$default"]],
};

function kind(value) {
    if (value === null) return "null";
    if (Array.isArray(value)) return `array of ${[...new Set(value.map(kind))].sort().join(" ")}`;
    return typeof value;
}

/** Leaves of an event by their path. */
function* leaves(value, place = "") {
    if (kind(value) !== "object") return yield [place, value];
    for (const [name, member] of Object.entries(value)) yield* leaves(member, place ? `${place}.${name}` : name);
}

function differences(there, here, say) {
    const [a, b] = [new Map(leaves(there)), new Map(leaves(here))];
    const of = (map, place) => (map.has(place) ? say(map.get(place)) : "absent");
    const places = [...new Set([...a.keys(), ...b.keys()])].sort();
    return places.map((place) => [place, of(a, place), of(b, place)]).filter(([, x, y]) => x !== y);
}

let folder;
before(() => (folder = mkdtempSync(path.join(tmpdir(), "events-"))));
after(() => rmSync(folder, { recursive: true }));

/** Who gets the events: a function, and what serverless-offline's function hands on. */
async function collector() {
    const events = [];
    const server = http.createServer(async (request, response) => {
        let body = "";
        for await (const piece of request) body += piece;
        events.push(JSON.parse(body));
        response.end('{"statusCode":200}');
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const close = () => {
        server.close();
        server.closeAllConnections();
    };
    return { url: `http://127.0.0.1:${server.address().port}/`, events, close };
}

/** One client's visit: the events of it by what it did. */
async function visit(url, events) {
    const socket = new WebSocket(`${url}?a=1&a=2&b=x%20y&empty=`, { headers: { HeaderAuth1: "s", "User-Agent": "visitor/1" } });
    await once(socket, "open");
    const took = async (count) => until(`${count} events`, () => events.length === count);
    await took(1);
    socket.send('{"action":"send","text":"é"}');
    await took(2);
    socket.send('{"action":"nope"}');
    await took(3);
    socket.close(4001, "bye");
    await took(4);
    const [$connect, send, $default, $disconnect] = events;
    return { $connect, send, $default, $disconnect };
}

async function offline() {
    const { url, events, close } = await collector();
    const port = await freePort();
    const script = fileURLToPath(new URL("offline_service.mjs", import.meta.url));
    const service = spawn(process.execPath, [script, port, url], { stdio: ["ignore", "pipe", "inherit"] });
    try {
        await once(createInterface({ input: service.stdout }), "line");
        return await visit(`ws://127.0.0.1:${port}/`, events);
    } finally {
        service.kill();
        close();
    }
}

async function ours() {
    const { url, events, close } = await collector();
    const file = path.join(folder, "api.toml");
    const routes = ["$connect", "send", "$default", "$disconnect"].map((key) => `routes."${key}" = { integration = "all" }\n`);
    writeFileSync(file, `[[gateway.aws]]
name = "chat"
path = "/dev"
route_selection = "$request.body.action"
integrations.all = { url = "${url}" }
${routes.join("")}`);
    const server = await startServer("--config", file);
    try {
        return await visit(`${server.ws}/dev`, events);
    } finally {
        await server.kill();
        close();
    }
}

test("events have the members of serverless-offline's, of the same kinds, but for what is listed", { skip, timeout: 60_000 }, async () => {
    const [there, here] = [await offline(), await ours()];
    for (const [event, expected] of Object.entries(EXPECTED)) {
        const found = differences(there[event], here[event], kind);
        assert.deepEqual(found, [...expected].sort(([a], [b]) => (a < b ? -1 : 1)), event);
    }
    // What differs from one machine, or one moment, to the next.
    const own = /^requestContext\.(apiId|connectedAt|connectionId|domainName|extendedRequestId|messageId|request.*|stage)$|Host|Sec-WebSocket-Key/;
    for (const event of Object.keys(EXPECTED)) {
        const listed = new Set(EXPECTED[event].map(([place]) => place));
        const said = differences(there[event], here[event], (value) => JSON.stringify(value))
            .filter(([place]) => !own.test(place) && !listed.has(place))
            .map(([place, a, b]) => [place, JSON.parse(a), JSON.parse(b)]);
        assert.deepEqual(said, SAID[event] ?? [], event);
    }
});

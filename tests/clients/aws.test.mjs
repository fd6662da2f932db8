// The AWS SDK's client of the IoT data plane against the real server: only the endpoint is another one.

import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import {
    ForbiddenException,
    GetConnectionCommand,
    GetRetainedMessageCommand,
    InvalidRequestException,
    IoTDataPlaneClient,
    ListRetainedMessagesCommand,
    ListSubscriptionsCommand,
    PublishCommand,
    ResourceNotFoundException,
    SendDirectMessageCommand,
} from "@aws-sdk/client-iot-data-plane";
import { connectMqtt, openEvents } from "./stock.mjs";
import { ROOT, startServer, until } from "./support.mjs";

const KEYS = {
    all: { accessKeyId: "AKIDFANWIRECHECK", secretAccessKey: "a secret for tests", sessionToken: "passed over" },
    reads: { accessKeyId: "AKIDFANWIREREADS", secretAccessKey: "another one" },
    wrong: { accessKeyId: "AKIDFANWIRECHECK", secretAccessKey: "not the secret" },
};

const client = (server, key = "all") =>
    new IoTDataPlaneClient({
        region: "us-east-1",
        endpoint: server.http,
        credentials: KEYS[key],
        maxAttempts: 1,
    });

test("what the SDK publishes reaches MQTT and SSE, and is kept", async () => {
    const server = await startServer("--config", `${ROOT}/tests/clients/aws.toml`);
    const iot = client(server);
    const mqtt = await connectMqtt(server, "tcp", { protocolVersion: 5, clientId: "js/1" });
    await mqtt.subscribeAsync("a/#", { qos: 1 });
    const source = await openEvents(server, "/sse/a/b%20%C3%A9(!)*'");
    const events = [];
    source.onmessage = (event) => events.push(event.data);
    const arrived = once(mqtt, "message");
    const topic = "a/b é(!)*'";
    await iot.send(
        new PublishCommand({
            topic,
            qos: 1,
            retain: true,
            payload: Buffer.from("hello"),
            contentType: "text/plain",
            userProperties: JSON.stringify([{ k: "v" }]),
        }),
    );
    const [name, payload, packet] = await arrived;
    assert.deepEqual([name, payload.toString(), packet.qos], [topic, "hello", 1]);
    assert.equal(packet.properties.contentType, "text/plain");
    assert.equal(packet.properties.userProperties.k, "v");
    await until("the event", () => events.length === 1);
    assert.deepEqual(events, ["hello"]);
    const kept = await iot.send(new GetRetainedMessageCommand({ topic }));
    assert.equal(Buffer.from(kept.payload).toString(), "hello");
    const list = await iot.send(new ListRetainedMessagesCommand({ maxResults: 1 }));
    assert.deepEqual(list.retainedTopics.map((entry) => entry.topic), [topic]);
    const connection = await iot.send(new GetConnectionCommand({ clientId: "js/1" }));
    assert.equal(connection.connected, true);
    const held = await iot.send(new ListSubscriptionsCommand({ clientId: "js/1" }));
    assert.deepEqual(held.subscriptions, [{ topicFilter: "a/#", qos: 1 }]);
    const confirmed = new SendDirectMessageCommand({
        clientId: "js/1",
        topic: "direct",
        confirmation: true,
        payload: Buffer.from("you"),
    });
    assert.equal((await iot.send(confirmed)).message, "OK");
    source.close();
    await mqtt.endAsync();
    await server.kill();
});

test("what is refused is an exception that can be told apart", async () => {
    const server = await startServer("--config", `${ROOT}/tests/clients/aws.toml`);
    const publish = (topic) => new PublishCommand({ topic, payload: Buffer.from("x") });
    await assert.rejects(client(server).send(new GetRetainedMessageCommand({ topic: "none" })), ResourceNotFoundException);
    await assert.rejects(client(server).send(publish("a/+")), InvalidRequestException);
    await assert.rejects(client(server, "reads").send(publish("a")), { name: "ForbiddenException" });
    await assert.rejects(
        client(server, "reads").send(new GetConnectionCommand({ clientId: "c" })),
        ForbiddenException,
    );
    await assert.rejects(client(server, "wrong").send(publish("a")), { name: "InvalidSignatureException" });
    const unsigned = await fetch(`${server.http}/topics/a`, { method: "POST", body: "x" });
    assert.equal(unsigned.status, 403);
    assert.equal(unsigned.headers.get("x-amzn-errortype"), "MissingAuthenticationTokenException");
    assert.ok(unsigned.headers.get("x-amzn-requestid"));
    await server.kill();
});

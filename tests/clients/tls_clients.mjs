// Stock clients inside of TLS, in a process whose trusted authorities were given to it when it started. Each hears what is
// published over MQTT; prints what it heard, as JSON.

import mqtt from "mqtt";
import { EventSource } from "eventsource";
import { CometD } from "cometd";
import { adapt } from "cometd-nodejs-client";

adapt();
const [https, mqtts] = process.argv.slice(2);
const wss = https.replace("https:", "wss:");
const heard = {};
const topic = "tls/room";
const listening = [];

for (const [name, url] of [["mqtts", mqtts], ["wss", `${wss}/mqtt`]]) {
    const client = await mqtt.connectAsync(url, { protocolVersion: 5, reconnectPeriod: 0 });
    await client.subscribeAsync(topic, { qos: 1 });
    client.on("message", (_, payload) => (heard[name] = payload.toString()));
    listening.push(() => client.endAsync());
}

const source = new EventSource(`${https}/sse/${topic}`);
source.addEventListener("message", (event) => (heard.eventsource = event.data));
await new Promise((resolve, reject) => {
    source.addEventListener("open", resolve, { once: true });
    source.addEventListener("error", reject, { once: true });
});
listening.push(() => source.close());

for (const type of ["websocket", "long-polling"]) {
    const client = new CometD();
    for (const other of client.getTransportTypes().filter((other) => other !== type)) {
        client.unregisterTransport(other);
    }
    client.configure({ url: `${https}/cometd`, logLevel: "error" });
    await new Promise((resolve, reject) =>
        client.handshake((reply) => (reply.successful ? resolve() : reject(new Error(JSON.stringify(reply))))));
    await new Promise((resolve) =>
        client.subscribe(`/${topic}`, (message) => (heard[type] = JSON.stringify(message.data)), resolve));
    listening.push(() => new Promise((resolve) => client.disconnect(resolve)));
}

const publisher = await mqtt.connectAsync(mqtts, { reconnectPeriod: 0 });
const large = JSON.stringify({ text: "x".repeat(100_000) });
await publisher.publishAsync(topic, large, { qos: 1 });
const names = ["mqtts", "wss", "eventsource", "websocket", "long-polling"];
const end = Date.now() + 10_000;
while (Date.now() < end && names.some((name) => heard[name] !== large)) {
    await new Promise((resolve) => setTimeout(resolve, 20));
}
console.log(JSON.stringify(names.map((name) => [name, heard[name] === large])));
await publisher.endAsync();
await Promise.all(listening.map((stop) => stop()));
process.exit(0);

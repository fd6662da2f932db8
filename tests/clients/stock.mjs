// The stock clients, each reduced to what the tests ask of it: connect, receive, publish, close.

import assert from "node:assert/strict";
import { CometD } from "cometd";
import { adapt } from "cometd-nodejs-client";
import { EventSource } from "eventsource";
import faye from "faye";
import mqtt from "mqtt";

adapt();
faye.logger = { error() {}, warn() {} };

export const BAYEUX_TRANSPORTS = ["long-polling", "websocket"];

/** A `cometd` client that has shaken hands over the named transport. */
export async function connectCometd(server, transport, { authority = server.authority, extensions = [] } = {}) {
    const client = new CometD();
    for (const type of client.getTransportTypes()) {
        if (type !== transport) {
            client.unregisterTransport(type);
        }
    }
    client.configure({ url: `http://${authority}/cometd`, logLevel: process.env.FW_TEST_LOG ? "debug" : "error" });
    for (const [name, extension] of extensions) {
        client.registerExtension(name, extension);
    }
    await answered("handshake", (done) => client.handshake(done));
    assert.equal(client.getTransport().type, transport);
    return client;
}

export function subscribeCometd(client, channel, onMessage) {
    return answered(`subscribe ${channel}`, (done) => client.subscribe(channel, onMessage, done));
}

export function publishCometd(client, channel, data) {
    return answered(`publish ${channel}`, (done) => client.publish(channel, data, done));
}

export function disconnectCometd(client) {
    return new Promise((resolve) => client.disconnect(resolve));
}

function answered(what, call) {
    return new Promise((resolve, reject) => {
        call((reply) => {
            if (reply.successful) {
                resolve(reply);
            } else {
                reject(new Error(`${what}: ${JSON.stringify(reply)}`));
            }
        });
    });
}

/** A `faye` client held to one transport. */
export function connectFaye(server, transport) {
    const client = new faye.Client(`${server.http}/cometd`, { timeout: 20, retry: 1 });
    if (transport !== "websocket") {
        client.disable("websocket");
    }
    return client;
}

/** The URL at which MQTT.js reaches the server over `tcp` or `websocket`. */
export function mqttUrl(server, transport) {
    return transport === "tcp" ? server.mqtt : `${server.ws}/mqtt`;
}

/** An MQTT.js client that is connected; MQTT 3.1.1 unless the options say otherwise. */
export function connectMqtt(server, transport, options = {}) {
    return mqtt.connectAsync(mqttUrl(server, transport), { protocolVersion: 4, reconnectPeriod: 0, ...options });
}

/** An EventSource that is open. */
export async function openEvents(server, pathname, { authority = server.authority } = {}) {
    const source = new EventSource(`http://${authority}${pathname}`);
    await new Promise((resolve, reject) => {
        source.addEventListener("open", resolve, { once: true });
        source.addEventListener("error", reject, { once: true });
    });
    return source;
}

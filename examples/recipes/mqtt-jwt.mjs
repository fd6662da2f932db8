// MQTT.js with a JWT as password, and a new one before each reconnect.
//
//     import { connect } from "./mqtt-jwt.mjs";
//     const client = connect(mqtt, "wss://events.example/mqtt", async () => (await fetch("/token")).text());
//     client.subscribe("orders/ann/#");

/**
 * Connects and stays connected. `token` fetches a token that is good now: when one expires the server closes the connection
 * (MQTT 5: DISCONNECT 0xA0), and the old one would be refused.
 */
export async function connect(mqtt, url, token) {
    const client = mqtt.connect(url, {
        protocolVersion: 5,
        // Any name: who it is stands in the token.
        username: "jwt",
        password: await token(),
        // A session of a day: what is missed at QoS 1 comes after the reconnect.
        clean: false,
        clientId: `page-${Math.random().toString(36).slice(2)}`,
        properties: { sessionExpiryInterval: 86_400 },
        reconnectPeriod: 0,
    });
    let wait = 200;
    client.on("connect", () => (wait = 200));
    client.on("close", async () => {
        if (client.disconnecting) {
            return;
        }
        await new Promise((resolve) => setTimeout(resolve, Math.random() * wait));
        wait = Math.min(wait * 2, 30_000);
        client.options.password = await token().catch(() => client.options.password);
        client.reconnect();
    });
    return client;
}

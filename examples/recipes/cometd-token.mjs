// CometD with a token in the handshake's `ext`, a new one for each handshake.
//
//     import { tokenExtension } from "./cometd-token.mjs";
//     cometd.registerExtension("token", tokenExtension(() => session.token));
//     // Subscribed in every handshake's listener: a new handshake is a new session without subscriptions.
//     cometd.addListener("/meta/handshake", (reply) => reply.successful && cometd.subscribe("/orders/ann/*", show));
//     cometd.init("https://events.example/cometd");

/**
 * A CometD extension that puts `ext.authentication.token` into every handshake. When a token expires the server advises a new
 * handshake, which CometD does by itself; `token` is asked again then.
 */
export function tokenExtension(token) {
    return {
        outgoing(message) {
            if (message.channel === "/meta/handshake") {
                message.ext = { ...message.ext, authentication: { token: token() } };
            }
            return message;
        },
    };
}

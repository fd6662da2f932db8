//! Server-side WebSocket over an outbox: handshake, assembly, control frames, close codes, deflate

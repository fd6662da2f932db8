//! A connection after its handshake: reads bytes, keeps its outbox flowing

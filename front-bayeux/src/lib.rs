//! Bayeux (CometD) over long-polling, callback-polling and WebSocket

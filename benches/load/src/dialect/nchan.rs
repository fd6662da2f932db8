//! nginx with the nchan module, configured by `benches/peers/nchan.sh`.

/// Where the peer's configuration puts `nchan_publisher`.
pub(crate) const PUBLISH_PREFIX: &str = "/pub/";

/// Where the peer's configuration puts `nchan_subscriber eventsource`.
pub(crate) fn subscribe_path(channel: &str) -> String {
    format!("/sub/{channel}")
}

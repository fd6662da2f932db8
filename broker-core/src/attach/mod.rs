//! Being attached: a subscriber, how it catches up, and a subscription of the embedding service.

mod replay;
mod reserved;
mod retained;
mod subscriber;
mod subscription;

pub use self::replay::Replay;
pub use self::reserved::Reserved;
pub use self::subscriber::Subscriber;
pub use self::subscription::{Event, StartFrom, SubscribeOptions, Subscription};

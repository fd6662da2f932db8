//! Where somebody stands in all that is recorded.

use std::fmt;
use std::str::FromStr;

use super::id::{MessageId, MessageIdError};

/// A position: up to where somebody has everything. What lies in one log has one id; filters that reach what is in
/// memory and what an [`Engine`](crate::Engine) keeps have one for each of the two, as neither is older than the other:
/// `<id>~<id>`, opaque to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    one: MessageId,
    /// Of another epoch, in the order of their epochs.
    other: Option<MessageId>,
}

impl From<MessageId> for Position {
    fn from(one: MessageId) -> Self {
        Self { one, other: None }
    }
}

impl Position {
    /// The same with `id` in its log. Of more than two logs the position is not known.
    #[must_use]
    pub fn with(self, id: MessageId) -> Self {
        let kept = self.ids().find(|known| known.epoch() != id.epoch());
        match kept {
            None => id.into(),
            Some(kept) if kept.epoch() < id.epoch() => Self { one: kept, other: Some(id) },
            Some(kept) => Self { one: id, other: Some(kept) },
        }
    }

    /// The ids, one for each log.
    pub fn ids(&self) -> impl Iterator<Item = MessageId> + use<> {
        std::iter::once(self.one).chain(self.other)
    }

    /// The offset in the log of `epoch`, if it is known.
    pub fn in_epoch(&self, epoch: u64) -> Option<u64> {
        self.ids().find(|id| id.epoch() == epoch).map(MessageId::offset)
    }

    /// Its only id; `None` where it has two.
    pub fn only(&self) -> Option<MessageId> {
        self.other.is_none().then_some(self.one)
    }

    pub(crate) fn any(&self) -> MessageId {
        self.one
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.one.fmt(f)?;
        self.other.map_or(Ok(()), |other| write!(f, "~{other}"))
    }
}

impl FromStr for Position {
    type Err = MessageIdError;

    fn from_str(text: &str) -> Result<Self, MessageIdError> {
        let Some((one, other)) = text.split_once('~') else { return Ok(text.parse::<MessageId>()?.into()) };
        let (one, other): (MessageId, MessageId) = (one.parse()?, other.parse()?);
        if one.epoch() == other.epoch() { Err(MessageIdError) } else { Ok(Self::from(one).with(other)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_back_as_it_was_written() {
        let (memory, kept) = (MessageId::new(723, 18), MessageId::new(40, 7));
        let both = Position::from(memory).with(kept);
        assert_eq!(both, Position::from(kept).with(memory));
        assert_eq!(both.to_string(), "14-7~k3-18");
        assert_eq!(("k3-18~14-7".parse(), "14-7~k3-18".parse()), (Ok(both), Ok(both)));
        assert_eq!("k3-18".parse(), Ok(Position::from(memory)));
        let on = both.with(MessageId::new(40, 8));
        assert_eq!((on.in_epoch(40), on.in_epoch(723), on.in_epoch(1)), (Some(8), Some(18), None));
        assert_eq!((on.only(), Position::from(kept).only()), (None, Some(kept)));
        for text in ["", "~", "k3-18~", "~k3-18", "k3-18~k3-19", "k3-1~14-1~15-1"] {
            assert_eq!(text.parse::<Position>(), Err(MessageIdError), "{text}");
        }
    }
}

//! A message's id as Salesforce's clients know it: one integer, below 2^53 so that JavaScript keeps it exact.
//!
//! The integer is a point on one line for all lives of the server: the millisecond at which the log began, times 2,048,
//! plus the message's offset in it. It rises along a channel and from one life to the next, and an integer of another
//! life falls outside of what this one has given, so that it is recognised: a life would have to see more than 2,048
//! messages in each millisecond, or its clock set back to within moments of an earlier start, to meet another's.

use broker_core::MessageId;

/// Offsets that one millisecond has room for, as a power of two.
const BITS_PER_MS: u32 = 11;

/// Beyond it JavaScript's numbers have gaps.
const MASK: u64 = (1 << 53) - 1;

/// 2025-01-01T00:00:00Z, in milliseconds since 1970. The line is long enough for 139 years from there.
const ORIGIN_MS: u64 = 1_735_689_600_000;

/// The integer of an id.
pub(crate) fn integer(id: MessageId) -> u64 {
    first_of(id.epoch()).wrapping_add(id.offset()) & MASK
}

/// The id that an integer stands for, if it was given in the life of `head`.
pub(crate) fn parse(integer: u64, head: MessageId) -> Option<MessageId> {
    let offset = integer.wrapping_sub(first_of(head.epoch())) & MASK;
    let given = integer <= MASK && (1..=head.offset()).contains(&offset);
    given.then_some(MessageId::new(head.epoch(), offset))
}

fn first_of(epoch: u64) -> u64 {
    epoch.wrapping_sub(ORIGIN_MS) << BITS_PER_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = ORIGIN_MS + 60_000_000_000;

    fn id(epoch: u64, offset: u64) -> MessageId {
        MessageId::new(epoch, offset)
    }

    #[test]
    fn integers_come_back_in_their_own_life() {
        for epoch in [START, ORIGIN_MS, 0, 1 << 42] {
            let head = id(epoch, 1_000_000);
            for offset in [1, 2, 999_999, 1_000_000] {
                let integer = integer(id(epoch, offset));
                assert!(integer <= MASK);
                assert_eq!(parse(integer, head), Some(id(epoch, offset)), "{epoch} {offset}");
            }
        }
    }

    #[test]
    fn integers_rise_along_a_life_and_from_one_to_the_next() {
        let an_hour = 3_600_000;
        let busy = an_hour * 2_000;
        let line = [(START, 1), (START, 2), (START, busy), (START + an_hour, 1), (START + an_hour, busy)];
        assert!(line.map(|(epoch, offset)| integer(id(epoch, offset))).is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn what_another_life_gave_or_nobody_is_not_believed() {
        let head = id(START, 5_000);
        // A server that started a second before and after, each with as many messages as fit into that time.
        for (epoch, offsets) in [(START - 1_000, 1..=2_048_000), (START + 1_000, 1..=2_048_000)] {
            for offset in offsets.step_by(1_000) {
                assert_eq!(parse(integer(id(epoch, offset)), head), None, "{epoch} {offset}");
            }
        }
        for bare in [0, 1, 5, 5_000, u64::MAX, integer(id(START, 0)), integer(id(START, 5_001))] {
            assert_eq!(parse(bare, head), None, "{bare}");
        }
        assert_eq!(parse(integer(id(START, 5)) + MASK + 1, head), None, "an integer that no client can hold");
    }
}

//! Topic names and topic filters (MQTT 5.0 §4.7), and the core's filters they become.

use broker_core::{Filter, Segment};

/// Whether `topic` may be published to: not empty, no wildcard. U+0000 is refused by the string reader.
pub fn topic_is_valid(topic: &str) -> bool {
    !topic.is_empty() && !topic.bytes().any(|byte| byte == b'+' || byte == b'#')
}

/// A shared subscription's group and the topic filter behind it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Share<'a> {
    /// The share name.
    pub group: &'a str,
    /// What is after the share name.
    pub filter: &'a str,
}

/// Takes `$share/GROUP/FILTER` apart (MQTT 5.0 §4.8.2). `Ok(None)`: not a shared subscription.
///
/// # Errors
/// The share name or the filter is empty, or the share name holds a wildcard.
pub fn split_share(filter: &str) -> Result<Option<Share<'_>>, &'static str> {
    if filter == "$share" {
        return Err("a shared subscription needs a share name and a filter");
    }
    let Some(rest) = filter.strip_prefix("$share/") else { return Ok(None) };
    match rest.split_once('/') {
        Some((group, filter)) if !group.is_empty() && !filter.is_empty() => {
            if group.contains(['+', '#']) {
                return Err("a share name must not hold a wildcard");
            }
            Ok(Some(Share { group, filter }))
        }
        _ => Err("a shared subscription needs a share name and a filter"),
    }
}

/// The core's filter for a topic filter without its `$share/GROUP/`.
///
/// # Errors
/// `+` and `#` must stand alone in their level, `#` in the last one.
pub fn channel_filter(filter: &str) -> Result<Filter, &'static str> {
    if filter.is_empty() {
        return Err("a topic filter must not be empty");
    }
    let mut segments = Vec::with_capacity(4);
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        segments.push(match level {
            "+" => Segment::One,
            "#" if levels.peek().is_none() => Segment::RestZeroOrMore,
            "#" => return Err("`#` must be the last level of a topic filter"),
            level if level.contains(['+', '#']) => return Err("`+` and `#` must stand alone in their level"),
            level => Segment::Literal(level.into()),
        });
    }
    Filter::new(segments).map_err(|_| "not a topic filter this server can hold")
}

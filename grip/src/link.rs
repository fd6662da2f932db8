//! What a request to an origin says: what there is here, and which places its client has reached.

/// The value of the header `Grip-Feature`: what an origin may ask for.
pub const FEATURES: &str = "status, link:next, link:gone, filter:skip-self, filter:skip-users, filter:require-sub, filter:build-id, filter:var-subst, filter:http-check, filter:http-modify";

/// A value of the header `Grip-Last`: a channel and the id of the last item that its client has; quoted where that is
/// needed.
pub fn last(channel: &str, id: &str) -> String {
    format!("{}; last-id={}", word(channel), word(id))
}

fn word(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\",;\\<>=".contains(&byte) || byte >= 0x80;
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for char in text.chars() {
        if matches!(char, '"' | '\\') {
            quoted.push('\\');
        }
        // What no header can have is left out: there is no way to write it.
        if !char.is_control() {
            quoted.push(char);
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_filters_are_features() {
        for filter in crate::filter::Filter::ALL {
            let wanted = format!("filter:{}", filter.name());
            assert!(FEATURES.split(", ").any(|feature| feature == wanted), "{wanted}");
        }
    }

    #[test]
    fn what_separates_is_quoted() {
        assert_eq!(last("room/1", "7"), "room/1; last-id=7");
        assert_eq!(last("a b", ""), r#""a b"; last-id="""#);
        assert_eq!(last("räume", "a=\\\"b"), r#"räume; last-id="a=\\\"b""#);
        assert_eq!(last("a\nb", "1"), r#""ab"; last-id=1"#);
        // What is written is read back.
        let text = last("x;\",y", "1,2");
        let element = crate::fields::list(&text).unwrap().remove(0);
        assert_eq!((element.first.as_str(), element.parameter("last-id")), ("x;\",y", Some("1,2")));
    }
}

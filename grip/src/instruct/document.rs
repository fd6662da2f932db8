//! An instruction that is the body of an answer, `application/grip-instruct`.

use http::HeaderMap;

use super::{
    Channel, Hold, Instruction, KeepAlive, KeepAliveMode, MAX_DOCUMENT_BYTES, MIN_TIMEOUT, Response,
};
use super::{filters, in_headers, lasting};
use crate::error::{Malformed, Problem};
use crate::json::{self, Object};

/// What a document instructs. What it does not speak of, links above all, the headers beside it may say.
///
/// # Errors
/// The status is not 200, or it is no document, or a member does not say what it should.
pub fn document(status: u16, headers: &HeaderMap, body: &[u8]) -> Result<Instruction, Malformed> {
    if status != 200 {
        return Err(Malformed::new("", Problem::NotOk(status)).below("application/grip-instruct"));
    }
    let mut told = in_headers(headers)?.unwrap_or_default();
    read(&mut told, body).map_err(|error| error.below("instruct"))?;
    Ok(told)
}

fn read(told: &mut Instruction, body: &[u8]) -> Result<(), Malformed> {
    if body.len() > MAX_DOCUMENT_BYTES {
        return Err(Malformed::new("", Problem::TooLong(MAX_DOCUMENT_BYTES)));
    }
    let document = Object::read(body)?;
    if let Some(hold) = document.object("hold")? {
        read_hold(told, &hold).map_err(|error| error.below("hold"))?;
    }
    let mut response = Response::default();
    if let Some(object) = document.object("response")? {
        read_response(told, &mut response, &object).map_err(|error| error.below("response"))?;
    }
    told.response = Some(response);
    Ok(())
}

fn read_hold(told: &mut Instruction, hold: &Object<'_>) -> Result<(), Malformed> {
    let mode = hold.text("mode")?;
    let mode = mode.as_deref().map_or(Ok(Hold::Response), Hold::parse);
    told.hold = Some(mode.map_err(|problem| Malformed::new("mode", problem))?);
    told.channels.clear();
    let channels = hold.list("channels")?.ok_or_else(|| json::missing("channels"))?;
    for (place, raw) in channels.into_iter().enumerate() {
        let place = format!("channels[{place}]");
        let channel = Object::of(raw).and_then(|object| channel(&object));
        let channel = channel.map_err(|error| error.below(&place))?;
        told.add_channel(channel).map_err(|problem| Malformed::new(place, problem))?;
    }
    if let Some(seconds) = hold.number("timeout")? {
        told.timeout = lasting(seconds).max(MIN_TIMEOUT);
    }
    if let Some(object) = hold.object("keep-alive")? {
        told.keep_alive = Some(keep_alive(&object).map_err(|error| error.below("keep-alive"))?);
    }
    for (name, value) in hold.map("meta")? {
        told.set_meta(name, value).map_err(|problem| Malformed::new("meta", problem))?;
    }
    Ok(())
}

fn channel(object: &Object<'_>) -> Result<Channel, Malformed> {
    let names = object.texts("filters")?.unwrap_or_default();
    let filters = filters(names).map_err(|problem| Malformed::new("filters", problem))?;
    Ok(Channel { name: object.needed_text("name")?, prev_id: object.text("prev-id")?, filters })
}

fn keep_alive(object: &Object<'_>) -> Result<KeepAlive, Malformed> {
    let content = object.content("content-bin", "content")?.ok_or_else(|| json::missing("content"))?;
    let mode = object.text("mode")?;
    let mode = mode.as_deref().map_or(Ok(KeepAliveMode::Idle), KeepAliveMode::parse);
    let mode = mode.map_err(|problem| Malformed::new("mode", problem))?;
    Ok(KeepAlive::new(content, mode, object.number("timeout")?))
}

fn read_response(
    told: &mut Instruction,
    response: &mut Response,
    object: &Object<'_>,
) -> Result<(), Malformed> {
    let (status, reason) = object.status()?;
    if status.is_some() {
        told.status = status;
        told.reason = None;
    }
    if reason.is_some() {
        told.reason = reason;
    }
    for (name, value) in object.headers()? {
        response.headers.append(name, value);
    }
    super::strip(&mut response.headers);
    response.body = object.content("body-bin", "body")?.unwrap_or_default();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;

    use super::*;
    use crate::filter::Filter;

    fn told(text: &str) -> Result<Instruction, String> {
        document(200, &HeaderMap::new(), text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_whole_document_is_read() {
        let told = told(
            r#"{"hold":{"mode":"stream","channels":[{"name":"a","prev-id":"1","filters":["var-subst"]},{"name":"b"}],
                "timeout":3,"keep-alive":{"content":"\n","timeout":20,"mode":"interval"},"meta":{"user":"ann"}},
                "response":{"code":201,"reason":"Made","headers":[["X-A","1"],["x-a","2"],["Content-Length","9"],
                ["grip-hold","stream"]],"body":"hi"}}"#,
        )
        .unwrap();
        assert_eq!(told.hold, Some(Hold::Stream));
        let first = Channel { name: "a".into(), prev_id: Some("1".into()), filters: vec![Filter::VarSubst] };
        assert_eq!(told.channels, [first, Channel { name: "b".into(), prev_id: None, filters: vec![] }]);
        assert_eq!(told.timeout, Duration::from_secs(5));
        let keep_alive = KeepAlive::new("\n".into(), KeepAliveMode::Interval, Some(20));
        assert_eq!(told.keep_alive, Some(keep_alive));
        assert_eq!(told.meta, [("user".to_owned(), "ann".to_owned())]);
        assert_eq!((told.status.unwrap().as_u16(), told.reason.as_deref()), (201, Some("Made")));
        let response = told.response.unwrap();
        let values: Vec<_> = response.headers.get_all("x-a").iter().collect();
        assert_eq!(values, ["1", "2"], "lists keep repeats");
        assert_eq!(response.headers.len(), 2, "length and instructions are not the client's");
        assert_eq!(response.body, "hi");
    }

    #[test]
    fn what_is_left_out_has_defaults() {
        let told = told(r#"{"hold":{"channels":[]}}"#).unwrap();
        assert_eq!(told.hold, Some(Hold::Response));
        assert_eq!((told.timeout, told.status), (Duration::from_secs(55), None));
        assert_eq!(told.response, Some(Response::default()));
    }

    #[test]
    fn bytes_come_as_base64_and_headers_as_an_object() {
        let told = told(
            r#"{"hold":{"mode":"response","channels":[{"name":"a"}],"keep-alive":{"content-bin":"AAE="}},
                "response":{"headers":{"Content-Type":"image/png"},"body-bin":"/wA="}}"#,
        )
        .unwrap();
        assert_eq!(told.keep_alive.unwrap().content, &b"\x00\x01"[..]);
        let response = told.response.unwrap();
        assert_eq!(response.body, &b"\xff\x00"[..]);
        assert_eq!(response.headers["content-type"], "image/png");
    }

    #[test]
    fn the_document_wins_over_headers_and_links_stay() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("grip-hold", "response"),
            ("grip-channel", "old"),
            ("grip-status", "404 No"),
            ("grip-link", "</next>; rel=next"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let body = br#"{"hold":{"mode":"stream","channels":[{"name":"new"}]},"response":{"code":200}}"#;
        let told = document(200, &headers, body).unwrap();
        assert_eq!(told.hold, Some(Hold::Stream));
        assert_eq!(told.channels.len(), 1);
        assert_eq!(told.channels[0].name, "new");
        assert_eq!((told.status.unwrap().as_u16(), told.reason), (200, None));
        assert_eq!(told.next.unwrap().uri, "/next");
    }

    #[test]
    fn parameters_and_case_of_the_type_do_not_matter() {
        for (text, is) in [
            ("application/grip-instruct", true),
            ("Application/GRIP-Instruct; charset=utf-8", true),
            ("application/grip-instruct2", false),
            ("application/json", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("content-type", HeaderValue::from_static(text));
            assert_eq!(crate::instruct::is_document(&headers), is, "{text}");
        }
        assert!(!crate::instruct::is_document(&HeaderMap::new()));
    }

    #[test]
    fn what_is_malformed_is_named() {
        for (text, why) in [
            ("[]", "instruct: is not an object"),
            (r#"{"hold":[]}"#, "instruct.hold: is not an object"),
            (r#"{"hold":{}}"#, "instruct.hold.channels: is missing"),
            (r#"{"hold":{"mode":"x","channels":[]}}"#, r#"instruct.hold.mode: "x" is not known"#),
            (r#"{"hold":{"channels":[{"name":"a"},{}]}}"#, "instruct.hold.channels[1].name: is missing"),
            (r#"{"hold":{"channels":[{"name":""}]}}"#, "instruct.hold.channels[0].name: is empty"),
            (r#"{"hold":{"channels":[7]}}"#, "instruct.hold.channels[0]: is not an object"),
            (
                r#"{"hold":{"channels":[{"name":"a","filters":["skip-self",1]}]}}"#,
                "instruct.hold.channels[0].filters[1]: is not a text",
            ),
            (
                r#"{"hold":{"channels":[{"name":"a","filters":["x"]}]}}"#,
                r#"instruct.hold.channels[0].filters: "x" is not known"#,
            ),
            (r#"{"hold":{"channels":[],"timeout":-1}}"#, r#"instruct.hold.timeout: "-1" is not a number"#),
            (r#"{"hold":{"channels":[],"keep-alive":{}}}"#, "instruct.hold.keep-alive.content: is missing"),
            (r#"{"hold":{"channels":[],"meta":{"a":1}}}"#, "instruct.hold.meta.a: is not a text"),
            (r#"{"response":{"code":99}}"#, r#"instruct.response.code: "99" is not a status of an answer"#),
            (
                r#"{"response":{"headers":[["a"]]}}"#,
                "instruct.response.headers: is not a list of pairs of texts",
            ),
            (
                r#"{"response":{"headers":{"a b":"c"}}}"#,
                r#"instruct.response.headers: "a b" cannot stand in a header"#,
            ),
            (
                r#"{"response":{"headers":{"a":"b\nc"}}}"#,
                r#"instruct.response.headers: "b\nc" cannot stand in a header"#,
            ),
            (r#"{"response":{"body-bin":"?"}}"#, "instruct.response.body-bin: is not base64"),
        ] {
            assert_eq!(told(text), Err(why.to_owned()), "{text}");
        }
        assert!(told("{").unwrap_err().starts_with("instruct: is not JSON: "));
        let error = document(201, &HeaderMap::new(), b"{}").unwrap_err();
        assert_eq!(error.to_string(), "application/grip-instruct: came with status 201, not 200");
        let long = format!("{}{{}}", " ".repeat(MAX_DOCUMENT_BYTES - 1));
        assert_eq!(told(&long), Err("instruct: longer than 1048576 bytes".into()));
        assert!(told(&long[1..]).is_ok());
    }

    #[test]
    fn the_bounds_of_channels_and_meta_hold() {
        let list =
            |count: usize| (0..count).map(|n| format!(r#"{{"name":"{n}"}}"#)).collect::<Vec<_>>().join(",");
        assert!(told(&format!(r#"{{"hold":{{"channels":[{}]}}}}"#, list(200))).is_ok());
        let refused = told(&format!(r#"{{"hold":{{"channels":[{}]}}}}"#, list(201)));
        assert_eq!(refused, Err("instruct.hold.channels[200]: more than 200".into()));
        let meta = (0..101).map(|n| format!(r#""{n}":"x""#)).collect::<Vec<_>>().join(",");
        let refused = told(&format!(r#"{{"hold":{{"channels":[],"meta":{{{meta}}}}}}}"#));
        assert_eq!(refused, Err("instruct.hold.meta: more than 100".into()));
        let long = "x".repeat(16 << 10);
        let refused = told(&format!(r#"{{"hold":{{"channels":[],"meta":{{"a":"{long}"}}}}}}"#));
        assert_eq!(refused, Err("instruct.hold.meta: longer than 16384 bytes".into()));
    }
}

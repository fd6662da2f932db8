//! Properties of MQTT 5 in the header of a request, and user properties in answers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker_core::Properties;
use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Map, Value};

use super::query::Query;
use crate::error::AwsError;

/// The longest text or data of a property in MQTT, in bytes.
const MAX_PROPERTY_BYTES: usize = 65_535;

/// What travels with a message beside its payload.
///
/// # Errors
/// A property that MQTT does not have so.
pub(super) fn read(headers: &HeaderMap, query: &Query<'_>, payload: &[u8]) -> Result<Properties, AwsError> {
    let mut properties = Properties::default();
    if let Some(written) = field(headers, "x-amz-mqtt5-user-properties")? {
        properties.user = user_properties(written)?;
    }
    properties.payload_is_utf8 = match field(headers, "x-amz-mqtt5-payload-format-indicator")? {
        None => None,
        Some("UNSPECIFIED_BYTES") => Some(false),
        Some("UTF8_DATA") if std::str::from_utf8(payload).is_ok() => Some(true),
        Some("UTF8_DATA") => return Err(AwsError::invalid("the payload is said to be UTF-8 and is not")),
        Some(_) => {
            let message = "the payload format indicator is neither UNSPECIFIED_BYTES nor UTF8_DATA";
            return Err(AwsError::invalid(message));
        }
    };
    if let Some(written) = field(headers, "x-amz-mqtt5-correlation-data")? {
        let data = STANDARD.decode(written).ok().filter(|data| data.len() <= MAX_PROPERTY_BYTES);
        let data = data.ok_or_else(|| AwsError::invalid("the correlation data is not base64"))?;
        properties.correlation = Some(Bytes::from(data));
    }
    if let Some(topic) = query.text("responseTopic") {
        let is_topic = !topic.is_empty()
            && topic.len() <= MAX_PROPERTY_BYTES
            && !topic.contains(['+', '#'])
            && !topic.contains(char::is_control);
        if !is_topic {
            return Err(AwsError::invalid("`responseTopic` is no topic that can be published to"));
        }
        properties.reply_to = Some(topic.into());
    }
    Ok(properties)
}

fn field<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<Option<&'h str>, AwsError> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    value.to_str().map(Some).map_err(|_| AwsError::invalid(format!("the header field {name} is not ASCII")))
}

/// Names with their values.
type UserProperties = Vec<(Box<str>, Box<str>)>;

/// Base64 of a JSON array of objects, one property each: `[{"name":"value"}]`. boto3 encodes the array as a JSON string
/// once more.
fn user_properties(written: &str) -> Result<UserProperties, AwsError> {
    let wrong = || {
        let message = "user properties are not the base64 of a JSON array of objects with one text each";
        AwsError::invalid(message)
    };
    let decoded = STANDARD.decode(written).map_err(|_| wrong())?;
    let mut value: Value = serde_json::from_slice(&decoded).map_err(|_| wrong())?;
    if let Value::String(text) = &value {
        value = serde_json::from_str(text).map_err(|_| wrong())?;
    }
    let Value::Array(entries) = value else { return Err(wrong()) };
    let mut properties = Vec::with_capacity(entries.len());
    for entry in entries {
        let Value::Object(entry) = entry else { return Err(wrong()) };
        for (name, value) in entry {
            let Value::String(value) = value else { return Err(wrong()) };
            if name.len().max(value.len()) > MAX_PROPERTY_BYTES || name.contains('\0') || value.contains('\0')
            {
                return Err(wrong());
            }
            properties.push((name.into(), value.into()));
        }
    }
    Ok(properties)
}

/// The same for an answer: `None` if there are none.
pub(super) fn write_user_properties(properties: Option<&Properties>) -> Option<String> {
    let user = &properties?.user;
    let object = |(name, value): &(Box<str>, Box<str>)| {
        Value::Object(Map::from_iter([(String::from(&**name), Value::from(&**value))]))
    };
    let array: Vec<Value> = user.iter().map(object).collect();
    (!array.is_empty()).then(|| STANDARD.encode(Value::Array(array).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &str)| {
            (http::HeaderName::from_static(name), value.parse().unwrap())
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn user_properties_are_read_as_both_sdks_write_them() {
        let array = r#"[{"k":"v"},{"k":"é"}]"#;
        let once = STANDARD.encode(array);
        let twice = STANDARD.encode(Value::from(array).to_string());
        for written in [&once, &twice] {
            let read = user_properties(written).unwrap();
            assert_eq!(read, [("k".into(), "v".into()), ("k".into(), "é".into())]);
        }
        let mut properties = Properties::default();
        properties.user = user_properties(&twice).unwrap();
        assert_eq!(write_user_properties(Some(&properties)), Some(once));
        assert_eq!(write_user_properties(None), None);
        for wrong in
            ["%", "", &STANDARD.encode("{}"), &STANDARD.encode(r#"[{"k":1}]"#), &STANDARD.encode("[1]")]
        {
            assert!(user_properties(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn properties_that_mqtt_does_not_have_are_refused() {
        let query = |text| Query::read(Some(text)).unwrap();
        let none = query("");
        let read = |fields: &[(&'static str, &str)], payload: &[u8]| read(&headers(fields), &none, payload);
        let utf8 = ("x-amz-mqtt5-payload-format-indicator", "UTF8_DATA");
        assert_eq!(read(&[utf8], b"x").unwrap().payload_is_utf8, Some(true));
        assert!(read(&[utf8], b"\xff").is_err());
        assert!(read(&[("x-amz-mqtt5-payload-format-indicator", "x")], b"").is_err());
        let correlated = read(&[("x-amz-mqtt5-correlation-data", "AP8=")], b"").unwrap();
        assert_eq!(correlated.correlation.as_deref(), Some(&[0, 255][..]));
        assert!(read(&[("x-amz-mqtt5-correlation-data", "*")], b"").is_err());
        let topic = |text| super::read(&HeaderMap::new(), &query(text), b"").map(|read| read.reply_to);
        assert_eq!(topic("responseTopic=a%2Fb").unwrap().as_deref(), Some("a/b"));
        assert!(topic("responseTopic=a%2F%23").is_err() && topic("responseTopic=").is_err());
    }
}

//! `[[aws.rules]]`: the messages of a filter go to a function.

use std::collections::BTreeMap;
use std::time::Duration;

use broker_core::Filter;
use gateway::rules::Settings;
use http::{HeaderName, HeaderValue, Uri};
use serde::{Deserialize, Serialize};
use settings::{Size, Span};

/// What is wrong with which key.
type Wrong = (&'static str, String);

/// One rule, as it is written.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    name: String,
    filter: String,
    url: String,
    #[serde(default)]
    integration: Integration,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    batch: Option<Batch>,
    /// The waits between attempts.
    #[serde(default = "retry")]
    retry: Vec<Span>,
    #[serde(default = "timeout")]
    timeout: Span,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Integration {
    #[default]
    Http,
    Lambda,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Batch {
    max_messages: usize,
    max_bytes: Size,
    max_wait: Span,
    across_topics: bool,
}

/// As AWS'.
impl Default for Batch {
    fn default() -> Self {
        let max_wait = Span(Duration::from_millis(200));
        Batch { max_messages: 10, max_bytes: Size(128 << 10), max_wait, across_topics: true }
    }
}

/// As AWS: tried twice more.
fn retry() -> Vec<Span> {
    [1, 5].map(|secs| Span(Duration::from_secs(secs))).to_vec()
}

fn timeout() -> Span {
    Span(Duration::from_secs(29))
}

impl Written {
    pub(super) fn rule(&self) -> Result<Settings, Wrong> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if !(1..=128).contains(&self.name.len()) || !self.name.bytes().all(is_plain) {
            return Err(("name", "1 to 128 letters, digits, `-` and `_`".to_owned()));
        }
        let url: Uri = self.url.parse().map_err(|_| ("url", format!("{:?} is no URL", self.url)))?;
        if !matches!(url.scheme_str(), Some("http" | "https")) || url.host().is_none() {
            return Err(("url", "http:// or https:// and a host".to_owned()));
        }
        let mut rule = Settings::new(&*self.name, filter_of(&self.filter)?, url);
        rule.is_lambda = self.integration == Integration::Lambda;
        for (name, value) in &self.headers {
            let wrong = || ("headers", format!("{name:?} = {value:?} is no header field"));
            let name = HeaderName::try_from(name.as_str()).map_err(|_| wrong())?;
            HeaderValue::from_str(value).map_err(|_| wrong())?;
            if ["host", "content-length", "connection", "transfer-encoding"].contains(&name.as_str()) {
                return Err(("headers", format!("{:?} is set by the broker alone", name.as_str())));
            }
            rule.headers.push((name, value.clone()));
        }
        rule.timeout = self.timeout.0;
        if !(Duration::from_millis(50)..=Duration::from_secs(29)).contains(&rule.timeout) {
            return Err(("timeout", "50ms to 29s".to_owned()));
        }
        if self.retry.len() > 20 || self.retry.iter().any(|wait| wait.0 > Duration::from_secs(7200)) {
            return Err(("retry", "at most 20 waits of at most 2h".to_owned()));
        }
        rule.bounds.retry = self.retry.iter().map(|wait| wait.0).collect();
        if let Some(batch) = &self.batch {
            if !(1..=500).contains(&batch.max_messages) {
                return Err(("batch.max_messages", "1 to 500".to_owned()));
            }
            let bytes = batch.max_bytes.0;
            if !(1..=1 << 20).contains(&bytes) {
                return Err(("batch.max_bytes", "at most 1 MiB".to_owned()));
            }
            if batch.max_wait.0 > Duration::from_secs(5) {
                return Err(("batch.max_wait", "at most 5s".to_owned()));
            }
            rule.is_batch = true;
            rule.across_topics = batch.across_topics;
            rule.bounds.batch = batch.max_messages;
            rule.bounds.batch_bytes = bytes;
            rule.bounds.linger = batch.max_wait.0;
            rule.bounds.apart = !batch.across_topics;
        }
        Ok(rule)
    }
}

/// A filter as MQTT writes it, as all topics of AWS IoT.
fn filter_of(text: &str) -> Result<Filter, Wrong> {
    let wrong = |why: &str| ("filter", format!("{text:?}: {why}"));
    let segments: Vec<&str> = text.split('/').collect();
    for (at, segment) in segments.iter().enumerate() {
        let is_alone = *segment == "#" || *segment == "+";
        if segment.contains(['#', '+']) && !is_alone {
            return Err(wrong("`#` and `+` stand for whole segments"));
        }
        if *segment == "#" && at + 1 < segments.len() {
            return Err(wrong("`#` is the last segment"));
        }
        if *segment == "*" || *segment == "**" {
            return Err(wrong("a topic of MQTT is meant, whose wildcards are `+` and `#`"));
        }
    }
    let text: Vec<&str> =
        segments.iter().map(|segment| if *segment == "+" { "*" } else { segment }).collect();
    Filter::parse(&text.join("/")).map_err(|error| wrong(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use figment::Figment;
    use figment::providers::{Format as _, Toml};

    use super::*;

    fn rule(text: &str) -> Result<Settings, String> {
        let written: Written =
            Figment::from(Toml::string(text)).extract().map_err(|error| error.to_string())?;
        written.rule().map_err(|(key, message)| format!("{key}: {message}"))
    }

    #[test]
    fn a_rule_is_what_is_written() {
        let all = r#"
            name = "many"
            filter = "rule/+/many/#"
            url = "http://127.0.0.1:9000/rule/many"
            headers = { "x-topic" = "$topic" }
            batch = { max_messages = 10, max_bytes = "128 KiB", max_wait = "200ms", across_topics = false }
            retry = ["50ms", "100ms"]
        "#;
        let rule_of_all = rule(all).unwrap();
        assert_eq!(rule_of_all.filter, Filter::parse("rule/*/many/#").unwrap());
        let bounds = &rule_of_all.bounds;
        assert_eq!((bounds.batch, bounds.batch_bytes, bounds.apart), (10, 128 << 10, true));
        assert_eq!(bounds.retry, [50, 100].map(Duration::from_millis));
        let few = "name = \"a\"\nfilter = \"a\"\nurl = \"http://h/\"\n";
        let rule_of_few = rule(few).unwrap();
        assert!(!rule_of_few.is_batch && !rule_of_few.is_lambda && rule_of_few.bounds.batch == 1);
        assert!(rule(&format!("{few}integration = \"lambda\"")).unwrap().is_lambda);
        for (wrong, named) in [
            ("batch = { max_messages = 501 }", "batch.max_messages"),
            ("batch = { max_bytes = \"2 MiB\" }", "batch.max_bytes"),
            ("batch = { max_wait = \"6s\" }", "batch.max_wait"),
            ("timeout = \"1m\"", "timeout"),
            ("headers = { Host = \"x\" }", "headers"),
            ("integration = \"sqs\"", "sqs"),
            ("other = 1", "other"),
        ] {
            let error = rule(&format!("{few}{wrong}")).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
        for (filter, is_right) in
            [("a/#/b", false), ("a+/b", false), ("a/**", false), ("+/b", true), ("#", true)]
        {
            let text = format!("name = \"a\"\nfilter = \"{filter}\"\nurl = \"http://h/\"");
            assert_eq!(rule(&text).is_ok(), is_right, "{filter}");
        }
    }
}

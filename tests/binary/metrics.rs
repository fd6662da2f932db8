//! Every number has a name by the conventions, stands in the documentation, and the files for Prometheus and Grafana
//! name numbers that exist.
//!
//! `FANWIRE_WRITE_DOCS=1 cargo nextest run -p fanwire -E 'test(the_page_of_metrics)'` writes the table of
//! `docs/metrics.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use fanwire::{CertificateFiles, TlsConfig, TlsMode};

use crate::support::TestServer;
use crate::support::http::request;
use crate::support::tls::Authority;

const OPENMETRICS: &str = "application/openmetrics-text";

/// What a server with every front shows, in the format that `accept` asks for.
async fn scrape(accept: &str) -> String {
    // Of one that speaks TLS as well, and serves clients of AWS.
    let folder = tempfile::tempdir().expect("a folder");
    let (cert_file, key_file) = Authority::new().issue(&["localhost"]).write(folder.path(), "server");
    let data = tempfile::tempdir().expect("a directory");
    let server = TestServer::with(|config| {
        let mut tls = TlsConfig::default();
        tls.certificates = vec![CertificateFiles::new(cert_file, key_file)];
        config.tls = Some(tls);
        config.http_tls.mode = TlsMode::Optional;
        // A namespace of its own, to see its label.
        let chat = fanwire::core::NamespaceConfig::new("chat", config.broker.log);
        config.broker.namespaces = vec![chat];
        let settings = fanwire::store::Settings::new(data.path());
        config.store = Some(fanwire::store::Store::open(settings).expect("it opens").into());
        let aws = fanwire::aws::Config::default();
        *config = config.clone().with_front(move |context| fanwire::aws::Front::new(context, aws.clone()));
        call_functions(config);
    })
    .await;
    // The first call of the webhook ends a moment later.
    let mut text = String::new();
    for _ in 0..1_000 {
        text = request(server.http, "GET", "/metrics", &[("accept", accept)], "").await.text().to_owned();
        if text.contains("fanwire_webhook_requests_total{") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    server.stop().await;
    text
}

/// That, and what a node of a cluster shows beside it, which has no store: one that is alone.
async fn everything() -> String {
    let mut settings = fanwire::cluster::Settings::new(vec!["nats://127.0.0.1:1".to_owned()]);
    settings.node = "alone".to_owned();
    let cluster = fanwire::cluster::Cluster::join(settings).await.expect("it begins alone");
    let server = TestServer::with(|config| config.cluster = Some(cluster.into())).await;
    let answer = request(server.http, "GET", "/metrics", &[], "").await;
    let of_cluster = answer.text().lines().filter(|line| line.contains("fanwire_cluster_"));
    let of_cluster = of_cluster.fold(String::new(), |text, line| text + line + "\n");
    server.stop().await;
    scrape("").await + &of_cluster
}

/// A webhook, a rule, a gateway and a route, with functions where nobody is.
fn call_functions(config: &mut fanwire::Config) {
    use gateway_aws::config::{Api, Integration, Kind, Route};
    let nowhere = || http::Uri::from_static("http://127.0.0.1:1/");
    let hook = serde_json::json!({"id": "test", "url": nowhere().to_string(), "events": ["broker.started"],
        "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"});
    let hook: fanwire::gateway::webhook::Written = serde_json::from_value(hook).expect("a webhook");
    config.gateway.webhooks.push(hook.settings(None).expect("settings"));
    let filter = fanwire::Filter::parse("rule/**").expect("a filter");
    config.gateway.rules.push(fanwire::gateway::rules::Settings::new("test", filter, nowhere()));
    let selection = "$request.body.action".parse().expect("a selection");
    let mut api = Api::new("test", "/test", selection);
    api.integrations.insert("main".to_owned(), Integration::new(Kind::Lambda, nowhere()));
    api.routes.insert("$default".to_owned(), Route::new("main"));
    let mut apis = gateway_aws::Config::default();
    apis.apis = vec![api];
    let route = serde_json::json!([{"id": "test", "dialect": "grip", "path": "/live/**", "origin": "http://127.0.0.1:1"}]);
    let routes: Vec<gateway_grip::settings::Written> = serde_json::from_value(route).expect("routes");
    let routes = gateway_grip::settings::read(&routes, &Default::default(), Path::new("/"), |_| false);
    config.grip.settings = routes.expect("settings");
    *config = config.clone().with_front(move |context| {
        gateway_aws::Front::new(context.broker.clone(), context.authenticator.clone(), apis.clone())
    });
}

/// A name with all its samples.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    help: String,
    /// Names of labels, and the values of those that are few.
    labels: BTreeMap<String, BTreeSet<String>>,
    samples: BTreeSet<String>,
}

/// The families of the Prometheus text format.
fn families(text: &str) -> BTreeMap<String, Family> {
    let mut families = BTreeMap::<String, Family>::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            current = name.to_owned();
            let family = families.entry(current.clone()).or_default();
            assert!(family.help.is_empty(), "{name} has two helps");
            family.help = help.to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            assert_eq!(name, current, "the type follows the help");
            families.entry(current.clone()).or_default().kind = kind.to_owned();
        } else {
            let (series, number) = line.rsplit_once(' ').expect("a number");
            number.parse::<f64>().expect("a number");
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let family = families.get_mut(&current).expect("a help before its samples");
            assert!(name.starts_with(&current), "{name} stands below {current}");
            assert!(family.samples.insert(series.to_owned()), "{series} stands there twice");
            for label in labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty()) {
                let (label, value) = label.split_once("=\"").expect("a label");
                let values = family.labels.entry(label.to_owned()).or_default();
                values.insert(value.trim_end_matches('"').to_owned());
            }
        }
    }
    families
}

#[tokio::test]
async fn names_kinds_and_units_are_by_the_conventions() {
    let families = families(&everything().await);
    assert!(families.len() > 80, "{}", families.len());
    // Parts that not every server has are there too.
    for part in ["fanwire_tls_handshake_seconds", "fanwire_tls_certificate_remaining_seconds"] {
        assert!(families.contains_key(part), "{part}");
    }
    for (name, Family { kind, help, labels, samples }) in &families {
        assert!(name.starts_with("fanwire_") || name.starts_with("process_"), "{name}");
        let is_plain = |text: &str| text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        assert!(is_plain(name) && labels.keys().all(|label| is_plain(label)), "{name} {labels:?}");
        assert!(!samples.is_empty(), "{name} has no sample");
        assert!(help.len() > 6 && !help.ends_with('.') && !help.contains('\\'), "{name}: {help}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
        let bare = name.trim_end_matches("_total");
        for unit in
            ["milliseconds", "microseconds", "ms", "us", "minutes", "kilobytes", "kb", "mb", "percent"]
        {
            assert!(!bare.ends_with(&format!("_{unit}")), "{name}: base units are seconds, bytes and ratios");
        }
        let is_told_elsewhere = ["_count", "_sum", "_bucket", "_info"].iter().any(|end| bare.ends_with(end));
        assert_eq!(is_told_elsewhere, name == "fanwire_build_info", "{name}");
        match &**kind {
            "counter" | "gauge" => {
                let lone = samples.iter().all(|series| series.split('{').next() == Some(name.as_str()));
                assert!(lone, "{name} {samples:?}");
            }
            "histogram" => {
                assert!(name.ends_with("_seconds"), "{name}");
                assert!(labels["le"].contains("+Inf"), "{name} {labels:?}");
            }
            other => panic!("{name} is a {other}"),
        }
        // What varies is bounded: few words, or numbers of lanes.
        for (label, values) in labels {
            assert!(values.len() <= 32 || label == "lane", "{name} {label} {values:?}");
        }
    }
}

#[tokio::test]
async fn both_formats_have_the_same_samples() {
    let (plain, open) = (scrape("text/plain").await, scrape(OPENMETRICS).await);
    let series = |text: &str| -> BTreeSet<String> {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
    };
    assert_eq!(series(&plain), series(&open));
    assert!(open.ends_with("\n# EOF\n") && !plain.contains("# EOF"));
    // OpenMetrics names a counter without what its sample ends with, and tells the unit apart.
    assert!(
        open.contains("\n# TYPE fanwire_published_bytes counter\n# UNIT fanwire_published_bytes bytes\n")
    );
    assert!(plain.contains("\n# TYPE fanwire_published_bytes_total counter\n"));
}

#[tokio::test]
async fn who_came_and_left_is_counted_by_protocol_and_reason() {
    let server = TestServer::start().await;
    drop(crate::support::sse::EventStream::open(server.http, "/sse/a").await);
    let wanted = [
        "fanwire_clients_joined_total{protocol=\"sse\"} 1\n",
        "fanwire_clients_left_total{protocol=\"sse\",reason=\"client\"} 1\n",
        "fanwire_clients_left_total{protocol=\"mqtt\",reason=\"too_slow\"} 0\n",
    ];
    crate::support::within(async {
        loop {
            let text = request(server.http, "GET", "/metrics", &[], "").await.text().to_owned();
            if wanted.iter().all(|line| text.contains(line)) {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_message_is_timed_until_its_last_write_and_a_request_until_its_answer() {
    let server = TestServer::start().await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(crate::support::sse::EventStream::open(server.http, "/sse/a").await);
    }
    server.wait_for_subscriptions(3).await;
    server.publish("nobody/there", "x");
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    server.publish("a", "x");
    for stream in &mut streams {
        stream.next().await.expect("the message");
    }
    let times = || server.broker.stats().delivery_times;
    crate::support::eventually(|| times().count() > 0).await;
    assert_eq!(times().count(), 1, "once for all its subscribers, and not where nobody is");
    assert!(!times().sum.is_zero() && times().sum < crate::support::PATIENCE, "{:?}", times().sum);
    // At most one in ten milliseconds.
    for _ in 0..1_000 {
        server.publish("a", "x");
    }
    crate::support::eventually(|| server.broker.stats().delivered >= 3 * 1_001).await;
    assert!(times().count() < 200, "{}", times().count());
    request(server.http, "GET", "/v1/history/a", &[], "").await;
    let text = request(server.http, "GET", "/metrics", &[], "").await.text().to_owned();
    assert!(text.contains("fanwire_http_request_seconds_count{route=\"history\"} 1\n"), "{text}");
}

/// What begins and ends the part of the page that is written from the code.
const TABLE: (&str, &str) =
    ("<!-- written from the code: begin -->\n", "<!-- written from the code: end -->\n");

fn table(families: &BTreeMap<String, Family>) -> String {
    let mut out = String::from("| name | kind | labels | what it is |\n| --- | --- | --- | --- |\n");
    for (name, family) in families {
        let labels: Vec<_> = family
            .labels
            .iter()
            .filter(|(label, _)| *label != "le")
            .map(|(label, values)| match &**label {
                // What these are differs from server to server.
                "lane" | "namespace" | "version" | "commit" | "protocols" | "certificate" | "hook"
                | "rule" | "gateway" | "integration" => {
                    format!("`{label}`")
                }
                // Of these only what has happened is there.
                _ if name == "fanwire_webhook_requests_total" => format!("`{label}`"),
                _ => {
                    let values: Vec<_> = values.iter().map(String::as_str).collect();
                    format!("`{label}`: {}", values.join(" "))
                }
            })
            .collect();
        let kind = &family.kind;
        out.push_str(&format!("| `{name}` | {kind} | {} | {} |\n", labels.join("; "), family.help));
    }
    out
}

#[tokio::test]
async fn the_page_of_metrics_is_what_the_code_shows() {
    let written = table(&families(&everything().await));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = std::fs::read_to_string(&path).expect("the page");
    let (before, rest) = page.split_once(TABLE.0).expect("where the table begins");
    let (table, after) = rest.split_once(TABLE.1).expect("where the table ends");
    if std::env::var_os("FANWIRE_WRITE_DOCS").is_some() {
        let (begin, end) = TABLE;
        std::fs::write(&path, format!("{before}{begin}{written}{end}{after}")).expect("written");
        return;
    }
    assert_eq!(table, written, "see the head of tests/binary/metrics.rs for how to write it anew");
}

/// Names of numbers in a piece of PromQL, without what a histogram's samples end with.
fn names_in(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = words.filter(|word| word.starts_with("fanwire_") || word.starts_with("process_"));
    ours.map(|name| {
        let bare = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        bare.unwrap_or(name).to_owned()
    })
    .collect()
}

/// Every `expr` of a dashboard, wherever it stands.
fn expressions(json: &serde_json::Value, found: &mut Vec<String>) {
    match json {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str().filter(|_| name == "expr") {
                    Some(expression) => found.push(expression.to_owned()),
                    None => expressions(value, found),
                }
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

fn dashboard() -> Vec<String> {
    let json = serde_json::from_str(include_str!("../../docs/grafana/fanwire.json")).expect("JSON");
    let mut found = Vec::new();
    expressions(&json, &mut found);
    found
}

const ALERTS: &str = include_str!("../../docs/grafana/alerts.yml");

#[tokio::test]
async fn the_dashboard_and_the_alerts_name_numbers_that_exist() {
    let families = families(&everything().await);
    let dashboard = dashboard();
    assert!(dashboard.len() >= 15, "{}", dashboard.len());
    let known = |of: &str, text: &str| {
        let names = names_in(text);
        let unknown: Vec<_> = names.iter().filter(|name| !families.contains_key(*name)).collect();
        assert!(unknown.is_empty(), "{of} names {unknown:?}");
        names.len()
    };
    for expression in &dashboard {
        assert!(known("the dashboard", expression) > 0 || expression.contains("up{"), "{expression}");
    }
    assert!(known("an alert", ALERTS) >= 8);
}

/// Runs `promtool` on a text, if this machine has it (Debian: `prometheus`).
fn promtool(arguments: &[&str], input: &str) -> Option<Output> {
    let child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("SKIPPED: promtool is not installed");
            return None;
        }
        Err(error) => panic!("promtool: {error}"),
    };
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    Some(child.wait_with_output().expect("it ends"))
}

#[tokio::test]
async fn promtool_finds_nothing_to_say_about_the_numbers() {
    let text = scrape("").await;
    let Some(output) = promtool(&["check", "metrics"], &text) else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty() && output.stdout.is_empty(), "{said}");
    // It would, of what is not right.
    let output = promtool(&["check", "metrics"], "fanwire_wrong 1\n").expect("just seen");
    assert!(!output.status.success());
}

#[test]
fn promtool_understands_the_alerts_and_the_dashboard() {
    let alerts = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/grafana/alerts.yml");
    let Some(output) = promtool(&["check", "rules", alerts], "") else { return };
    assert!(output.status.success(), "{output:?}");
    // Its expressions as rules, with what Grafana puts in their variables.
    let mut rules = String::from("groups:\n- name: dashboard\n  rules:\n");
    for (at, expression) in dashboard().iter().enumerate() {
        let expression = expression.replace("$__rate_interval", "5m").replace("$instance", ".*");
        let expression = serde_json::to_string(&expression).expect("text");
        rules.push_str(&format!("  - record: panel_{at}\n    expr: {expression}\n"));
    }
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), rules).expect("written");
    let output = promtool(&["check", "rules", file.path().to_str().expect("a path")], "").expect("just seen");
    assert!(output.status.success(), "{output:?}");
}

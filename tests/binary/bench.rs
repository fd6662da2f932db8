//! `fanwire bench`.

use serde_json::Value;

use crate::support::process::{Process, run_with_input};

#[tokio::test]
async fn every_message_is_counted_on_every_stream_and_the_rate_is_kept() {
    let server = Process::start(&[]).await;
    let url = server.http.to_string();
    let arguments = [
        "bench",
        "--subscribers",
        "5",
        "--publishers",
        "2",
        "--rate",
        "40",
        "--duration",
        "1s",
        "--json",
        "--url",
        &url,
    ];
    let ended = run_with_input(&arguments, &[], b"").await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let report: Value = serde_json::from_str(&ended.out).expect("JSON");
    let count = |what: &str| report[what]["count"].as_u64().expect("a number");
    assert!((10..=41).contains(&count("published")), "{report}");
    assert_eq!(count("delivered"), 5 * count("published"), "{report}");
    assert_eq!((&report["missing"], &report["refused"]), (&Value::from(0), &Value::from(0)));
    assert!(report["delivered"]["p50_us"].as_u64() > Some(0), "{report}");
    assert!(report["delivered"]["max_us"].as_u64() >= report["delivered"]["p50_us"].as_u64(), "{report}");
    assert!(ended.err.contains("5 subscribers listen to bench/"), "{}", ended.err);

    let table = run_with_input(&["bench", "--duration", "300ms", "--url", &url], &[], b"").await;
    assert_eq!(table.code, Some(0), "{}", table.err);
    let lines: Vec<Vec<&str>> = table.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((lines[1][0], lines[2][0], lines.len()), ("published", "delivered", 3), "{}", table.out);
}

#[tokio::test]
async fn a_server_that_is_not_there_or_refuses_is_told_as_by_other_commands() {
    let away = run_with_input(&["bench", "--url", "http://127.0.0.1:1"], &[], b"").await;
    assert_eq!(away.code, Some(3), "{}", away.err);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "[anonymous]\nallow = [{ actions = [\"subscribe\"], channels = [\"#\"] }]\n")
        .expect("written");
    let server = Process::start(&["--config", file.path().to_str().expect("UTF-8")]).await;
    let refused =
        run_with_input(&["bench", "--duration", "1s", "--url", &server.http.to_string()], &[], b"").await;
    assert_eq!(refused.code, Some(4), "{}", refused.err);
    let wrong = run_with_input(&["bench", "--rate", "0", "--url", &server.http.to_string()], &[], b"").await;
    assert_eq!(wrong.code, Some(2), "{}", wrong.err);
}

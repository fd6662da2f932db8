use serde_json::{Value, json};

use super::*;

const NOW: u64 = 1_700_000_000;

fn lamp() -> Name {
    Name::new("lamp", None).unwrap()
}

fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Sends updates one after another and gives the state that is left.
fn state_after(updates: &[&str]) -> Value {
    let mut shadows = Shadows::default();
    for update in updates {
        shadows.update(&lamp(), update.as_bytes(), NOW).unwrap();
    }
    read(&shadows.get(&lamp(), b"", NOW).unwrap())["state"].clone()
}

#[test]
fn objects_are_merged_and_null_removes() {
    for (updates, expected) in [
        (
            &[
                r#"{"state":{"desired":{"a":{"b":1},"c":[1, 2]}}}"#,
                r#"{"state":{"desired":{"a":{"d":2},"c":[3]}}}"#,
            ][..],
            json!({"desired":{"a":{"b":1,"d":2},"c":[3]},"delta":{"a":{"b":1,"d":2},"c":[3]}}),
        ),
        (
            &[
                r#"{"state":{"reported":{"a":{"b":1,"c":2}}}}"#,
                r#"{"state":{"reported":{"a":{"b":null,"x":null}}}}"#,
            ],
            json!({"reported":{"a":{"c":2}}}),
        ),
        (
            &[r#"{"state":{"desired":{"a":1},"reported":{"a":1}}}"#, r#"{"state":{"desired":null}}"#],
            json!({"reported":{"a":1}}),
        ),
        (
            &[r#"{"state":{"desired":{"a":{"b":1}}}}"#, r#"{"state":{"desired":{"a":7}}}"#],
            json!({"desired":{"a":7},"delta":{"a":7}}),
        ),
        (
            &[r#"{"state":{"desired":{"a":{"b":null,"c":1}}}}"#],
            json!({"desired":{"a":{"c":1}},"delta":{"a":{"c":1}}}),
        ),
        (&[r#"{"state":{"desired":{"a":1}}}"#, r#"{"state":{"desired":{"a":null}}}"#], json!({})),
    ] {
        assert_eq!(state_after(updates), expected, "{updates:?}");
    }
}

#[test]
fn the_delta_has_leaves_that_differ_and_no_others() {
    let state = state_after(&[r#"{"state":{"desired":{"a":{"b":1,"c":2},"d":[1, 2],"e":"é","f":1.0},
            "reported":{"a":{"b":1,"c":3},"d":[1,2],"e":"\u00e9","f":1.0,"g":5}}}"#]);
    assert_eq!(state["delta"], json!({"a":{"c":2}}));
}

#[test]
fn numbers_stay_as_they_were_written() {
    let mut shadows = Shadows::default();
    let update = br#"{"state":{"desired":{"n":1.10,"big":12345678901234567890123,"e":[ 1e5 ]}}}"#;
    let updated = shadows.update(&lamp(), update, NOW).unwrap();
    let document = shadows.get(&lamp(), b"", NOW).unwrap();
    for text in [&updated.accepted, &document, &updated.documents] {
        assert!(text.contains(r#"{"big":12345678901234567890123,"e":[1e5],"n":1.10}"#), "{text}");
    }
}

#[test]
fn an_update_is_answered_with_what_was_sent() {
    let mut shadows = Shadows::default();
    let first =
        shadows.update(&lamp(), br#"{"state":{"desired":{"on":true}},"clientToken":"t"}"#, NOW).unwrap();
    assert_eq!(
        first.accepted,
        r#"{"state":{"desired":{"on":true}},"metadata":{"desired":{"on":{"timestamp":1700000000}}},"version":1,"timestamp":1700000000,"clientToken":"t"}"#
    );
    assert_eq!(
        first.delta.unwrap(),
        r#"{"version":1,"timestamp":1700000000,"state":{"on":true},"metadata":{"on":{"timestamp":1700000000}}}"#
    );
    let second = shadows
        .update(&lamp(), br#"{"state":{"reported":{"on":true,"x":null}},"version":1}"#, NOW + 5)
        .unwrap();
    assert_eq!(
        read(&second.accepted),
        json!({"state":{"reported":{"on":true,"x":null}},"metadata":{"reported":{"on":{"timestamp":NOW + 5}}},
            "version":2,"timestamp":NOW + 5})
    );
    assert_eq!(second.delta, None);
    let documents = read(&second.documents);
    assert_eq!(documents["previous"]["version"], 1);
    assert_eq!(documents["previous"]["state"], json!({"desired":{"on":true}}));
    assert_eq!(documents["current"]["state"], json!({"desired":{"on":true},"reported":{"on":true}}));
    let document = read(&shadows.get(&lamp(), br#"{"clientToken":"g"}"#, NOW + 9).unwrap());
    assert_eq!(document["metadata"]["desired"], json!({"on":{"timestamp":NOW}}));
    assert_eq!((&document["version"], &document["clientToken"]), (&json!(2), &json!("g")));
}

#[test]
fn each_element_of_an_array_has_its_time() {
    let mut shadows = Shadows::default();
    let update = br#"{"state":{"desired":{"list":[1,[2],{"a":"b"}],"empty":[]}}}"#;
    let updated = shadows.update(&lamp(), update, NOW).unwrap();
    let at = json!({ "timestamp": NOW });
    let times = json!({"list":[&at,[&at],{"a":&at}],"empty":[]});
    assert_eq!(read(&updated.accepted)["metadata"]["desired"], times);
    assert_eq!(read(&updated.delta.unwrap())["metadata"], times);
    assert_eq!(read(&updated.documents)["current"]["metadata"]["desired"], times);
    assert_eq!(read(&shadows.get(&lamp(), b"", NOW + 9).unwrap())["metadata"]["desired"], times);
}

#[test]
fn what_is_wrong_is_said_in_awss_words() {
    let deep = |levels: usize| {
        let (open, close) = (r#"{"a":"#.repeat(levels - 1), "}".repeat(levels - 1));
        format!(r#"{{"state":{{"desired":{open}{{}}{close}}}}}"#)
    };
    let token = format!(r#"{{"state":{{}},"clientToken":"{}"}}"#, "x".repeat(65));
    let large = format!(r#"{{"state":{{"desired":{{"a":"{}"}}}}}}"#, "x".repeat(8_200));
    let mut shadows = Shadows::default();
    for (payload, code, message) in [
        ("", 400, "Invalid JSON"),
        ("[]", 400, "Invalid JSON"),
        (r#"{"state":{"#, 400, "Invalid JSON"),
        ("{}", 400, "Missing required node: state"),
        (r#"{"state":1}"#, 400, "State node must be an object"),
        (r#"{"state":null}"#, 400, "State node must be an object"),
        (r#"{"state":{"desired":1}}"#, 400, "Desired node must be an object"),
        (r#"{"state":{"reported":[]}}"#, 400, "Reported node must be an object"),
        (r#"{"state":{"other":{}}}"#, 400, "State contains an invalid node"),
        (r#"{"state":{"desired":{"a":[1,null]}}}"#, 400, "State contains an invalid node"),
        (r#"{"state":{"desired":{"a":[{"b":null}]}}}"#, 400, "State contains an invalid node"),
        (r#"{"state":{},"version":"1"}"#, 400, "Invalid version"),
        (r#"{"state":{},"version":-1}"#, 400, "Invalid version"),
        (r#"{"state":{},"version":1.5}"#, 400, "Invalid version"),
        (r#"{"state":{},"clientToken":1}"#, 400, "Invalid clientToken"),
        (&token, 400, "Invalid clientToken"),
        (&deep(7), 400, "JSON contains too many levels of nesting; maximum is 6"),
        (
            r#"{"state":{"desired":{"a":[[[[[[1]]]]]]}}}"#,
            400,
            "JSON contains too many levels of nesting; maximum is 6",
        ),
        (&large, 413, "The payload exceeds the maximum size allowed"),
        (r#"{"state":{},"version":1}"#, 409, "Version conflict"),
    ] {
        let rejection = shadows.update(&lamp(), payload.as_bytes(), NOW).unwrap_err();
        assert_eq!((rejection.code, &*rejection.message), (code, message), "{payload:.80}");
    }
    assert!(shadows.update(&lamp(), deep(6).as_bytes(), NOW).is_ok());
    let rejection = shadows.update(&lamp(), br#"{"clientToken":"t"}"#, NOW).unwrap_err();
    assert_eq!(
        rejection.to_json(NOW),
        r#"{"code":400,"message":"Missing required node: state","timestamp":1700000000,"clientToken":"t"}"#
    );
}

#[test]
fn versions_go_on_after_a_delete_for_two_days() {
    let mut shadows = Shadows::default();
    let update = |shadows: &mut Shadows, now| {
        read(&shadows.update(&lamp(), br#"{"state":{"desired":{"a":1}}}"#, now).unwrap().accepted)["version"]
            .clone()
    };
    update(&mut shadows, NOW);
    assert_eq!(update(&mut shadows, NOW), 2);
    let gone = read(&shadows.delete(&lamp(), b"", NOW).unwrap());
    assert_eq!(gone, json!({"version":2,"timestamp":NOW}));
    assert_eq!(shadows.usage(), (0, 0));
    let missing = shadows.get(&lamp(), b"", NOW).unwrap_err();
    assert_eq!((missing.code, &*missing.message), (404, "No shadow exists with name: 'lamp'"));
    assert_eq!(shadows.delete(&lamp(), b"", NOW).unwrap_err().code, 404);
    assert_eq!(update(&mut shadows, NOW + VERSION_SECS - 1), 3);
    shadows.delete(&lamp(), b"", NOW + VERSION_SECS).unwrap();
    assert_eq!(update(&mut shadows, NOW + 2 * VERSION_SECS), 1);
}

#[test]
fn there_are_only_so_many() {
    let name = |number: usize| Name::new(&number.to_string(), None).unwrap();
    let limits = Limits { max_shadows: 3, ..Limits::default() };
    let mut shadows = Shadows::new(limits);
    let update = br#"{"state":{"desired":{"a":1}}}"#;
    for number in 0..3 {
        shadows.update(&name(number), update, NOW).unwrap();
    }
    assert_eq!(shadows.update(&name(3), update, NOW).unwrap_err().code, 429);
    shadows.update(&name(0), update, NOW).unwrap();
    for number in 0..3 {
        shadows.delete(&name(number), b"", NOW).unwrap();
        shadows.update(&name(number + 10), update, NOW).unwrap();
    }
    assert_eq!(shadows.usage().0, 3);
    let limits = Limits { max_bytes: 1_000, ..Limits::default() };
    let mut shadows = Shadows::new(limits);
    let made = (0..10).filter(|number| shadows.update(&name(*number), update, NOW).is_ok()).count();
    assert!((1..4).contains(&made), "{made}");
    assert!(shadows.usage().1 <= 1_000);
}

#[test]
fn named_shadows_are_listed_by_page() {
    let mut shadows = Shadows::default();
    for shadow in [None, Some("b"), Some("a"), Some("c")] {
        let name = Name::new("t", shadow).unwrap();
        shadows.update(&name, br#"{"state":{"desired":{"a":1}}}"#, NOW).unwrap();
    }
    let page = shadows.list("t", None, 2);
    assert_eq!((page.names, page.more), (vec!["a".to_owned(), "b".to_owned()], true));
    let page = shadows.list("t", Some("b"), 2);
    assert_eq!((page.names, page.more), (vec!["c".to_owned()], false));
    assert_eq!(shadows.list("nobody", None, 2), Listed::default());
    let missing = shadows.get(&Name::new("t", Some("x")).unwrap(), b"", NOW).unwrap_err();
    assert_eq!(missing.message, "No shadow exists with name: 'x'");
}

#[test]
fn what_was_noted_is_as_it_was() {
    let mut shadows = Shadows::default();
    let named = Name::new("lamp", Some("$s:1")).unwrap();
    let update = r#"{"state":{"desired":{"a":{"b":1.50,"timestamp":{"timestamp":[{"x":"\u00e4"}]}},"c":"d","e":[]},
        "reported":{"a":{"b":1}}}}"#;
    shadows.update(&lamp(), update.as_bytes(), NOW).unwrap();
    shadows.update(&lamp(), br#"{"state":{"desired":{"c":"e"}}}"#, NOW + 5).unwrap();
    shadows.update(&named, br#"{"state":{"reported":{"z":true}}}"#, NOW + 6).unwrap();
    let gone = Name::new("gone", None).unwrap();
    shadows.update(&gone, br#"{"state":{"desired":{"a":1}}}"#, NOW).unwrap();
    shadows.delete(&gone, b"", NOW + 7).unwrap();
    assert_eq!(shadows.note(&Name::new("other", None).unwrap()), None);

    let mut again = Shadows::default();
    for name in [&lamp(), &named, &gone] {
        let note = shadows.note(name).unwrap();
        assert!(again.restore(name, note.as_bytes()), "{note}");
        assert_eq!(again.note(name), Some(note));
    }
    assert_eq!(again.usage(), shadows.usage());
    for name in [&lamp(), &named, &gone] {
        assert_eq!(again.get(name, b"", NOW + 9), shadows.get(name, b"", NOW + 9));
    }
    assert!(!again.restore(&lamp(), shadows.note(&lamp()).unwrap().as_bytes()), "it is there");
    let updated = again.update(&gone, br#"{"state":{"desired":{"a":1}}}"#, NOW + 9).unwrap();
    assert_eq!(read(&updated.accepted)["version"], 2, "versions go on");
    for wrong in ["", "{}", "[]", r#"{"state":{"desired":{"a":1}},"metadata":{"desired":{}},"version":1}"#] {
        assert!(!again.restore(&Name::new("wrong", None).unwrap(), wrong.as_bytes()), "{wrong}");
    }
}

#[test]
fn versions_of_deleted_shadows_are_forgotten_in_their_time() {
    let mut shadows = Shadows::default();
    for (number, at) in [(1, NOW + 9), (0, NOW)] {
        let name = Name::new(&format!("t{number}"), None).unwrap();
        assert!(shadows.restore(&name, format!("{{\"deleted\":{at},\"version\":3}}").as_bytes()));
    }
    assert_eq!(shadows.forget(NOW + VERSION_SECS - 1), Vec::new());
    assert_eq!(shadows.forget(NOW + VERSION_SECS), [Name::new("t0", None).unwrap()]);
    assert_eq!(shadows.forget(NOW + VERSION_SECS + 9), [Name::new("t1", None).unwrap()]);
}

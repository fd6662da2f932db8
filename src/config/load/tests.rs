use std::collections::HashSet;
use std::io::Write as _;

use clap::{Args as _, FromArgMatches as _};

use super::*;

fn load_with(file: Option<&str>, environment: &[(&str, &str)], arguments: &[&str]) -> Result<Loaded, String> {
    let written = file.map(|text| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    });
    let mut line = vec!["fanwire"];
    line.extend(arguments);
    let matches = Arguments::augment_args(clap::Command::new("fanwire")).get_matches_from(line);
    let mut arguments = Arguments::from_arg_matches(&matches).unwrap();
    if let Some(file) = &written {
        arguments.config = Some(file.path().to_owned());
    }
    let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
    load(arguments, environment).map_err(|error| {
        let text = error.to_string();
        let path = written.map(|file| file.path().display().to_string()).unwrap_or_default();
        assert!(!text.contains('\n'), "one line: {text}");
        if path.is_empty() { text } else { text.replace(&path, "FILE") }
    })
}

#[test]
fn arguments_win_over_environment_over_file_over_defaults() {
    let file = "[http]\naddress = \"127.0.0.1:1\"\nidle_timeout = \"1s\"\n[mqtt]\naddress = \"127.0.0.1:2\"\n\
                [sse.outbox]\nmax_bytes = \"1 KiB\"\n";
    let environment = [("FANWIRE_HTTP_ADDRESS", "127.0.0.1:3"), ("FANWIRE_MQTT_ADDRESS", "127.0.0.1:4")];
    let loaded = load_with(Some(file), &environment, &["--mqtt", "127.0.0.1:5"]).unwrap();
    let config = loaded.config;
    assert_eq!(config.http.unwrap().port(), 3);
    assert_eq!(config.mqtt.unwrap().port(), 5);
    assert_eq!(config.connection.idle_timeout.as_secs(), 1);
    assert_eq!(config.sse.outbox.max_bytes, 1024);
    assert_eq!(config.sse.outbox.max_messages, front_sse::Config::default().outbox.max_messages);
}

#[test]
fn nothing_given_is_the_default() {
    let loaded = load_with(None, &[], &[]).unwrap();
    assert_eq!(format!("{:?}", loaded.config), format!("{:?}", Config::default()));
    assert!(!loaded.has_rights);
}

#[test]
fn every_default_can_be_written_back() {
    let lines: Vec<String> = keys()
        .into_iter()
        .filter_map(|key| key.default.map(|default| format!("{} = {default}", key.name)))
        .collect();
    assert!(lines.len() > 50, "{lines:#?}");
    load_with(Some(&lines.join("\n")), &[], &[]).unwrap();
}

#[test]
fn no_two_keys_share_a_variable() {
    let keys = keys();
    let variables: HashSet<_> = keys.iter().map(|key| &key.variable).collect();
    assert_eq!(variables.len(), keys.len());
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let file = |text: &'static str| (Some(text), [].as_slice(), [].as_slice());
    let cases: [(_, &str); 28] = [
        (
            file("[server]\nmax_conections = 3"),
            "FILE: unknown key `server.max_conections`, did you mean `server.max_connections`?",
        ),
        (
            file("max_message_bytes = 3"),
            "FILE: unknown key `max_message_bytes`, did you mean `broker.max_message_bytes`?",
        ),
        (file("[borker]"), "FILE: unknown key `borker`, did you mean `broker`?"),
        (file("[zzzzzzzzzz]"), "FILE: unknown key `zzzzzzzzzz`"),
        (
            file("[[namespaces]]\nname = \"a\"\nlog = { max_byte = 1 }"),
            "FILE: unknown key `namespaces[0].log.max_byte`, did you mean `namespaces[0].log.max_bytes`?",
        ),
        (file("[sse]\nkeep_alive = 3"), "FILE: `sse.keep_alive`: `3` needs a unit, such as \"3s\""),
        (
            file("[broker]\nmax_message_bytes = \"4 Mbit\""),
            "FILE: `broker.max_message_bytes`: `4 Mbit` is not a size such as \"64 MiB\"",
        ),
        (
            file("[[anonymous.deny]]\nactions = [\"publsh\"]\nchannels = []"),
            "FILE: `anonymous.deny[0].actions[0]`: \"publsh\" is none of \"publish\", \"subscribe\", \"history\", \
             \"presence\", \"manage\", \"request\"",
        ),
        (
            (None, &[("FANWIRE_SSE_KEEPALIVE", "3s")], &[]),
            "environment: unknown key `FANWIRE_SSE_KEEPALIVE`, did you mean `FANWIRE_SSE_KEEP_ALIVE`?",
        ),
        (
            (None, &[("FANWIRE_CONFG", "f")], &[]),
            "environment: unknown key `FANWIRE_CONFG`, did you mean `FANWIRE_CONFIG`?",
        ),
        (
            (None, &[("FANWIRE_SSE_KEEP_ALIVE", "3x")], &[]),
            "environment: `sse.keep_alive`: `3x` is not a duration such as \"10s\" or \"5m\"",
        ),
        (
            (None, &[], &["--http", "nowhere"]),
            "`http.address`: `nowhere` is not an address such as 127.0.0.1:8080",
        ),
        (
            (None, &[("FANWIRE_MQTT_ADDRESS", "0.0.0.0:0")], &[]),
            "`mqtt.address`: 0.0.0.0:0 is reachable from other machines and no rights are configured; configure \
             keys, users, issuers or [anonymous], or say --allow-anonymous to let everybody do everything",
        ),
        (
            (None, &[("FANWIRE_CONFIG", "/nowhere")], &["--config", "/nonexistent/file"]),
            "cannot read configuration file /nonexistent/file: No such file or directory (os error 2)",
        ),
        (file("[[keys]]\nid = \"a\"\nsecret = \"x\""), "FILE: unknown key `keys[0].secret`"),
        (
            file("[[keys]]\nid = \"a\"\nhash = \"sha256:x\""),
            "FILE: `keys[0].hash`: not `sha256:` and 64 hexadecimal digits; `fanwire key new` makes one",
        ),
        (
            file("[limits]\nrequests_per_address = 0"),
            "FILE: `limits.requests_per_address`: invalid value signed int `0`, expected a whole number of 1 or more",
        ),
        ((None, &[("FANWIRE_BOGUS", "1")], &[]), "environment: unknown key `FANWIRE_BOGUS`"),
        (
            file("[server]\nallowed_origins = [\"*\"]\n[auth]\ncookie = \"token\""),
            "FILE: `server.allowed_origins`: \"*\" cannot stand with `auth.cookie`: list the origins that may use it",
        ),
        (
            file("[[keys]]\norigins = [\"*\"]"),
            "FILE: `keys[0].origins[0]`: `*` is not an origin such as \"https://example.org\" or \"http://localhost:3000\"",
        ),
        (
            file("[server]\nhosts = [\"broker.lan:8080\"]"),
            "FILE: `server.hosts[0]`: `broker.lan:8080` is not the name of a host such as \"broker.example.org\", without a port",
        ),
        (
            file("[server]\nallowed_origins = [\"https://a.example\", \"example.org\"]"),
            "FILE: `server.allowed_origins[1]`: `example.org` is not an origin such as \"https://example.org\" or \"http://localhost:3000\"",
        ),
        (
            file("[[keys]]\norigins = [\"https://a.b/path\"]"),
            "FILE: `keys[0].origins[0]`: `https://a.b/path` is not an origin such as \"https://example.org\" or \"http://localhost:3000\"",
        ),
        (file("[server]\nshutdown_window = \"60s\""), "FILE: `server.shutdown_window`: at most 15s"),
        (
            file("[auth]\ncookie = \"a b\""),
            "FILE: `auth.cookie`: `a b` is not the name of a cookie: letters, digits and `- _ .`",
        ),
        (
            file("[auth]\ncookie = \"\""),
            "FILE: `auth.cookie`: `` is not the name of a cookie: letters, digits and `- _ .`",
        ),
        (
            file("[[keys]]\nid = \"a\"\nrate = -1"),
            "FILE: `keys[0].rate`: invalid value signed int `-1`, expected a whole number of 1 or more",
        ),
        (
            file("[server"),
            "FILE: TOML parse error at line 1, column 8: invalid table header: expected `.`, `]`",
        ),
    ];
    for ((file, environment, arguments), expected) in cases {
        assert_eq!(load_with(file, environment, arguments).unwrap_err(), expected);
    }
}

#[test]
fn rights_or_permission_open_other_addresses() {
    let rights = "[[anonymous.allow]]\nactions = [\"subscribe\"]\nchannels = [\"public/**\"]";
    let loaded = load_with(Some(rights), &[], &["--http", "0.0.0.0:0"]).unwrap();
    assert!(loaded.has_rights);
    assert_eq!(loaded.rights.origins, http_edge::OriginPolicy::SameOrigin);
    load_with(None, &[], &["--http", "0.0.0.0:0", "--allow-anonymous"]).unwrap();
    load_with(None, &[("FANWIRE_SERVER_ALLOW_ANONYMOUS", "true")], &["--http", "[::]:0"]).unwrap();
}

#[test]
fn metrics_are_open_where_only_this_machine_can_ask() {
    use front_http::MetricsAccess::{Manage, Open};
    let rights = "[[anonymous.allow]]\nactions = [\"subscribe\"]\nchannels = [\"public/**\"]\n";
    let access = |set: &str, address: &str| {
        let text = format!("{rights}[http]\n{set}");
        load_with(Some(&text), &[], &["--http", address]).unwrap().config.api.metrics
    };
    for (set, address, expected) in [
        ("", "127.0.0.1:0", Open),
        ("", "[::1]:0", Open),
        ("", "0.0.0.0:0", Manage),
        ("", "[::]:0", Manage),
        ("metrics = \"open\"", "0.0.0.0:0", Open),
        ("metrics = \"manage\"", "127.0.0.1:0", Manage),
    ] {
        assert_eq!(access(set, address), expected, "{set} {address}");
    }
    assert_eq!(load_with(None, &[], &[]).unwrap().config.api.metrics, Open);
    let wrong = load_with(Some("[http]\nmetrics = \"closed\""), &[], &[]).unwrap_err();
    assert_eq!(wrong, "FILE: `http.metrics`: \"closed\" is none of \"open\", \"manage\"");
}

#[test]
fn origins_are_taken_as_browsers_send_them() {
    let text = "[server]\nallowed_origins = [\"https://a.example/\", \"http://b.example:80\"]";
    let rights = load_with(Some(text), &[], &[]).unwrap().rights;
    let expected = ["https://a.example", "http://b.example"].map(str::to_owned).to_vec();
    assert_eq!(rights.origins, http_edge::OriginPolicy::List(expected));
}

#[test]
fn without_rights_pages_of_this_machine_may_come_and_a_star_lets_all_in() {
    use http_edge::OriginPolicy::{Any, List, Loopback, SameOrigin};
    let rights = "[[anonymous.allow]]\nactions = [\"subscribe\"]\nchannels = [\"public/**\"]\n";
    for (text, expected) in [
        (String::new(), Loopback),
        (rights.to_owned(), SameOrigin),
        ("[server]\nallowed_origins = []".to_owned(), List(Vec::new())),
        ("[server]\nallowed_origins = [\"*\"]".to_owned(), Any),
        (format!("{rights}[server]\nallowed_origins = [\"https://a.example\", \"*\"]"), Any),
    ] {
        let loaded = load_with(Some(&text), &[], &[]).unwrap();
        assert_eq!(loaded.rights.origins, expected, "{text}");
        let keys_follow = loaded.rights.access.allowed_origins.is_none();
        assert_eq!(keys_follow, expected == Any || expected == Loopback || !loaded.has_rights, "{text}");
    }
}

#[test]
fn hosts_are_names_without_a_port() {
    let hosts = |text: &str| load_with(Some(text), &[], &[]).unwrap().config.hosts;
    assert_eq!(hosts(""), None);
    let text = "[server]\nhosts = [\"broker.example.org.\", \"*\"]";
    assert_eq!(hosts(text), Some(vec!["broker.example.org".to_owned(), "*".to_owned()]));
}

#[test]
fn lists_can_be_set_by_the_environment() {
    let allow = "[{ actions = [\"publish\"], channels = [\"#\"] }]";
    let loaded = load_with(None, &[("FANWIRE_ANONYMOUS_ALLOW", allow)], &[]).unwrap();
    assert!(loaded.has_rights);
}

#[test]
fn raising_the_largest_message_raises_what_carries_it() {
    let limits = |text: &str| {
        let config = load_with(Some(text), &[], &[]).unwrap().config;
        (config.mqtt_front.max_packet_bytes >> 20, config.bayeux.websocket.max_message_bytes >> 20)
    };
    assert_eq!(limits(""), (5, 4));
    assert_eq!(limits("[broker]\nmax_message_bytes = \"64 MiB\""), (65, 64));
    let chosen = "[broker]\nmax_message_bytes = \"64 MiB\"\n[mqtt]\nmax_packet_bytes = \"1 MiB\"";
    assert_eq!(limits(chosen), (1, 64));
}

#[test]
fn what_kubernetes_says_about_a_service_of_this_name_is_not_ours() {
    let told = [
        ("FANWIRE_SERVICE_HOST", "10.0.0.1"),
        ("FANWIRE_PORT", "tcp://10.0.0.1:80"),
        ("FANWIRE_PORT_80_TCP", "x"),
    ];
    load_with(None, &told, &[]).unwrap();
}

#[test]
fn an_api_of_a_gateway_is_said_with_its_place() {
    let api = |path: &str, more: &str| {
        format!(
            "[[gateway.aws]]\nname = \"chat\"\npath = \"{path}\"\nroute_selection = \"$request.body.action\"\n\
             integrations.main = {{ url = \"http://127.0.0.1:9000/\" }}\n\
             routes.\"$connect\" = {{ integration = \"main\" }}\n{more}"
        )
    };
    let loaded = load_with(Some(&api("/dev", "")), &[], &[]).unwrap();
    assert_eq!(loaded.config.own_fronts.len(), 1);
    for (path, more, said) in [
        ("/sse/x", "", "FILE: `gateway.aws[0].path`: \"/sse/x\" is a path of the broker's own"),
        ("/v1", "", "FILE: `gateway.aws[0].path`: \"/v1\" is a path of the broker's own"),
        (
            "/topics",
            "[aws]\niot = true",
            "FILE: `gateway.aws[0].path`: \"/topics\" is a path of the broker's own",
        ),
        ("/dev", "idle = 1", "FILE: unknown key `gateway.aws[0].idle`"),
        (
            "/dev",
            "routes.x = { integration = \"nobody\" }",
            "FILE: `gateway.aws[0].routes.x.integration`: no integration is called \"nobody\"",
        ),
    ] {
        let wrong = load_with(Some(&api(path, more)), &[], &[]).expect_err(more);
        assert!(wrong.starts_with(said), "{path} {more}: {wrong}");
    }
}

#[test]
fn a_route_to_an_origin_is_said_with_its_place() {
    let route = |path: &str, more: &str| {
        format!(
            "[[gateway.routes]]\nid = \"shop\"\ndialect = \"proxy\"\npath = \"{path}\"\n\
             origin = \"http://127.0.0.1:9000\"\n{more}"
        )
    };
    let loaded = load_with(Some(&route("/**", "")), &[], &[]).unwrap();
    assert_eq!(loaded.config.grip.settings.routes.len(), 1);
    for (path, more, said) in [
        ("/sse/**", "", "FILE: `gateway.routes[0].path`: \"/sse\" is a path of the broker's own"),
        ("/grip/**", "", "FILE: `gateway.routes[0].path`: \"/grip\" is a path of the broker's own"),
        ("/v1/x", "", "FILE: `gateway.routes[0].path`: \"/v1/x\" is a path of the broker's own"),
        ("/**", "idle = 1", "FILE: unknown key `gateway.routes[0].idle`"),
        ("/**", "[gateway.grip]\nx = 1", "FILE: unknown key `gateway.grip.x`"),
        (
            "/**",
            "[gateway.grip]\nx_forwarded_for = \"keep\"",
            "FILE: `gateway.grip.x_forwarded_for`: \"keep\" is none of",
        ),
    ] {
        let wrong = load_with(Some(&route(path, more)), &[], &[]).expect_err(more);
        assert!(wrong.starts_with(said), "{path} {more}: {wrong}");
    }
    let control = |address: &str| {
        load_with(Some(&format!("[gateway.grip]\ncontrol_address = \"{address}\"")), &[], &[])
    };
    let loaded = control("127.0.0.1:5561").unwrap();
    assert_eq!(loaded.config.grip.control, Some("127.0.0.1:5561".parse().unwrap()));
    let open = control("0.0.0.0:5561").unwrap_err();
    assert!(open.contains("gateway.grip.control_address"), "{open}");
}

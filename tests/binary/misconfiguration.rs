use std::io::Write as _;

use crate::support::process::run;

/// Arguments, the file if there is one, environment, and what is said.
type Case<'a> = (&'a [&'a str], Option<&'a str>, &'a [(&'a str, &'a str)], &'a str);

#[tokio::test]
async fn a_mistake_is_told_in_one_line_and_ends_with_2() {
    let cases: [Case<'_>; 16] = [
        (
            &["--http", "localhost"],
            None,
            &[],
            "`http.address`: `localhost` is not an address such as 127.0.0.1:8080",
        ),
        (
            &["--mqtt", "127.0.0.1:99999"],
            None,
            &[],
            "`mqtt.address`: `127.0.0.1:99999` is not an address such as 127.0.0.1:8080",
        ),
        (
            &["--http", "off", "--mqtt", "off"],
            None,
            &[],
            "`http.address` and `mqtt.address` are both \"off\": nothing would be served",
        ),
        (
            &["--config", "/nonexistent"],
            None,
            &[],
            "cannot read configuration file /nonexistent: No such file or directory (os error 2)",
        ),
        (
            &["--http", "0.0.0.0:0"],
            None,
            &[],
            "`http.address`: 0.0.0.0:0 is reachable from other machines and no rights are configured; configure keys, users, issuers or [anonymous], or say --allow-anonymous to let everybody do everything",
        ),
        (
            &[],
            Some("[mqtt]\nmax_inflght = 3\n"),
            &[],
            "FILE: unknown key `mqtt.max_inflght`, did you mean `mqtt.max_inflight`?",
        ),
        (
            &[],
            None,
            &[("FANWIRE_HTTP_ADRESS", "x")],
            "environment: unknown key `FANWIRE_HTTP_ADRESS`, did you mean `FANWIRE_HTTP_ADDRESS`?",
        ),
        (
            &[],
            Some("[http]\nheader_read_timeout = \"0s\"\n"),
            &[],
            "FILE: `http.header_read_timeout`: 0 is too short here, say how long",
        ),
        (&[], Some("[log]\nmax_age = 0\n"), &[], "FILE: `log.max_age`: 0 is too short here, say how long"),
        (
            &[],
            Some("[bayeux.timing]\ntimeout = \"500000000000years\"\n"),
            &[],
            "FILE: `bayeux.timing.timeout`: `500000000000years` is longer than a hundred years",
        ),
        (
            &[],
            Some("[aws]\niot = true\n[[aws.keys]]\naccess_key = \"A\"\n"),
            &[],
            "FILE: `aws.keys[0]`: one of `secret` and `secret_file` is needed",
        ),
        (
            &[],
            Some("[[aws.keys]]\naccess_key = \"A\"\nsecret = \"x\"\ngateways = [\"chat\"]\n"),
            &[],
            "FILE: `aws.keys[0].gateways`: no API of `gateway.aws` is called \"chat\"",
        ),
        (
            &[],
            Some(concat!(
                "[[aws.keys]]\naccess_key = \"A\"\nsecret = \"x\"\ngateways = [\"*\", \"chat\", \"caht\"]\n",
                "[[gateway.aws]]\nname = \"chat\"\npath = \"/dev\"\nroute_selection = \"$request.body.action\"\n"
            )),
            &[],
            "FILE: `aws.keys[0].gateways`: no API of `gateway.aws` is called \"caht\", did you mean \"chat\"?",
        ),
        (
            &["--http", "0.0.0.0:0", "--mqtt", "off", "--allow-anonymous"],
            Some("[aws]\niot = true\nsignatures = \"ignored\"\n"),
            &[],
            "FILE: `aws.signatures`: \"ignored\" lets in whoever reaches 0.0.0.0:0; it is for servers all of whose listeners are on loopback addresses",
        ),
        (
            &[],
            Some("[[aws.rules]]\nname = \"many\"\nfilter = \"a/#/b\"\nurl = \"http://127.0.0.1/\"\n"),
            &[],
            "FILE: `aws.rules[0].filter`: \"a/#/b\": `#` is the last segment",
        ),
        (
            &["--http", "127.0.0.1:0", "--mqtt", "off"],
            None,
            &[("FANWIRE_LOGGING_LEVEL", "loud")],
            "configuration: `logging.level`: `loud` is none of error, warn, info, debug, trace, off, also by crate (`info,fanwire=debug`)",
        ),
    ];
    for (arguments, text, environment, expected) in cases {
        let mut arguments = arguments.to_vec();
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        let path = file.path().display().to_string();
        if let Some(text) = text {
            file.write_all(text.as_bytes()).expect("written");
            arguments.extend(["--config", &path]);
        }
        let (code, said) = run(&arguments, environment).await;
        assert_eq!(said.replace(&path, "FILE"), format!("fanwire: {expected}\n"));
        assert_eq!(code, Some(2), "{expected}");
    }
}

#[tokio::test]
async fn unknown_arguments_end_with_2_too() {
    let (code, said) = run(&["--htpp", "x"], &[]).await;
    assert_eq!(code, Some(2));
    assert!(said.contains("--http"), "{said}");
}

#[tokio::test]
async fn a_configuration_is_checked_as_it_is_served() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "[mqtt]\naddress = \"off\"\n").expect("written");
    let path = file.path().to_str().expect("UTF-8");
    for arguments in [
        &["check-config", path][..],
        &["check-config", "--config", path],
        &["check-config", "-c", path],
        &["config", "show", "--config", path],
    ] {
        let (code, said) = run(arguments, &[]).await;
        assert_eq!((code, said.as_str()), (Some(0), ""), "{arguments:?}");
    }
    // Where other programs have theirs.
    let (code, said) = run(&[path], &[]).await;
    let expected =
        format!("fanwire: `{path}` is a file and no command; a configuration is named by --config {path}\n");
    assert_eq!((code, said), (Some(2), expected));
}

#[tokio::test]
async fn the_exit_code_is_right_where_nobody_can_be_told() {
    let script = "\"$0\" --config /nonexistent 2>/dev/full; echo $?; \"$0\" key new 2>/dev/full >/dev/null; echo $?; \
                  \"$0\" store check /nonexistent 2>/dev/full; echo $?";
    let mut shell = tokio::process::Command::new("sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_fanwire")]);
    let output = crate::support::within(shell.output()).await.expect("a shell");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2\n0\n2\n");
}

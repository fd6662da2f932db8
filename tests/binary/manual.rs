//! What shells and `man` are told, and the version.

use crate::support::process::run_with_input;
use crate::support::within;

#[tokio::test]
async fn the_version_is_the_packages() {
    let ended = run_with_input(&["--version"], &[], b"").await;
    let expected = concat!("fanwire ", env!("CARGO_PKG_VERSION"));
    assert!(ended.out.starts_with(expected), "{}", ended.out);
}

#[tokio::test]
async fn completions_are_made_for_each_shell_and_bash_takes_them() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ended = run_with_input(&["completions", shell], &[], b"").await;
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{shell}");
        assert!(ended.out.contains("check-config") && ended.out.contains("last-event-id"), "{shell}");
    }
    assert_eq!(run_with_input(&["completions", "csh"], &[], b"").await.code, Some(2));
    // What a user has after `fanwire conn<Tab>`.
    let script = "eval \"$($0 completions bash)\"; COMP_WORDS=(fanwire conn); COMP_CWORD=1; \
                  _fanwire fanwire conn fanwire; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let binary = env!("CARGO_BIN_EXE_fanwire");
    let mut bash = tokio::process::Command::new("bash");
    bash.args(["-c", script, binary]);
    let output = within(bash.output()).await.expect("bash runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "connections\n", "{output:?}");
}

#[tokio::test]
async fn a_reader_that_has_had_enough_is_no_error() {
    for command in [&["completions", "bash"][..], &["man"], &["config", "show", "--defaults"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut fanwire = tokio::process::Command::new(env!("CARGO_BIN_EXE_fanwire"));
        let output = fanwire.args(command).stdout(writer).stderr(std::process::Stdio::piped()).spawn();
        let output = within(output.expect("it starts").wait_with_output()).await.expect("it ends");
        let said = (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned());
        assert_eq!(said, (Some(0), String::new()), "{command:?}");
    }
}

#[tokio::test]
async fn there_is_a_manual_page_for_each_command() {
    let page = run_with_input(&["man"], &[], b"").await;
    assert_eq!((page.code, page.err.as_str()), (Some(0), ""));
    assert!(page.out.contains(".TH fanwire 1"), "{}", page.out);
    let folder = tempfile::tempdir().expect("a folder");
    let made = run_with_input(&["man", folder.path().to_str().expect("UTF-8")], &[], b"").await;
    assert_eq!((made.code, made.err.as_str()), (Some(0), ""));
    for name in ["fanwire", "fanwire-sub", "fanwire-token-mint", "fanwire-check-config"] {
        let text = std::fs::read_to_string(folder.path().join(format!("{name}.1"))).expect(name);
        assert!(text.contains(".SH SYNOPSIS"), "{name}");
    }
    let sub = std::fs::read_to_string(folder.path().join("fanwire-sub.1")).expect("the page");
    assert!(sub.contains("Exit codes: 0 enough messages"), "{sub}");
}

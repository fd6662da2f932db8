//! `fanwire config show`.

use crate::support::process::run_with_input;

#[tokio::test]
async fn the_defaults_are_a_configuration_that_changes_nothing() {
    let defaults = run_with_input(&["config", "show", "--defaults"], &[], b"").await;
    assert_eq!((defaults.code, defaults.err.as_str()), (Some(0), ""));
    for key in fanwire::keys() {
        let name = key.name.rsplit('.').next().expect("a name");
        let line = match &key.default {
            Some(default) if default.starts_with('[') => format!("{name} = ["),
            Some(default) => format!("{name} = {default}\n"),
            None => format!("# {name} is not set\n"),
        };
        assert!(defaults.out.contains(&line), "{}: {line}", key.name);
    }
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &defaults.out).expect("written");
    let path = file.path().to_str().expect("UTF-8");
    let shown = run_with_input(&["config", "show", path], &[], b"").await;
    assert_eq!((shown.code, shown.err.as_str(), shown.out), (Some(0), "", defaults.out));
}

#[tokio::test]
async fn what_is_set_is_shown_beside_its_default_and_no_secret_is() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let text = "[http]\naddress = \"127.0.0.1:0\"\n[[issuers]]\nalgorithms = [\"HS256\"]\n\
                secret = \"a secret of thirty-two bytes or more\"\n";
    std::fs::write(file.path(), text).expect("written");
    let path = file.path().to_str().expect("UTF-8");
    let environment = [("FANWIRE_SERVER_SHUTDOWN_WINDOW", "3s")];
    let shown = run_with_input(&["config", "show", path], &environment, b"").await;
    assert_eq!((shown.code, shown.err.as_str()), (Some(0), ""));
    assert!(
        shown.out.contains("address = \"127.0.0.1:0\"    # default: \"127.0.0.1:8080\"\n"),
        "{}",
        shown.out
    );
    assert!(shown.out.contains("shutdown_window = \"3s\"    # default: \"8s\"\n"), "{}", shown.out);
    assert!(shown.out.contains("# issuers has 1 entries, which are not shown\n"), "{}", shown.out);
    assert!(!shown.out.contains("thirty-two"), "{}", shown.out);

    std::fs::write(file.path(), "[http]\nadress = \"x\"\n").expect("written");
    let wrong = run_with_input(&["config", "show", path], &[], b"").await;
    assert_eq!((wrong.code, wrong.out.as_str()), (Some(2), ""), "{}", wrong.err);
}

/// The page cannot promise a key that is not there, forget one that is, or tell an old default.
#[test]
fn every_key_stands_in_the_documentation_with_default_and_variable() {
    let page = include_str!("../../docs/configuration.md");
    let keys = fanwire::keys();
    for key in &keys {
        let default =
            key.default.as_ref().map_or_else(|| "not set".to_owned(), |default| format!("`{default}`"));
        let row = format!("| `{}` | {default} | `{}` | ", key.name, key.variable);
        assert!(page.contains(&row), "docs/configuration.md lacks a row that begins\n{row}");
    }
    let rows = page.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, keys.len(), "rows without a key");
}

/// The example at the top of the page is one that works.
#[test]
fn the_example_can_be_loaded() {
    let page = include_str!("../../docs/configuration.md");
    let example =
        page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), example).expect("written");
    let arguments = fanwire::Arguments { config: Some(file.path().to_owned()), ..Default::default() };
    assert!(fanwire::load(arguments, []).expect("it is legal").has_rights);
}

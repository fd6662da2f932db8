//! docs/rights.md promises what is here.

/// The worked example is a configuration that loads, with everything the page talks about.
#[test]
fn the_example_can_be_loaded() {
    let page = include_str!("../../docs/rights.md");
    let example =
        page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), example).expect("written");
    let mut arguments = fanwire::Arguments::default();
    arguments.config = Some(file.path().to_owned());
    let loaded = fanwire::load(arguments, []).expect("it is legal");
    let access = &loaded.rights.access;
    assert!(loaded.has_rights && access.anonymous.is_some());
    assert_eq!((access.keys.len(), access.users.len(), access.issuers.len()), (2, 1, 2));
}

/// Every field of an entry stands in the page.
#[test]
fn every_field_is_explained() {
    let page = include_str!("../../docs/rights.md");
    let source = include_str!("../../src/config/rights.rs");
    for entry in ["struct KeyEntry", "struct UserEntry", "struct IssuerEntry"] {
        let fields = source.split(entry).nth(1).and_then(|rest| rest.split("\n}").next()).expect(entry);
        let names = fields.lines().filter_map(|line| line.trim().split_once(": ")).map(|(name, _)| name);
        for name in names {
            assert!(
                page.contains(&format!("`{name}`")),
                "docs/rights.md says nothing of `{name}` of {entry}"
            );
        }
    }
}

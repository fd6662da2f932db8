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
    let mut arguments = fanwire::Arguments::default();
    arguments.config = Some(file.path().to_owned());
    assert!(fanwire::load(arguments, []).expect("it is legal").has_rights);
}

/// The pages of a user, by name.
fn pages() -> Vec<(String, String)> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs =
        std::fs::read_dir(root.join("docs")).expect("docs/").map(|entry| entry.expect("an entry").path());
    let pages =
        docs.filter(|path| path.extension().is_some_and(|end| end == "md")).chain([root.join("README.md")]);
    let mut pages: Vec<_> = pages
        .map(|path| {
            let name = path.strip_prefix(root).expect("below the root").display().to_string();
            (name, std::fs::read_to_string(&path).expect("a page"))
        })
        .collect();
    pages.sort();
    pages
}

/// The blocks of one language, without the indent of a list.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(indent) = line.strip_suffix(&format!("```{language}")).map(str::len) else { continue };
        let block = lines.by_ref().take_while(|line| line.trim() != "```");
        found.push(block.map(|line| line.get(indent..).unwrap_or_default().to_owned() + "\n").collect());
    }
    found
}

/// Every piece of configuration that a page shows can be put into a file as it is.
#[test]
fn what_the_pages_show_of_the_configuration_can_be_loaded() {
    let mut tried = 0;
    for (name, page) in pages() {
        for block in blocks(&page, "toml") {
            let file = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(file.path(), &block).expect("written");
            let mut arguments = fanwire::Arguments::default();
            arguments.config = Some(file.path().to_owned());
            // A piece that says where to listen may leave the rights to another one.
            arguments.allow_anonymous = true;
            let certificate = [("FANWIRE_TLS_CERT_FILE", "a.crt"), ("FANWIRE_TLS_KEY_FILE", "a.key")];
            let certificate = certificate.map(|(name, value)| (name.into(), value.into()));
            let needs_one = block.contains("tls_address") && !block.contains("cert_file");
            if let Err(error) = fanwire::load(arguments, certificate.into_iter().filter(|_| needs_one)) {
                panic!("{name} shows\n{block}and {error}");
            }
            tried += 1;
        }
    }
    assert!(tried >= 14, "{tried}");
}

/// The index leads to every page, and no link between pages is broken.
#[test]
fn the_index_leads_to_every_page_and_links_lead_somewhere() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = pages();
    let anchors = |page: &str| -> Vec<String> {
        let headings = page.lines().filter(|line| line.starts_with('#'));
        headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
    };
    let index = &pages.iter().find(|(name, _)| name == "docs/README.md").expect("an index").1;
    let mut wrong = Vec::new();
    for (name, page) in &pages {
        let file = name.trim_start_matches("docs/");
        if name.starts_with("docs/") && file != "README.md" && !index.contains(&format!("]({file})")) {
            wrong.push(format!("docs/README.md does not name {file}"));
        }
        for target in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.contains(' ') {
                continue;
            }
            let (path, wanted) = target.split_once('#').unwrap_or((target, ""));
            let of = root.join(name);
            let path = if path.is_empty() { of } else { of.parent().expect("a folder").join(path) };
            if !path.exists() {
                wrong.push(format!("{name}: {target} is not there"));
            } else if !wanted.is_empty() {
                let text = std::fs::read_to_string(&path).expect("a page");
                if !anchors(&text).contains(&wanted.to_owned())
                    && !text.contains(&format!("<a id=\"{wanted}\""))
                {
                    wrong.push(format!("{name}: {target} has no such heading"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a heading is called in a link, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

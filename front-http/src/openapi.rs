//! `GET /v1/openapi.json`: the API described in OpenAPI 3.1. Written by hand and held to the code by the tests below.

use http_edge::Response;

use crate::answer::json;

const DOCUMENT: &str = include_str!("openapi.json");

/// The description, with the paths that it is mounted at.
pub(crate) fn answer(mount: &str) -> Response {
    match mount.trim_matches('/') {
        "v1" => json(DOCUMENT.into()),
        "" => json(at("\"/").into()),
        mount => json(at(&format!("\"/{mount}/")).into()),
    }
}

/// With other paths, but for those that are not mounted with it.
fn at(prefix: &str) -> String {
    const ELSEWHERE: [&str; 5] = ["webhooks", "dead-letters", "sources", "requests", "routes"];
    let moved = DOCUMENT.replace("\"/v1/", prefix);
    ELSEWHERE
        .iter()
        .fold(moved, |moved, name| moved.replace(&format!("{prefix}{name}"), &format!("\"/v1/{name}")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::route::Resource;

    fn document() -> serde_json::Value {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    #[test]
    fn every_path_and_method_is_described_and_answered() {
        let document = document();
        let mut described = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            // Other crates answer these, and their tests hold them to it.
            if methods.get("x-served-by").is_some() {
                continue;
            }
            let sample = path.replace("{channel}", "a").replace("{filter}", "a").replace("{id}", "1");
            let resource = Resource::find(&sample, "/v1").unwrap_or_else(|error| panic!("{path}: {error}"));
            let answered: BTreeSet<_> =
                resource.methods().split(", ").filter(|one| !matches!(*one, "HEAD" | "OPTIONS")).collect();
            let methods: Vec<_> =
                methods.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
            assert_eq!(answered, methods.iter().map(String::as_str).collect(), "{path}");
            described.insert(path.clone());
        }
        for path in Resource::TEMPLATES {
            assert!(described.remove(*path), "{path} is not described");
        }
        assert!(described.is_empty(), "{described:?}");
    }

    #[test]
    fn paths_are_those_where_it_is_mounted() {
        for prefix in ["\"/", "\"/x/y/"] {
            let moved = at(prefix);
            assert!(moved.contains(&format!("{prefix}publish\"")) && !moved.contains("\"/v1/publish"));
            for elsewhere in
                ["webhooks\"", "dead-letters/{id}\"", "sources/{id}/pause\"", "requests\"", "routes\""]
            {
                assert!(moved.contains(&format!("\"/v1/{elsewhere}")), "{elsewhere}");
            }
        }
    }

    #[test]
    fn every_code_is_described_and_documented() {
        let sources = [
            include_str!("error.rs"),
            include_str!("../../http-edge/src/problem.rs"),
            include_str!("../../gateway/src/resource.rs"),
            include_str!("../../gateway/src/webhook/api.rs"),
            include_str!("../../sources/src/front.rs"),
            include_str!("../../gateway-grip/src/api.rs"),
        ];
        let sources = sources.map(|source| source.split("#[cfg(test)]").next().unwrap());
        // Codes stand beside a status, or in one of the two helpers.
        let in_code: BTreeSet<&str> = sources
            .iter()
            .flat_map(|source| source.lines())
            .filter(|line| {
                line.contains("S::") || line.contains("StatusCode::") || line.contains("unavailable(\"")
            })
            .flat_map(|line| line.split('"').skip(1).step_by(2))
            .filter(|word| {
                !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            })
            .collect();
        let document = document();
        let described: BTreeSet<&str> = document["components"]["schemas"]["Code"]["enum"]
            .as_array()
            .unwrap()
            .iter()
            .map(|code| code.as_str().unwrap())
            .collect();
        assert_eq!(in_code, described);
        let docs = include_str!("../../docs/http.md");
        for code in described {
            assert!(docs.contains(&format!("`{code}`")), "docs/http.md says nothing of {code}");
        }
    }

    /// The listener's limits know no paths.
    #[test]
    fn every_operation_may_be_refused_for_now() {
        for (path, methods) in document()["paths"].as_object().unwrap() {
            let operations = methods.as_object().unwrap().iter().filter(|(name, _)| !name.starts_with("x-"));
            for (method, operation) in operations {
                for status in ["429", "503"] {
                    assert!(operation["responses"].get(status).is_some(), "{status} of {method} {path}");
                }
            }
        }
    }

    #[test]
    fn references_lead_somewhere() {
        fn follow(value: &serde_json::Value, document: &serde_json::Value) {
            match value {
                serde_json::Value::Object(members) => {
                    if let Some(target) = members.get("$ref") {
                        let pointer = target.as_str().unwrap().trim_start_matches('#');
                        assert!(document.pointer(pointer).is_some(), "{pointer}");
                    }
                    members.values().for_each(|value| follow(value, document));
                }
                serde_json::Value::Array(items) => items.iter().for_each(|value| follow(value, document)),
                _ => {}
            }
        }
        let document = document();
        follow(&document, &document);
    }
}

//! The schema, and what must hold for any text whatever.

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;

#[test]
fn the_schema_describes_every_key_and_admits_no_other() {
    fn walk(schema: &Json, path: &str) {
        if let Some(properties) = schema["properties"].as_object() {
            assert_eq!(
                schema["additionalProperties"], false,
                "{path} admits unknown keys"
            );
            for (name, property) in properties {
                let path = format!("{path}.{name}");
                // Of an alternative with a single key, the whole is described.
                let whole = (properties.len() == 1).then_some(&schema["description"]);
                let described = [Some(&property["description"]), whole];
                assert!(
                    described.into_iter().flatten().any(Json::is_string),
                    "{path} has no description"
                );
                walk(property, &path);
            }
        }
        for several in ["oneOf", "anyOf"] {
            for one in schema[several].as_array().into_iter().flatten() {
                assert_ne!(one["type"], "null", "{path} may be null");
                walk(one, path);
            }
        }
        assert!(
            !schema["type"].is_array(),
            "{path} has several types: {schema}"
        );
    }
    let schema = schema();
    walk(&schema, "");
    for (name, definition) in schema["$defs"].as_object().expect("definitions") {
        walk(definition, name);
    }
    let required = ["listeners", "backends", "routes"];
    for name in required {
        assert!(
            schema["required"]
                .as_array()
                .expect("a list")
                .contains(&name.into())
        );
    }
    assert_eq!(
        schema["required"].as_array().map(Vec::len),
        Some(required.len())
    );
}

proptest! {
    #[test]
    fn no_text_makes_loading_panic(text in "[ -~\n]{0,200}") {
        let _ = load_text(&text, Path::new("/nonexistent"), &environment);
    }

    #[test]
    fn no_mutation_of_an_example_makes_loading_panic(
        cut in 0usize..12_000,
        length in 0usize..40,
        insert in "[\\[\\]{}:,&*#|>'\"%$!~a-z0-9\n \u{e4}-]{0,8}",
    ) {
        let characters: Vec<char> = PRODUCTION.chars().collect();
        let start = cut.min(characters.len());
        let end = (start + length).min(characters.len());
        let text: String = characters[..start]
            .iter()
            .copied()
            .chain(insert.chars())
            .chain(characters[end..].iter().copied())
            .collect();
        if let Err(all) = load_text(&text, Path::new("/nonexistent"), &environment) {
            for problem in &all.problems {
                prop_assert!(problem.line > 0, "{}", problem);
                prop_assert!(!problem.remedy.is_empty());
            }
        }
    }

    /// The check lets nothing through that the structures cannot take.
    #[test]
    fn what_passes_the_schema_can_be_read(
        line in 0usize..280,
        value in "(~|true|1|-1|0.5|x|\"\"|\\[\\]|\\{\\}|\\[x\\]|\\{x: y\\}|5s|10%|99999999999999999999)",
    ) {
        let lines: Vec<String> = PRODUCTION
            .lines()
            .enumerate()
            .map(|(index, text)| match text.split_once(": ") {
                Some((key, _)) if index == line => format!("{key}: {value}"),
                _ => text.to_owned(),
            })
            .collect();
        if let Err(all) = load_text(&lines.join("\n"), Path::new("/nonexistent"), &environment) {
            for problem in &all.problems {
                prop_assert!(!problem.remedy.contains("mistake of cutover"), "{}", all);
            }
        }
    }
}

//! docs/configuration.md says what the schema says.
//!
//! What stands in that document after [`MARK`] is written by [`reference`], from the schema that
//! `cutover schema` prints and `check` obeys. So it cannot forget a key or state a wrong default.

use std::fmt::Write;
use std::fs;

use serde_json::{Map, Value};

use crate::project::{read, root};

const DOCUMENT: &str = "docs/configuration.md";
const MARK: &str = "<!-- From here on written by tests/it/reference.rs. -->\n";
/// When set, the document is mended instead of complained about.
const MEND: &str = "CUTOVER_MEND_DOCS";

#[test]
fn the_reference_of_the_configuration_says_what_the_schema_says() {
    let document = read(DOCUMENT);
    let (introduction, found) = document.split_once(MARK).expect("the mark");
    let expected = reference(&cutover::config::schema());
    if std::env::var_os(MEND).is_some() {
        let mended = format!("{introduction}{MARK}{expected}");
        fs::write(root().join(DOCUMENT), mended).expect("a writable document");
    } else {
        assert!(
            found == expected,
            "{DOCUMENT} is behind the schema; mend it with \
             `{MEND}=1 cargo nextest run reference`"
        );
    }
}

/// A section for each kind of object in a file, in the order in which one meets them.
fn reference(schema: &Value) -> String {
    let mut writer = Writer {
        definitions: &schema["$defs"],
        pending: vec![("The file".to_owned(), schema)],
        seen: Vec::new(),
        out: String::new(),
    };
    // The last one found is written first, so that an object stands behind the one that holds it.
    while let Some((path, object)) = writer.pending.pop() {
        let found = writer.pending.len();
        writer.section(&path, object);
        writer.pending[found..].reverse();
    }
    writer.out
}

struct Writer<'schema> {
    definitions: &'schema Value,
    pending: Vec<(String, &'schema Value)>,
    /// Names of the definitions that have a section.
    seen: Vec<&'schema str>,
    out: String,
}

impl<'schema> Writer<'schema> {
    fn section(&mut self, path: &str, object: &'schema Value) {
        let is_root = object.get("$defs").is_some();
        let heading = match is_root {
            true => path.to_owned(),
            false => format!("`{path}`"),
        };
        let description = match is_root {
            true => "",
            false => text(object, "description"),
        };
        let prefix = match is_root {
            true => String::new(),
            false => format!("{path}."),
        };
        write!(self.out, "\n## {heading}\n\n").expect("a string");
        if !description.is_empty() {
            write!(self.out, "{description}\n\n").expect("a string");
        }
        self.out
            .push_str("| key | value | default | meaning |\n| --- | --- | --- | --- |\n");
        for (key, property) in properties(object) {
            let value = self.value(&format!("{prefix}{key}"), property);
            let default = default(object, key, property);
            let meaning = self.meaning(property);
            let cells = [format!("`{key}`"), value, default, meaning];
            let cells = cells.map(|cell| cell.replace('|', "\\|"));
            writeln!(self.out, "| {} |", cells.join(" | ")).expect("a string");
        }
    }

    /// What may be written for this property. Objects are told later, in sections of their own.
    fn value(&mut self, path: &str, property: &'schema Value) -> String {
        if let Some(name) = property["$ref"].as_str() {
            return self.named(path, name);
        }
        for keyword in ["oneOf", "anyOf"] {
            if let Some(alternatives) = property[keyword].as_array() {
                let alternatives = alternatives.iter();
                let words: Vec<_> = alternatives.map(|one| self.value(path, one)).collect();
                return words.join(" or ");
            }
        }
        if let Some(word) = property.get("const") {
            return format!("`{}`", plain(word));
        }
        match property["type"].as_str() {
            Some("string") => text_or(property, "format", "text").to_owned(),
            Some("boolean") => "`true` or `false`".to_owned(),
            Some("integer") => match (&property["minimum"], &property["maximum"]) {
                (Value::Null, _) | (_, Value::Null) => "whole number".to_owned(),
                (least, most) => format!("{least} to {most}"),
            },
            Some("number") => "number".to_owned(),
            Some("array") => {
                let path = format!("{path}[]");
                format!("list: {}", self.value(&path, &property["items"]))
            }
            Some("object") => match &property["additionalProperties"] {
                Value::Bool(_) => {
                    // An alternative that is chosen by its one key.
                    let (key, inner) = properties(property).next().expect("a key");
                    let inner = self.value(&format!("{path}.{key}"), inner);
                    format!("`{key}:` {inner}")
                }
                inner => {
                    let path = format!("{path}.NAME");
                    format!("names, each with: {}", self.value(&path, inner))
                }
            },
            other => panic!("{path}: the reference cannot tell a {other:?}"),
        }
    }

    fn named(&mut self, path: &str, reference: &'schema str) -> String {
        let name = reference.trim_start_matches("#/$defs/");
        let definition = &self.definitions[name];
        if definition.get("properties").is_none() {
            return self.value(path, definition);
        }
        if !self.seen.contains(&name) {
            self.seen.push(name);
            self.pending.push((path.to_owned(), definition));
        }
        "see below".to_owned()
    }

    /// The description, and that of each word which may be chosen.
    fn meaning(&self, property: &Value) -> String {
        let mut meaning = text(property, "description").replace('\n', " ");
        let name = text(property, "$ref").trim_start_matches("#/$defs/");
        let definition = match name {
            "" => property,
            name => &self.definitions[name],
        };
        for alternative in definition["oneOf"].as_array().into_iter().flatten() {
            let word = match alternative.get("const") {
                Some(word) => plain(word),
                None => properties(alternative).next().expect("a key").0.to_owned(),
            };
            let description = text(alternative, "description");
            write!(meaning, " `{word}`: {description}").expect("a string");
        }
        meaning
    }
}

fn default(object: &Value, key: &str, property: &Value) -> String {
    let required = object["required"].as_array();
    if required.is_some_and(|keys| keys.iter().any(|required| required == key)) {
        return "required".to_owned();
    }
    match property.get("default") {
        Some(Value::Object(map)) if map.is_empty() && property.get("$ref").is_some() => {
            "its defaults".to_owned()
        }
        Some(Value::Object(map)) if map.is_empty() => "empty".to_owned(),
        Some(Value::Array(list)) if list.is_empty() => "empty".to_owned(),
        Some(default) => format!("`{}`", plain(default)),
        // The description says what absence means.
        None => String::new(),
    }
}

fn properties(object: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let properties = object["properties"].as_object().map(Map::iter);
    properties
        .into_iter()
        .flatten()
        .map(|(key, property)| (key.as_str(), property))
}

/// A value as it is written in YAML.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(plain).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}

fn text<'value>(value: &'value Value, key: &str) -> &'value str {
    text_or(value, key, "")
}

fn text_or<'value>(value: &'value Value, key: &str, otherwise: &'value str) -> &'value str {
    value[key].as_str().unwrap_or(otherwise)
}

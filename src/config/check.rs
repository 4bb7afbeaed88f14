//! Holds the tree against the schema and collects everything that does not fit.
//!
//! The schema is the one that `cutover schema` prints, so the editor and the program agree. What
//! does not fit is reported and left out, its path is remembered as damaged, and the rest goes on:
//! later steps can then judge what is sound without complaining about what was reported. A key that
//! is nearly right is read as the one that was probably meant, so that mistakes inside it show as
//! well.

mod scalar;

use std::collections::HashMap;

use serde_json::{Map, Value as Json};

use self::scalar::{Text, describe_open, read, word, words};
use super::problem::Problem;
use super::raw;
use super::schema::schema;
use super::source::Source;
use super::tree::{Entry, Node, Position, Scalar, Value};

/// A file as far as it is sound, and what is not.
pub(crate) struct Checked {
    /// Absent if not even the outermost shape fits.
    pub(crate) file: Option<raw::File>,
    /// Where each key path stands.
    pub(crate) positions: HashMap<String, Position>,
    /// Key paths that have been reported and replaced or left out.
    pub(crate) damaged: Vec<String>,
    /// By key path, what came from outside and the reference that stands for it.
    pub(crate) substituted: HashMap<String, Substituted>,
    pub(crate) problems: Vec<Problem>,
}

/// A value from outside the file.
pub(crate) struct Substituted {
    /// Perhaps a secret.
    pub(crate) value: String,
    /// What stands in the file, such as `${TOKEN}`.
    pub(crate) written: String,
}

/// Checks the shape of the whole tree and reads it as far as it is sound.
pub(crate) fn check(root: &Node, source: &mut Source<'_>) -> Checked {
    let schema = schema();
    let mut checker = Checker {
        root: &schema,
        source,
        positions: HashMap::new(),
        damaged: Vec::new(),
        substituted: HashMap::new(),
        problems: Vec::new(),
    };
    let json = checker.node(root, &schema, "");
    let (positions, damaged) = (checker.positions, checker.damaged);
    let substituted = checker.substituted;
    let mut problems = checker.problems;
    let file = json.and_then(|json| match serde_json::from_value(json) {
        Ok(file) => Some(file),
        Err(_) => {
            // Not the error's own text: it may repeat a secret.
            problems.push(Problem {
                line: 0,
                column: 0,
                key: String::new(),
                message: "the file fits the schema, yet cannot be read".to_owned(),
                remedy: "please report this as a mistake of cutover".to_owned(),
            });
            None
        }
    });
    Checked {
        file,
        positions,
        damaged,
        substituted,
        problems,
    }
}

/// `key` within `path`.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// The most similar of `names`, if one is similar enough to have been meant.
pub(crate) fn closest<'n>(written: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let written = written.to_lowercase().replace('-', "_");
    names
        .map(|name| {
            (
                strsim::damerau_levenshtein(&written, &name.to_lowercase()),
                name,
            )
        })
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

struct Checker<'c, 's> {
    root: &'c Json,
    source: &'c mut Source<'s>,
    positions: HashMap<String, Position>,
    damaged: Vec<String>,
    substituted: HashMap<String, Substituted>,
    problems: Vec<Problem>,
}

impl<'c> Checker<'c, '_> {
    fn node(&mut self, node: &Node, schema: &'c Json, path: &str) -> Option<Json> {
        let checked = match &node.value {
            Value::Scalar(scalar) => self.scalar(scalar, node.at, schema, path),
            Value::List(items) => self.list(items, node.at, schema, path),
            Value::Mapping(entries) => self.mapping(entries, node.at, schema, path),
        };
        if checked.is_none() {
            self.damaged.push(path.to_owned());
        }
        checked
    }

    fn list(&mut self, items: &[Node], at: Position, schema: &'c Json, path: &str) -> Option<Json> {
        let alternatives = self.alternatives(schema);
        let Some(schema) = alternatives.iter().find(|one| one["type"] == "array") else {
            self.wrong_kind("a list", at, &alternatives, path);
            return None;
        };
        if (items.len() as u64) < schema["minItems"].as_u64().unwrap_or(0) {
            self.problem(path, at, "the list is empty", "give at least one entry");
            return None;
        }
        let mut array = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            self.positions.insert(path.clone(), item.at);
            let item_schema = &schema["items"];
            // Later steps name entries by their number, so one that is left out leaves a gap.
            array.push(self.node(item, item_schema, &path).unwrap_or(Json::Null));
        }
        Some(Json::Array(array))
    }

    fn mapping(
        &mut self,
        entries: &[Entry],
        at: Position,
        schema: &'c Json,
        path: &str,
    ) -> Option<Json> {
        let alternatives = self.alternatives(schema);
        let objects: Vec<&Json> = alternatives
            .iter()
            .copied()
            .filter(|one| one["type"] == "object")
            .collect();
        let schema = match objects[..] {
            [] => {
                self.wrong_kind("a mapping", at, &alternatives, path);
                return None;
            }
            [only] => only,
            // Alternatives are told apart by the one key that each requires.
            _ => match entries.iter().find_map(|entry| {
                objects
                    .iter()
                    .find(|one| one["required"][0] == entry.key[..])
            }) {
                Some(schema) => schema,
                None => {
                    let advice = self.describe(&alternatives);
                    let message = "this mapping has none of the keys that are possible here";
                    let tags = || objects.iter().filter_map(|one| one["required"][0].as_str());
                    let meant = entries.iter().find_map(|one| closest(&one.key, tags()));
                    let remedy = match meant {
                        Some(meant) => format!("did you mean `{meant}`?"),
                        None => format!("write {advice}"),
                    };
                    self.problem(path, at, message, remedy);
                    return None;
                }
            },
        };
        if (entries.len() as u64) < schema["minProperties"].as_u64().unwrap_or(0) {
            self.problem(path, at, "the mapping is empty", "give at least one entry");
            return None;
        }
        let no_properties = Map::new();
        let properties = schema["properties"].as_object();
        let mut object = Map::new();
        for (index, entry) in entries.iter().enumerate() {
            if let Some(first) = entries[..index].iter().find(|other| other.key == entry.key) {
                let message = format!("this key stands on line {} already", first.at.line);
                let key = join(path, &entry.key);
                self.problem(&key, entry.at, message, "keep one of the two");
                continue;
            }
            let (name, schema) = match properties.and_then(|known| known.get(&entry.key)) {
                Some(schema) => (entry.key.as_str(), schema),
                None if schema["additionalProperties"].is_object() => {
                    (entry.key.as_str(), &schema["additionalProperties"])
                }
                None => {
                    let known = properties.unwrap_or(&no_properties);
                    match self.unknown_key(entry, entries, known, path) {
                        Some(meant) => (meant, &properties?[meant]),
                        None => continue,
                    }
                }
            };
            let path = join(path, name);
            // A mapping begins at its first key, which is not where one looks for its own.
            let at = match entry.value.value {
                Value::Scalar(_) => entry.value.at,
                Value::List(_) | Value::Mapping(_) => entry.at,
            };
            self.positions.insert(path.clone(), at);
            if let Some(json) = self.node(&entry.value, schema, &path) {
                object.insert(name.to_owned(), json);
            }
        }
        if let Some(properties) = properties {
            let at = self.positions.get(path).copied().unwrap_or(at);
            self.report_missing(&object, schema, at, path);
            // One of several alternatives is nothing without the key that tells it apart.
            let lacks = |name: &Json| name.as_str().is_some_and(|name| !object.contains_key(name));
            let mut required = schema["required"].as_array().into_iter().flatten();
            if alternatives.len() > 1 && required.any(lacks) {
                return None;
            }
            self.fill_defaults(&mut object, properties, at, path);
        }
        Some(Json::Object(object))
    }

    /// Reports an unknown key; returns the one that was probably meant.
    fn unknown_key<'k>(
        &mut self,
        entry: &Entry,
        entries: &[Entry],
        known: &'k Map<String, Json>,
        path: &str,
    ) -> Option<&'k str>
    where
        'c: 'k,
    {
        let names = || known.keys().map(String::as_str);
        let meant = closest(&entry.key, names());
        let remedy = match meant {
            Some(name) => format!("did you mean `{name}`?"),
            None if entry.key == "<<" => {
                "merge keys are not supported; repeat the values".to_owned()
            }
            None => format!("known here: {}", names().collect::<Vec<_>>().join(", ")),
        };
        let key = join(path, &entry.key);
        self.problem(&key, entry.at, "unknown key", remedy);
        meant.filter(|name| !entries.iter().any(|other| other.key == *name))
    }

    fn report_missing(
        &mut self,
        object: &Map<String, Json>,
        schema: &'c Json,
        at: Position,
        path: &str,
    ) {
        let required = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
        for name in required.iter().filter_map(Json::as_str) {
            let key = join(path, name);
            if object.contains_key(name) || self.damaged.contains(&key) {
                continue;
            }
            let advice = self.describe(&self.alternatives(&schema["properties"][name]));
            self.problem(
                &key,
                at,
                "this key is missing",
                format!("add `{name}`: {advice}"),
            );
            self.damaged.push(key);
        }
    }

    /// Adds what the schema states for keys that are absent or damaged.
    fn fill_defaults(
        &mut self,
        object: &mut Map<String, Json>,
        properties: &'c Map<String, Json>,
        at: Position,
        path: &str,
    ) {
        for (name, schema) in properties {
            let Some(default) = schema.get("default") else {
                continue;
            };
            if !object.contains_key(name) {
                // Checked like everything else, which fills in the defaults within the default.
                let node = written_out(default, at);
                let path = join(path, name);
                if let Some(json) = self.node(&node, schema, &path) {
                    object.insert(name.clone(), json);
                }
            }
        }
    }

    fn scalar(
        &mut self,
        scalar: &Scalar,
        at: Position,
        schema: &'c Json,
        path: &str,
    ) -> Option<Json> {
        let substituted = match self.source.substitute(&scalar.text) {
            Ok(substituted) => substituted,
            Err(error) => {
                self.problem(path, at, error.message, error.remedy);
                return None;
            }
        };
        let outside = substituted.is_some();
        if let Some(value) = &substituted {
            let (value, written) = (value.clone(), scalar.text.clone());
            let substituted = Substituted { value, written };
            self.substituted.insert(path.to_owned(), substituted);
        }
        let text = Text {
            text: substituted.as_deref().unwrap_or(&scalar.text),
            written: &scalar.text,
            bare: scalar.plain || outside,
            quoted: !scalar.plain || outside,
        };
        let alternatives = self.alternatives(schema);
        if !text.quoted && matches!(text.text, "" | "~" | "null" | "Null" | "NULL") {
            let advice = self.describe(&alternatives);
            let remedy = format!("write {advice}, or remove the key");
            self.problem(path, at, "this key has no value", remedy);
            return None;
        }
        if let Some(word) = alternatives.iter().find_map(|one| word(one, &text)) {
            return Some(word);
        }
        let is_open = |one: &&&Json| {
            one.get("const").is_none()
                && one.get("enum").is_none()
                && matches!(
                    one["type"].as_str(),
                    Some("string" | "boolean" | "integer" | "number")
                )
        };
        let result = match alternatives.iter().find(is_open) {
            Some(schema) => read(&text, schema),
            None => Err(None),
        };
        result
            .map_err(|specific| {
                let (message, remedy) = specific.unwrap_or_else(|| {
                    let words = alternatives.iter().flat_map(|one| words(one));
                    let words: Vec<&str> = words.filter_map(Json::as_str).collect();
                    let remedy = match closest(text.text, words.into_iter()) {
                        // What came from outside is no typing mistake, and not to be repeated.
                        Some(meant) if !outside => format!("did you mean `{meant}`?"),
                        _ => format!("write {}", self.describe(&alternatives)),
                    };
                    (format!("`{}` is not possible here", text.written), remedy)
                });
                self.problem(path, at, message, remedy);
            })
            .ok()
    }

    /// The schemas of which a value must fit one, references followed.
    fn alternatives(&self, schema: &'c Json) -> Vec<&'c Json> {
        if let Some(reference) = schema["$ref"].as_str() {
            let target = reference.trim_start_matches('#');
            return match self.root.pointer(target) {
                Some(schema) => self.alternatives(schema),
                None => Vec::new(),
            };
        }
        let several = schema["oneOf"].as_array().or(schema["anyOf"].as_array());
        match several {
            Some(several) => several
                .iter()
                .flat_map(|schema| self.alternatives(schema))
                .collect(),
            None => vec![schema],
        }
    }

    /// What may be written, to follow the word "write".
    fn describe(&self, alternatives: &[&Json]) -> String {
        let mut phrases: Vec<String> = Vec::new();
        for schema in alternatives {
            let words: Vec<String> = words(schema)
                .map(|word| match word {
                    Json::String(word) => format!("`{word}`"),
                    other => format!("`{other}`"),
                })
                .collect();
            if words.is_empty() {
                phrases.push(describe_open(schema));
            }
            phrases.extend(words);
        }
        match phrases.as_slice() {
            [] => "another value".to_owned(),
            [only] => only.clone(),
            [first @ .., last] => format!("{} or {last}", first.join(", ")),
        }
    }

    fn wrong_kind(&mut self, found: &str, at: Position, alternatives: &[&Json], path: &str) {
        let advice = self.describe(alternatives);
        let message = format!("{found} is not possible here");
        self.problem(path, at, message, format!("write {advice}"));
    }

    fn problem(
        &mut self,
        key: &str,
        at: Position,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.problems.push(Problem {
            line: at.line,
            column: at.column,
            key: key.to_owned(),
            message: message.into(),
            remedy: remedy.into(),
        });
    }
}

/// A default of the schema as if it had been written at `at`.
fn written_out(json: &Json, at: Position) -> Node {
    let value = match json {
        Json::Array(items) => Value::List(items.iter().map(|item| written_out(item, at)).collect()),
        Json::Object(properties) => Value::Mapping(
            properties
                .iter()
                .map(|(key, value)| Entry {
                    key: key.clone(),
                    at,
                    value: written_out(value, at),
                })
                .collect(),
        ),
        Json::String(text) => Value::Scalar(Scalar {
            text: text.clone(),
            plain: false,
        }),
        other => Value::Scalar(Scalar {
            text: other.to_string(),
            plain: true,
        }),
    };
    Node { at, value }
}

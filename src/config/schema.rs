//! The JSON Schema that editors, people and the check itself read.

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use serde_json::{Map, Value};

use super::raw::File;

/// JSON Schema (2020-12) of the configuration file, with descriptions, defaults and patterns.
pub fn schema() -> Value {
    let mut schema = SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<File>();
    RecursiveTransform(tidy).transform(&mut schema);
    schema.to_value()
}

/// Makes the schema say what holds: nothing may be null (an empty value is more often a slip than
/// a wish for the default), and what has a default need not be written.
fn tidy(schema: &mut schemars::Schema) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    if let Some(Value::String(description)) = object.get_mut("description") {
        // Lines are broken where the source is, paragraphs where the author meant it.
        let paragraphs = description.split("\n\n");
        let paragraphs: Vec<_> = paragraphs.map(|text| text.replace('\n', " ")).collect();
        *description = paragraphs.join("\n\n");
    }
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(alternatives)) = object.get_mut("anyOf") {
        alternatives.retain(|alternative| alternative.get("type") != Some(&"null".into()));
        if let [Value::Object(only)] = alternatives.as_slice() {
            let only = only.clone();
            object.remove("anyOf");
            object.extend(only);
        }
    }
    // A `null` among the words of an optional enumeration.
    if let Some(Value::Array(words)) = object.get_mut("enum") {
        words.retain(|word| !word.is_null());
    }
    let defaulted: Vec<String> = match object.get("properties") {
        Some(Value::Object(properties)) => properties
            .iter()
            .filter(|(_, property)| property.get("default").is_some())
            .map(|(name, _)| name.clone())
            .collect(),
        _ => return,
    };
    retain_required(object, &defaulted);
}

fn retain_required(object: &mut Map<String, Value>, defaulted: &[String]) {
    if let Some(Value::Array(required)) = object.get_mut("required") {
        required.retain(|name| !defaulted.iter().any(|defaulted| name == defaulted));
        if required.is_empty() {
            object.remove("required");
        }
    }
}

//! What a scalar means where the schema wants a certain kind of value.
//!
//! YAML guesses from the looks of a scalar, and differently from version to version; here the
//! schema decides. Where the guess of another reader would differ (`1.10` as text), quotes are
//! asked for, so that the file means the same to everyone.

use serde_json::Value as Json;

use crate::config::notation;

/// A scalar with its references replaced.
pub(super) struct Text<'t> {
    /// What it means.
    pub(super) text: &'t str,
    /// What stands in the file; the only form that a message may repeat.
    pub(super) written: &'t str,
    /// May be a number or a truth value: it is not quoted, or came from outside.
    pub(super) bare: bool,
    /// May be text even if it looks like a number: it is quoted, or came from outside.
    pub(super) quoted: bool,
}

/// The fixed words that a schema admits.
pub(super) fn words(schema: &Json) -> impl Iterator<Item = &Json> {
    let several = schema["enum"].as_array().map_or(&[][..], Vec::as_slice);
    schema.get("const").into_iter().chain(several)
}

/// The fixed word that `text` is, if the schema has it.
pub(super) fn word(schema: &Json, text: &Text<'_>) -> Option<Json> {
    words(schema)
        .find(|word| match word {
            Json::String(word) => word == text.text,
            Json::Bool(word) => text.bare && truth(text.text) == Some(*word),
            _ => false,
        })
        .cloned()
}

/// Reads a scalar as what `schema` wants.
///
/// # Errors
/// Message and remedy; `None` where the general ones say enough.
pub(super) fn read(text: &Text<'_>, schema: &Json) -> Result<Json, Option<(String, String)>> {
    match schema["type"].as_str() {
        Some("string") => read_string(text, schema),
        Some("boolean") if text.bare => truth(text.text).map(Json::Bool).ok_or(None),
        Some("boolean") => Err(Some((
            format!("`{}` in quotes is text", text.written),
            "write `true` or `false` without quotes".to_owned(),
        ))),
        Some("integer") if text.bare => {
            let digits = text.text.bytes().all(|b| b.is_ascii_digit());
            let number: Option<u64> = text.text.parse().ok().filter(|_| digits);
            match number {
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "bounds are far below the numbers that a float cannot hold"
                )]
                Some(number) if within(number as f64, schema) => Ok(number.into()),
                _ => Err(None),
            }
        }
        Some("number") if text.bare => {
            // Rust also reads `inf` and `nan`, which are no numbers that one could want.
            let finite = text.text.parse::<f64>().ok().filter(|n| n.is_finite());
            match finite {
                Some(number) if within(number, schema) => Ok(number.into()),
                _ => Err(None),
            }
        }
        Some("integer" | "number") => Err(Some((
            format!("`{}` in quotes is text", text.written),
            format!("write {} without quotes", describe_open(schema)),
        ))),
        _ => Err(None),
    }
}

fn read_string(text: &Text<'_>, schema: &Json) -> Result<Json, Option<(String, String)>> {
    if let Some(reader) = schema["format"].as_str().and_then(notation::reader) {
        if (reader.accepts)(text.text) {
            return Ok(text.text.into());
        }
        return Err(Some((
            format!("`{}` is no {}", text.written, reader.format),
            format!("write {}", reader.advice),
        )));
    }
    // YAML would make a number of `1.10`, and another reader of the file would take it as 1.1.
    if !text.quoted && (truth(text.text).is_some() || looks_like_a_number(text.text)) {
        return Err(Some((
            "text is wanted here, and YAML takes this for a number or a truth value".to_owned(),
            "put it in quotes".to_owned(),
        )));
    }
    if text.text.is_empty() && schema["minLength"].as_u64().unwrap_or(0) > 0 {
        return Err(Some((
            "this text is empty".to_owned(),
            "write something, or remove the key".to_owned(),
        )));
    }
    Ok(text.text.into())
}

/// The truth values of YAML 1.2; `yes`, `no`, `on` and `off` are words since 2009.
fn truth(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// Whether YAML 1.2's core schema resolves a plain scalar to a number.
fn looks_like_a_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if let Some(digits) = unsigned.strip_prefix("0x") {
        return !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    }
    if let Some(digits) = unsigned.strip_prefix("0o") {
        return !digits.is_empty() && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
    }
    if matches!(
        unsigned,
        ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN"
    ) {
        return true;
    }
    unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && unsigned.parse::<f64>().is_ok()
}

fn within(number: f64, schema: &Json) -> bool {
    let bound = |name: &str| schema[name].as_f64();
    bound("minimum").is_none_or(|least| number >= least)
        && bound("maximum").is_none_or(|most| number <= most)
        && bound("exclusiveMinimum").is_none_or(|below| number > below)
        && bound("exclusiveMaximum").is_none_or(|above| number < above)
}

/// What a schema without fixed words admits, to follow the word "write".
pub(super) fn describe_open(schema: &Json) -> String {
    let kind = match schema["type"].as_str() {
        Some("array") => return "a list".to_owned(),
        Some("boolean") => return "`true` or `false`".to_owned(),
        Some("object") => {
            let tag = schema["required"][0].as_str();
            let only = schema["properties"]
                .as_object()
                .filter(|all| all.len() == 1);
            return match (tag, only) {
                (Some(tag), Some(_)) => format!("`{tag}: ...`"),
                (Some(_), None) => "a mapping (`name: value`)".to_owned(),
                (None, _) => "a mapping (`name: value`, or `{}` for the defaults)".to_owned(),
            };
        }
        Some("string") => {
            let reader = schema["format"].as_str().and_then(notation::reader);
            return reader.map_or("text", |reader| reader.advice).to_owned();
        }
        Some("integer") => "a whole number",
        _ => "a number",
    };
    let bounds: String = [
        ("minimum", "from"),
        ("exclusiveMinimum", "above"),
        ("maximum", "to"),
        ("exclusiveMaximum", "below"),
    ]
    .into_iter()
    .filter_map(|(name, word)| Some(format!(" {word} {}", schema.get(name)?)))
    .collect();
    format!("{kind}{bounds}")
}

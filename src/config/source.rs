//! What a configuration takes from outside its file: the environment and other files.
//!
//! Substitution happens on values that YAML has already delimited, never on the raw text: a token
//! that contains a quote or a line break cannot change the structure of the file. Every file that
//! is read is remembered, so that a watcher can watch them all; also one that is missing, since its
//! appearance is the cure.

use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes of a file named in the configuration: a million pinned keys fit.
const MAX_FILE_BYTES: usize = 64 * 1024 * 1024;

/// Where values come from, and what has been read so far.
pub(crate) struct Source<'a> {
    base: &'a Path,
    environment: &'a dyn Fn(&str) -> Option<String>,
    files: Vec<PathBuf>,
}

/// A value that cannot be substituted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SubstitutionError {
    pub(crate) message: String,
    pub(crate) remedy: String,
}

impl<'a> Source<'a> {
    pub(crate) fn new(base: &'a Path, environment: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            base,
            environment,
            files: Vec::new(),
        }
    }

    /// The files read, each once, in the order of their first use.
    pub(crate) fn into_files(self) -> Vec<PathBuf> {
        self.files
    }

    /// `path` seen from the configuration file's directory.
    pub(crate) fn resolve(&self, path: &str) -> PathBuf {
        self.base.join(path)
    }

    /// Reads a file that the configuration names.
    ///
    /// # Errors
    /// A phrase that names the path and says why not.
    pub(crate) fn read(&mut self, path: &str) -> Result<Vec<u8>, String> {
        let path = self.resolve(path);
        let result = is_regular(&path).and_then(|()| read_bounded(&path, MAX_FILE_BYTES));
        let result = result.map_err(|error| format!("cannot read `{}`: {error}", path.display()));
        if !self.files.contains(&path) {
            self.files.push(path);
        }
        result
    }

    /// Replaces `${NAME}`, `${NAME:-default}` and `${file:path}` in `text`; `$${` stands for a
    /// literal `${`. `None` if there is nothing to replace.
    ///
    /// # Errors
    /// The first reference that leads nowhere. What was substituted is never repeated.
    pub(crate) fn substitute(&mut self, text: &str) -> Result<Option<String>, SubstitutionError> {
        if !text.contains("${") {
            return Ok(None);
        }
        let mut result = String::new();
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            let before = &rest[..start];
            let after = &rest[start + 2..];
            if let Some(before) = before.strip_suffix('$') {
                result.push_str(before);
                result.push_str("${");
                rest = after;
                continue;
            }
            result.push_str(before);
            let Some((reference, after)) = after.split_once('}') else {
                return Err(SubstitutionError {
                    message: "`${` without a closing `}`".to_owned(),
                    remedy: "write `${NAME}`, or `$${` for a literal `${`".to_owned(),
                });
            };
            result.push_str(&self.lookup(reference)?);
            rest = after;
        }
        result.push_str(rest);
        Ok(Some(result))
    }

    fn lookup(&mut self, reference: &str) -> Result<String, SubstitutionError> {
        if let Some(path) = reference.strip_prefix("file:") {
            let refuse = |message| SubstitutionError {
                message,
                remedy: "give a readable text file; a relative path starts at the directory of \
                         the configuration file"
                    .to_owned(),
            };
            let bytes = self.read(path).map_err(refuse)?;
            let text = String::from_utf8(bytes)
                .map_err(|_| refuse(format!("`{path}` is not UTF-8 text")))?;
            // Editors and `echo` end a file with a line break that is no part of a secret.
            return Ok(text.trim_end_matches(['\r', '\n']).to_owned());
        }
        let (name, default) = match reference.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        let is_name = !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !is_name {
            return Err(SubstitutionError {
                message: format!("`${{{reference}}}` names no environment variable"),
                remedy: "write `${NAME}`, `${NAME:-default}` or `${file:path}`".to_owned(),
            });
        }
        // An empty variable counts as unset, as in a shell: `${NAME:-default}` then helps.
        let value = (self.environment)(name).filter(|value| !value.is_empty());
        value
            .or(default.map(str::to_owned))
            .ok_or_else(|| SubstitutionError {
                message: format!("the environment variable `{name}` is not set"),
                remedy: format!("set it, or give a default: `${{{name}:-...}}`"),
            })
    }
}

/// Refuses devices and pipes: opening a named pipe would wait for its writer.
fn is_regular(path: &Path) -> Result<(), String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    match metadata.is_file() {
        true => Ok(()),
        false => Err("it is no regular file".to_owned()),
    }
}

/// The contents of a file of at most `limit` bytes.
///
/// # Errors
/// A phrase that says why it cannot be read, without the path.
pub(crate) fn read_bounded(path: &Path, limit: usize) -> Result<Vec<u8>, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    // A device or pipe has no length to ask for, so one byte too many is the proof.
    file.take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.len() > limit {
        return Err(format!("it is larger than {limit} bytes"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn substitute(text: &str) -> Result<Option<String>, SubstitutionError> {
        let environment = |name: &str| match name {
            "TOKEN" => Some("s3cret: \"x\"".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        Source::new(Path::new("/nonexistent"), &environment).substitute(text)
    }

    #[test]
    fn variables_defaults_and_escapes_are_replaced() {
        for (text, expected) in [
            ("plain $5", None),
            ("${TOKEN}", Some("s3cret: \"x\"")),
            ("a${TOKEN}b", Some("as3cret: \"x\"b")),
            ("${MISSING:-x}", Some("x")),
            ("${EMPTY:-x}", Some("x")),
            ("${MISSING:-}", Some("")),
            ("$${TOKEN}", Some("${TOKEN}")),
        ] {
            assert_eq!(substitute(text), Ok(expected.map(str::to_owned)), "{text}");
        }
    }

    #[test]
    fn a_reference_that_leads_nowhere_is_an_error_with_a_remedy() {
        for (text, part) in [
            ("${MISSING}", "`MISSING` is not set"),
            ("${EMPTY}", "`EMPTY` is not set"),
            ("${TOKEN", "closing"),
            ("${a b}", "names no environment variable"),
            ("${}", "names no environment variable"),
            ("${file:absent}", "/nonexistent/absent"),
        ] {
            let error = substitute(text).expect_err(text);
            assert!(error.message.contains(part), "{text}: {}", error.message);
            assert!(!error.remedy.is_empty());
        }
    }

    #[test]
    fn a_pipe_is_refused_before_it_can_be_waited_for() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let made = std::process::Command::new("mkfifo")
            .arg(directory.path().join("pipe"))
            .status();
        assert!(made.expect("there is a mkfifo").success());
        let mut source = Source::new(directory.path(), &|_| None);
        let error = source.read("pipe").expect_err("it is a pipe");
        assert!(error.contains("no regular file"), "{error}");
    }

    #[test]
    fn files_are_remembered_also_when_they_are_missing() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(directory.path().join("token"), "abc\n").expect("writable");
        let mut source = Source::new(directory.path(), &|_| None);
        assert_eq!(
            source.substitute("${file:token}"),
            Ok(Some("abc".to_owned()))
        );
        assert!(source.substitute("${file:later}").is_err());
        let expected = ["token", "later"].map(|name| directory.path().join(name));
        assert_eq!(source.into_files(), expected);
    }
}

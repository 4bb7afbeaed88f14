//! The configuration file: what was written, what is meant, and every way it can be wrong.
//!
//! The way of a file: `tree` keeps what was written with every place; `check` holds the tree
//! against the schema that [`schema()`] prints, so editor and program can never disagree, and fills
//! in the defaults that the schema states; `raw` is the result as plain structures; `compile`
//! turns them into [`model::Config`], the only thing the rest of the program sees.
//!
//! Each step goes on after a mistake, because a person at night mends ten mistakes as quickly as
//! one if all ten are shown.

pub mod certificate;
mod check;
mod compile;
pub mod jwt_key;
pub mod model;
mod notation;
mod problem;
mod raw;
mod schema;
mod source;
mod tree;

#[cfg(test)]
mod tests;

use std::path::Path;

pub use self::problem::{Problem, Problems};
pub use self::schema::schema;

use self::model::Config;
use self::source::Source;

/// Reads the file at `path`, with the process's environment.
///
/// Touches nothing; reads the file and what it refers to.
///
/// # Errors
/// Every problem found, at once.
pub fn load(path: &Path) -> Result<Config, Problems> {
    let files = vec![path.to_owned()];
    let refuse = |message: String, remedy: &str| {
        let problem = Problem {
            line: 0,
            column: 0,
            key: String::new(),
            message,
            remedy: remedy.to_owned(),
        };
        Problems::new(path, vec![problem], files.clone())
    };
    let bytes = source::read_bounded(path, tree::MAX_BYTES).map_err(|message| {
        let message = format!("cannot be read: {message}");
        refuse(message, "give the path of a readable YAML file")
    })?;
    let text = String::from_utf8(bytes)
        .map_err(|_| refuse("is not UTF-8 text".to_owned(), "save the file as UTF-8"))?;
    let base = path.parent().unwrap_or(Path::new(""));
    match load_text(&text, base, &|name| std::env::var(name).ok()) {
        Ok(mut config) => {
            config.files.insert(0, path.to_owned());
            Ok(config)
        }
        Err(mut problems) => {
            problems.path = path.to_owned();
            problems.files.insert(0, path.to_owned());
            Err(problems)
        }
    }
}

/// Reads a configuration from `text`; relative paths in it start at `base`, and `${NAME}` is what
/// `environment` says.
///
/// # Errors
/// Every problem found, at once; [`Problems::path`] is empty.
pub fn load_text(
    text: &str,
    base: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Problems> {
    let mut source = Source::new(base, environment);
    let (config, problems) = match tree::parse(text) {
        Ok(root) => {
            let checked = check::check(&root, &mut source);
            compile::compile(checked, &mut source)
        }
        Err(error) => {
            let problem = Problem {
                line: error.at.line,
                column: error.at.column,
                key: String::new(),
                message: error.message,
                remedy: error.remedy.to_owned(),
            };
            (None, vec![problem])
        }
    };
    let files = source.into_files();
    match config {
        Some(config) if problems.is_empty() => Ok(Config { files, ..config }),
        _ => Err(Problems::new(Path::new(""), problems, files)),
    }
}

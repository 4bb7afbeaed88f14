//! What is wrong with a file, in words that name the place and the cure.
//!
//! A message may repeat what stands in the file, never what was substituted into it: that may be a
//! secret, and messages end in logs, terminals and the admin API.

use std::path::{Path, PathBuf};

/// One thing that is wrong with a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1; 0 where none applies.
    pub line: usize,
    /// Column, from 1; 0 where none applies.
    pub column: usize,
    /// Path of the key, such as `splits.checkout.new`.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What would mend it.
    pub remedy: String,
}

/// `line:column: key: message (remedy)`, leaving out what does not apply.
impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.line > 0 {
            write!(f, "{}:{}: ", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{} ({})", self.message, self.remedy)
    }
}

/// Everything that is wrong with a configuration file; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    /// The file; empty where the text came from elsewhere.
    pub path: PathBuf,
    /// In the order of their places.
    pub problems: Vec<Problem>,
    /// The files that were read, as in `Config::files`: a change of any of them is worth another
    /// attempt.
    pub files: Vec<PathBuf>,
}

impl Problems {
    pub(crate) fn new(path: &Path, mut problems: Vec<Problem>, files: Vec<PathBuf>) -> Self {
        problems.sort_by_key(|problem| (problem.line, problem.column));
        Self {
            path: path.to_owned(),
            problems,
            files,
        }
    }
}

/// One line per problem: `file:line:column: key: message (remedy)`.
impl std::fmt::Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            if !self.path.as_os_str().is_empty() {
                let space = if problem.line == 0 { " " } else { "" };
                write!(f, "{}:{space}", self.path.display())?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

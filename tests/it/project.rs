//! The project's own files, for tests that hold them against each other.

use std::fs;
use std::path::{Path, PathBuf};

/// The folder of Cargo.toml.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A text file, by its path from the root.
pub(crate) fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files with this extension below these folders, as paths from the root.
pub(crate) fn files(folders: &[&str], extension: &str) -> Vec<PathBuf> {
    let mut pending: Vec<PathBuf> = folders.iter().map(PathBuf::from).collect();
    let mut files = Vec::new();
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("a folder") {
            let entry = entry.expect("an entry");
            let path = folder.join(entry.file_name());
            if entry.file_type().expect("a type").is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// What stands in a Markdown document between fences of this language.
pub(crate) fn fenced(document: &str, language: &str) -> Vec<String> {
    let opening = format!("```{language}\n");
    let blocks = document.split(&opening).skip(1);
    blocks
        .map(|rest| {
            let end = rest.find("```").expect("a closing fence");
            rest[..end].to_owned()
        })
        .collect()
}

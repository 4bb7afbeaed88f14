//! Boundaries that the compiler does not hold, because everything is one package.
//!
//! The order of the layers is read from docs/architecture.md, so the document cannot fall behind.
//! The scan is by words, not by syntax: rustfmt has laid the code out, and a boundary that only a
//! trick can cross is crossed on purpose.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::project::{files, read, root};

/// A file longer than this is asking for a noun of its own.
const MOST_LINES: usize = 600;
/// The same for tests, whose tables of cases read quickly.
const MOST_LINES_OF_TESTS: usize = 750;

/// What policy code may not name, as a path or as a word: I/O, clocks, chance, and state that two
/// calls could share.
const IMPURE: [&str; 22] = [
    "std::net",
    "std::fs",
    "std::io",
    "std::env",
    "std::process",
    "std::thread",
    "tokio",
    "hyper",
    "rustls",
    "metrics",
    "tracing",
    "Instant",
    "SystemTime",
    "getrandom",
    "rand",
    "async",
    "await",
    "Mutex",
    "RefCell",
    "OnceLock",
    "LazyLock",
    "thread_local",
];

#[test]
fn policy_names_no_input_output_no_clock_and_no_chance() {
    let mut found = Vec::new();
    for file in production_files() {
        if file.module() == "policy" {
            let names = IMPURE.iter().filter(|name| mentions(&file.code, name));
            found.extend(names.map(|name| format!("{}: {name}", file.path.display())));
        }
    }
    assert!(
        found.is_empty(),
        "time and chance are arguments of policy: {found:#?}"
    );
}

#[test]
fn each_module_uses_only_layers_to_its_left() {
    let layers = layers();
    let mut found = Vec::new();
    for file in production_files() {
        // The library's root only lists the modules.
        if file.path == Path::new("src/lib.rs") {
            continue;
        }
        for used in file.modules_used() {
            if used != file.module() && layer(&layers, &used) >= layer(&layers, &file.module()) {
                found.push(format!("{} uses {used}", file.path.display()));
            }
        }
    }
    assert!(
        found.is_empty(),
        "docs/architecture.md, section Layers: {found:#?}"
    );
}

#[test]
fn the_layers_name_every_module_and_nothing_else() {
    let mut modules: Vec<String> = production_files().iter().map(SourceFile::module).collect();
    modules.retain(|module| module != "lib");
    modules.sort();
    modules.dedup();
    let placed: Vec<String> = layers().into_keys().collect();
    assert_eq!(modules, placed, "docs/architecture.md, section Layers");
}

#[test]
fn no_path_climbs_out_of_its_module() {
    // `crate::telemetry` is seen by the test above; `super::super::telemetry` would not be.
    let mut found = Vec::new();
    for file in production_files() {
        let climb = "super::".repeat(file.depth());
        if file.code.contains(&climb) {
            found.push(file.path);
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn every_file_opens_by_saying_why_it_exists() {
    let mut found = Vec::new();
    for path in rust_files(&["src", "tests"]) {
        // The tests of a file stand for that file.
        let is_of_a_file = path.file_name().is_some_and(|name| name == "tests.rs");
        if !is_of_a_file && !read(&path).starts_with("//! ") {
            found.push(path);
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn no_file_is_too_long_to_read_in_one_sitting() {
    let mut found = Vec::new();
    for path in rust_files(&["src", "tests"]) {
        let lines = read(&path).lines().count();
        let most = if is_test(&path) {
            MOST_LINES_OF_TESTS
        } else {
            MOST_LINES
        };
        if lines > most {
            found.push(format!("{}: {lines} lines", path.display()));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn every_file_that_the_documentation_names_exists() {
    let mut found = Vec::new();
    for document in documents() {
        let text = read(&document);
        // Between backticks, so every second piece.
        for name in text.split('`').skip(1).step_by(2) {
            let is_path = ["src/", "tests/", "config/", "docs/"]
                .iter()
                .any(|folder| name.starts_with(folder));
            let is_plain = !name.contains([' ', '*', '{', '<', '\n']);
            if is_path && is_plain && !root().join(name).exists() {
                found.push(format!("{}: {name}", document.display()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_scan_sees_what_it_must_and_nothing_else() {
    let file = SourceFile::new(
        PathBuf::from("src/policy/judge/mod.rs"),
        "use crate::telemetry::tally; // crate::admin\n\
         /// See [`crate::server`].\n\
         #[cfg(test)]\n\
         mod tests;\n\
         fn ask() -> Instant {\n\
         }\n\
         #[cfg(test)]\n\
         mod fixture {\n    \
             use crate::app;\n\
         }\n\
         fn operand() { tokio::spawn(crate::proxy::run()) }\n",
    );
    assert_eq!(file.module(), "policy");
    assert_eq!(file.depth(), 2);
    assert_eq!(file.modules_used(), ["telemetry", "proxy"]);
    assert!(mentions(&file.code, "Instant"));
    assert!(mentions(&file.code, "tokio"));
    assert!(!mentions(&file.code, "rand"), "only a part of `operand`");
    assert_eq!(
        SourceFile::new(PathBuf::from("src/snapshot.rs"), "").depth(),
        1
    );
}

/// A source file without its comments and tests.
struct SourceFile {
    path: PathBuf,
    code: String,
}

impl SourceFile {
    fn new(path: PathBuf, text: &str) -> Self {
        let mut code = String::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if line.trim() == "#[cfg(test)]" {
                skip_item(&mut lines);
                continue;
            }
            let statement = line.split("// ").next().unwrap_or_default();
            if !statement.trim_start().starts_with("//") {
                code.push_str(statement);
                code.push('\n');
            }
        }
        Self { path, code }
    }

    /// The module right under the crate's root that this file belongs to.
    fn module(&self) -> String {
        let inside = self.path.strip_prefix("src").expect("under src");
        let first = inside.components().next().expect("a file");
        Path::new(first.as_os_str())
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned()
    }

    /// How many `super::` lead from this file to the crate's root.
    fn depth(&self) -> usize {
        let parts = self.path.components().count() - 1;
        let is_folder = self.path.file_name().is_some_and(|name| name == "mod.rs");
        parts - usize::from(is_folder)
    }

    fn modules_used(&self) -> Vec<String> {
        // The binary is a crate of its own, which sees the library from outside.
        let root = match self.module().as_str() {
            "main" => "cutover::",
            _ => "crate::",
        };
        let mut uses = Vec::new();
        for piece in self.code.split(root).skip(1) {
            let end = piece.find(|c: char| !is_word(c)).unwrap_or(piece.len());
            assert!(end > 0, "{}: import module by module", self.path.display());
            uses.push(piece[..end].to_owned());
        }
        uses
    }
}

/// Passes over the item that an attribute belongs to: up to a `;`, or to the brace that closes it,
/// which stands where the item began.
fn skip_item<'text>(lines: &mut impl Iterator<Item = &'text str>) {
    let mut indentation = None;
    for line in lines {
        let depth = line.len() - line.trim_start().len();
        let start = *indentation.get_or_insert(depth);
        let is_end = line.trim_end() == format!("{}}}", " ".repeat(start));
        if is_end || (depth == start && line.ends_with(';')) {
            return;
        }
    }
}

/// Whether `name` stands in `code` as a whole word.
fn mentions(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(start, _)| {
        let before = code[..start].chars().next_back();
        let after = code[start + name.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The layer of each module, from the line of docs/architecture.md that starts with `message <`.
fn layers() -> BTreeMap<String, usize> {
    let text = read("docs/architecture.md");
    let line = text.lines().find(|line| line.starts_with("message <"));
    let mut layers = BTreeMap::new();
    for (position, names) in line.expect("the layers").split('<').enumerate() {
        for name in names.split(',') {
            layers.insert(name.trim().to_owned(), position);
        }
    }
    layers
}

fn layer(layers: &BTreeMap<String, usize>, module: &str) -> usize {
    *layers
        .get(module)
        .unwrap_or_else(|| panic!("module {module} has no place in docs/architecture.md"))
}

fn production_files() -> Vec<SourceFile> {
    rust_files(&["src"])
        .into_iter()
        .filter(|path| !is_test(path))
        .map(|path| SourceFile::new(path.clone(), &read(&path)))
        .collect()
}

fn is_test(path: &Path) -> bool {
    path.iter()
        .any(|part| part == "tests" || part == "tests.rs")
}

fn rust_files(folders: &[&str]) -> Vec<PathBuf> {
    files(folders, "rs")
}

fn documents() -> Vec<PathBuf> {
    let mut documents = files(&["docs"], "md");
    documents.push(PathBuf::from("README.md"));
    documents.push(PathBuf::from("CHANGELOG.md"));
    documents
}

//! The directory entries that decide which content a path leads to.
//!
//! For `/etc/cutover/cutover.yaml` in a Kubernetes volume these are `cutover.yaml` itself (a
//! link), `..data` beside it (a link, and the one that is swapped), and the file in the directory
//! that `..data` stands for. A watch on these entries, and on no others, neither misses the swap
//! nor wakes up for neighbours.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel follows; more are a circle.
const MOST_LINKS: usize = 40;

/// The entries of all `files`, each as the real path of its directory and a name.
pub(super) fn entries_of(files: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut entries = BTreeSet::new();
    for file in files {
        follow(file, &mut entries);
    }
    entries
}

/// Adds each link on the way, and the entry at which the way ends: the file, or the first that is
/// missing.
fn follow(file: &Path, entries: &mut BTreeSet<PathBuf>) {
    // Without a working directory, a relative path leads nowhere, here as anywhere.
    let Ok(file) = std::path::absolute(file) else {
        return;
    };
    let mut place = PathBuf::new();
    let mut steps = VecDeque::new();
    prepend(&mut steps, &file);
    let mut links = 0;
    while let Some(step) = steps.pop_front() {
        let name = match step {
            Step::Root(root) => {
                place = root;
                continue;
            }
            Step::Up => {
                place.pop();
                continue;
            }
            Step::Name(name) => name,
        };
        let entry = place.join(name);
        if let Ok(target) = std::fs::read_link(&entry) {
            entries.insert(entry);
            links += 1;
            if links > MOST_LINKS {
                return;
            }
            prepend(&mut steps, &target);
        } else if steps.is_empty() || !entry.is_dir() {
            entries.insert(entry);
            return;
        } else {
            place = entry;
        }
    }
}

enum Step {
    Root(PathBuf),
    Up,
    Name(OsString),
}

fn prepend(steps: &mut VecDeque<Step>, path: &Path) {
    for component in path.components().rev() {
        steps.push_front(match component {
            Component::Prefix(_) | Component::RootDir => {
                Step::Root(PathBuf::from(component.as_os_str()))
            }
            Component::CurDir => continue,
            Component::ParentDir => Step::Up,
            Component::Normal(name) => Step::Name(name.to_owned()),
        });
    }
}

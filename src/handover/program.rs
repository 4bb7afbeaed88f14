//! How to start this program again, as whatever lies in its place by then.
//!
//! The system resolves links when it says which file a process runs, and calls a file that was
//! replaced "(deleted)". So the path is noted at the start, as it was typed: an upgrade that turns
//! a link to another release is seen.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::{env, fs};

use super::last_words::LastWords;

/// The argument that has a process take over from the running one.
pub const TAKE_OVER: &str = "--take-over";

/// How to start this program again.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// This process's. To be called before anyone can have replaced the file.
    ///
    /// # Errors
    /// The system does not say which file runs.
    pub fn of_this_process() -> io::Result<Self> {
        let mut words = env::args_os();
        let name = words.next().unwrap_or_default();
        let mut arguments: Vec<OsString> = words.collect();
        if !arguments.iter().any(|argument| argument == TAKE_OVER) {
            arguments.push(TAKE_OVER.into());
        }
        let running = env::current_exe()?;
        let path = as_typed(Path::new(&name), &running).unwrap_or(running);
        Ok(Self { path, arguments })
    }

    /// Where the program lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Starts what lies there now, with our arguments, to take over.
    ///
    /// # Errors
    /// Those of starting a process.
    pub fn start(&self) -> io::Result<(Child, LastWords)> {
        let mut command = Command::new(&self.path);
        let words = LastWords::of(&mut command)?;
        Ok((command.args(&self.arguments).spawn()?, words))
    }
}

/// The path by which `running` was started, links included.
fn as_typed(name: &Path, running: &Path) -> Option<PathBuf> {
    let runs = |path: &PathBuf| fs::canonicalize(path).is_ok_and(|path| path == running);
    if name.components().count() > 1 {
        return std::path::absolute(name).ok().filter(runs);
    }
    let searched = env::var_os("PATH")?;
    let found = env::split_paths(&searched).map(|directory| directory.join(name));
    found
        .filter_map(|path| std::path::absolute(path).ok())
        .find(runs)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_program_that_was_started_by_a_link_is_started_by_it_again() {
        let directory = tempfile::tempdir().unwrap();
        let directory = fs::canonicalize(directory.path()).unwrap();
        let (release, link) = (directory.join("cutover-1"), directory.join("cutover"));
        fs::write(&release, "").unwrap();
        symlink(&release, &link).unwrap();
        assert_eq!(as_typed(&link, &release), Some(link.clone()));
        assert_eq!(as_typed(&release, &release), Some(release.clone()));
        // What the name means here is not what runs.
        assert_eq!(as_typed(&link, Path::new("/bin/sh")), None);
        assert_eq!(as_typed(Path::new("cutover-none"), &release), None);
    }
}

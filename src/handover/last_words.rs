//! What a successor says when it does not come to serve.
//!
//! It fails before it is known where its predecessor listens: the configuration that would tell is
//! what is wrong with it, as a rule. And its standard error belongs to the log, for good. So it is
//! started with a pipe in place of the standard input that nobody would use, and the operator who
//! waits for the upgrade reads the reason instead of being sent to a log.

use std::ffi::OsStr;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::{env, fs};

/// Tells a process that its standard input is for its last words.
const VARIABLE: &str = "CUTOVER_LAST_WORDS";
const STDIN: &str = "stdin";
/// Of more than this the end is cut off. A pipe holds it without being read.
const LIMIT: usize = 4096;

/// Where the last words of a process arrive.
#[derive(Debug)]
pub struct LastWords(PipeReader);

impl LastWords {
    /// Has the process that `command` starts leave its last words here.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub(super) fn of(command: &mut Command) -> io::Result<Self> {
        let (words, last) = io::pipe()?;
        rustix::io::ioctl_fionbio(&words, true)?;
        command.env(VARIABLE, STDIN).stdin(Stdio::from(last));
        Ok(Self(words))
    }

    /// What was said, on one line; none if nothing was. To be called once the process has ended.
    pub fn heard(&mut self) -> Option<String> {
        let mut bytes = [0; LIMIT];
        let mut length = 0;
        while let Ok(read @ 1..) = self.0.read(&mut bytes[length..]) {
            length += read;
        }
        let text = String::from_utf8_lossy(&bytes[..length]);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let line = lines.join("; ").replace(char::is_control, "\u{fffd}");
        (!line.is_empty()).then_some(line)
    }
}

/// Leaves these words to the process that has started us as its successor, if one has.
pub fn say(words: &str) {
    if env::var_os(VARIABLE).as_deref() != Some(OsStr::new(STDIN)) {
        return;
    }
    let end = words.floor_char_boundary(LIMIT);
    let said = io::stdin().as_fd().try_clone_to_owned();
    let said = said.and_then(|input| fs::File::from(input).write_all(&words.as_bytes()[..end]));
    // Whoever wanted to know may have gone, and standard error tells the same.
    drop(said);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_of(script: &str) -> Option<String> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        let mut words = LastWords::of(&mut command).unwrap();
        command.status().unwrap();
        words.heard()
    }

    #[test]
    fn last_words_come_on_one_line_and_bounded() {
        let said = words_of("printf 'a:1:2: \\033[2J\\nb:3:4: no\\n' >&0");
        assert_eq!(said.as_deref(), Some("a:1:2: \u{fffd}[2J; b:3:4: no"));
        let long = words_of("printf '%08000d' 1 >&0").unwrap();
        assert!(long.len() <= LIMIT, "{}", long.len());
    }

    #[test]
    fn who_says_nothing_is_waited_for_by_nobody() {
        assert_eq!(words_of("true"), None);
        // What it has started holds the pipe open.
        assert_eq!(words_of("exec 3>&0; sleep 5 >/dev/null 2>&1 &"), None);
    }
}

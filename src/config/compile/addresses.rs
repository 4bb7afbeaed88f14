//! Lists of addresses in files of their own: long ones, and those that a program writes.
//!
//! A line that cannot be read refuses the whole file, so the list in force stays what it was: half
//! of a deny list would let in whom the other half names.

use ipnet::IpNet;

use super::Compiler;
use crate::policy::addresses;

/// Entries of one file. All of them are laid out anew at each reload, while nobody waits for it.
const MAX_ENTRIES: usize = 100_000;
/// Bad lines that are told of one file; whoever names the wrong file need not read all of it.
const MAX_TOLD: usize = 20;

impl Compiler<'_, '_> {
    /// What a deny list lists besides; nothing without a file.
    pub(super) fn denied_in_file(&mut self, file: Option<String>) -> Vec<IpNet> {
        file.map_or_else(Vec::new, |file| {
            self.networks_in_file("edge.deny_file", &file)
        })
    }

    /// What an allow list lists besides; nothing without a file.
    pub(super) fn allowed_in_file(&mut self, file: Option<String>) -> Vec<IpNet> {
        let Some(file) = file else {
            return Vec::new();
        };
        let problems = self.problems.len();
        let key = "edge.allow_file";
        let networks = self.networks_in_file(key, &file);
        if networks.is_empty() && self.problems.len() == problems {
            // An empty allow list admits everybody, which nobody means who names a file for it.
            let message = format!("{file}: lists no address, so everybody would be served");
            let remedy = "list who is served, or leave `allow_file` out";
            self.problem(key, message, remedy);
        }
        networks
    }

    fn networks_in_file(&mut self, key: &str, file: &str) -> Vec<IpNet> {
        let mut networks = Vec::new();
        let Some(bytes) = self.read_file(key, file) else {
            return networks;
        };
        let Ok(text) = String::from_utf8(bytes) else {
            let message = format!("{file}: is not UTF-8 text");
            self.problem(key, message, "save the file as UTF-8");
            return networks;
        };
        let mut told = 0;
        for (index, line) in text.lines().enumerate() {
            let place = format_args!("{file}:{}", index + 1);
            let entry = line.split_once('#').map_or(line, |(entry, _)| entry).trim();
            if entry.is_empty() {
                continue;
            }
            let Some(network) = addresses::network(entry) else {
                let message = format!("{place}: this is no address and no network");
                let remedy = "write one on each line, such as `192.0.2.7` or `10.0.0.0/8`; `#` \
                              begins a comment";
                self.problem(key, message, remedy);
                told += 1;
                if told == MAX_TOLD {
                    break;
                }
                continue;
            };
            if networks.len() == MAX_ENTRIES {
                let message = format!("{place}: the file has more than {MAX_ENTRIES} entries");
                let remedy = "join addresses into networks, or deny them further out";
                self.problem(key, message, remedy);
                break;
            }
            networks.push(network);
        }
        networks
    }
}

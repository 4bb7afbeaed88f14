//! The configuration file, for commands that need no running instance.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::model::{Config, Split};
use crate::control::protocol::no_such_split;

use super::exit::{Exit, Failure};

/// Which file.
#[derive(Debug, Args)]
pub(super) struct ConfigFile {
    /// The configuration file.
    #[arg(id = "config", long, value_name = "FILE")]
    pub(super) path: PathBuf,
}

/// Reads the file, or says everything that is wrong with it.
pub(super) fn load(path: &Path) -> Result<Config, Failure> {
    crate::config::load(path).map_err(|problems| {
        let message = format!("{} is not valid:\n{problems}", path.display());
        Failure::new(Exit::Config, message)
    })
}

/// The split of that name, or the names there are.
pub(super) fn split<'a>(config: &'a Config, name: &str) -> Result<&'a Split, Failure> {
    let found = config.splits.iter().find(|split| split.name == name);
    found.ok_or_else(|| {
        let names = config.splits.iter().map(|split| split.name.as_str());
        Failure::new(Exit::Usage, no_such_split(name, names))
    })
}

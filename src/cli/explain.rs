//! `cutover explain`: where a session goes, and why.

use std::path::PathBuf;

use clap::Args;

use crate::policy::address_key::TypedKey;
use crate::policy::assign::{Explanation, Question, explain};
use crate::policy::key::Salt;
use crate::policy::share::Share;

use super::client::{Connection, escape, for_people};
use super::exit::Failure;
use super::file;
use super::output::{Answer, Format, Output};

/// `cutover explain`
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// Name of the split.
    #[arg(long, value_name = "NAME")]
    split: String,
    /// The session key as requests carry it, such as the cookie's value; or a client's address.
    #[arg(long, value_name = "KEY", allow_hyphen_values = true,
          value_parser = clap::builder::NonEmptyStringValueParser::new())]
    key: String,
    /// Ask this file instead of a running instance: its share and its pins decide.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

impl Explain {
    pub(super) fn run(self) -> Result<Answer, Failure> {
        let answer = match &self.config {
            Some(path) => serde_json::json!(self.offline(path.clone())?),
            None => {
                let (split, key) = (escape(&self.split), escape(&self.key));
                let path = format!("/api/v1/explain?split={split}&key={key}");
                self.connection.get(&path)?
            }
        };
        match self.output.format {
            Format::Json => Ok(Answer::json(&answer)),
            Format::Table => {
                let explanation: Explanation = for_people(answer)?;
                Ok(Answer::success(render(&explanation)))
            }
        }
    }

    fn offline(&self, path: PathBuf) -> Result<Explanation, Failure> {
        let config = file::load(&path)?;
        let split = file::split(&config, &self.split)?;
        let key = TypedKey::new(&self.key, split.addresses());
        Ok(explain(Question {
            split: &split.name,
            salt: Salt::new(&split.salt),
            key,
            pinned: split.pinned(&key),
            share: split.course.file_share().unwrap_or(Share::ZERO),
            emergency: false,
        }))
    }
}

fn render(explanation: &Explanation) -> String {
    let Explanation {
        bucket,
        cluster,
        share,
        arm,
        cause,
        sentence,
        ..
    } = explanation;
    format!(
        "{sentence}\n\n\
         arm      {arm}\n\
         cause    {}\n\
         share    {share}\n\
         bucket   {bucket} of 0..9999\n\
         cluster  {cluster} of 0..63\n",
        cause.as_str()
    )
}

//! `cutover deny`: who may not come in, by hand and at once.

use std::time::Duration;

use clap::Args;

use crate::admin::wire::{Deny, NETWORK_FORMS};
use crate::control::denied::Denied;
use crate::policy::{addresses, duration};

use super::change::{ChangeRequest, reason};
use super::client::for_people;
use super::exit::{Exit, Failure};
use super::output::{Align, Answer, Format, Ink, Table};

const PATH: &str = "/api/v1/denied";

/// `cutover deny`
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A client's address, such as 192.0.2.7 or 2001:db8::1, or a network, such as 192.0.2.0/24 or
    /// 2001:db8::/32; without it, what is denied is listed.
    #[arg(value_name = "ADDRESS|NETWORK", value_parser = network)]
    network: Option<String>,
    /// For how long from now: a number with one of the units s, m, h or d, such as 90s, 30m, 1.5h
    /// or 7d; no date and no time of day. Without it, until somebody ends it.
    #[arg(long = "for", value_name = "DURATION", requires = "network", value_parser = span)]
    span: Option<Duration>,
    /// End the denial of exactly this network.
    #[arg(long, requires = "network", conflicts_with = "span")]
    remove: bool,
    /// Why; obligatory when denying. Recorded with the decision.
    #[arg(long, value_name = "TEXT", requires = "network", value_parser = reason)]
    reason: Option<String>,
    #[command(flatten)]
    request: ChangeRequest,
}

impl Arguments {
    pub(super) fn run(self, ink: Ink) -> Result<Answer, Failure> {
        let Some(network) = self.network else {
            let answer = self.request.connection.get(PATH)?;
            return match self.request.output.format {
                Format::Json => Ok(Answer::json(&answer)),
                Format::Table => Ok(Answer::success(render(&for_people(answer)?, ink))),
            };
        };
        if self.reason.is_none() && !self.remove {
            return Err(Failure::new(
                Exit::Usage,
                "denying needs a reason: whoever finds it denied will ask why; add --reason TEXT",
            ));
        }
        let body = Deny {
            network,
            span: self.span,
            remove: self.remove,
            reason: self.reason.unwrap_or_default(),
            expected_revision: self.request.expect,
            dry_run: self.request.dry_run,
        };
        self.request.send(PATH, &body)
    }
}

fn render(denied: &Denied, ink: Ink) -> String {
    if denied.denied.is_empty() {
        return "Nothing is denied by hand.\n".to_owned();
    }
    let mut table = Table::new([
        ("NETWORK", Align::Left),
        ("SINCE", Align::Left),
        ("UNTIL", Align::Left),
        ("ACTOR", Align::Left),
        ("REASON", Align::Left),
    ]);
    for entry in &denied.denied {
        let denial = &entry.denial;
        let until = denial.until.map(|until| until.rfc3339());
        table.row([
            entry.network.to_string().into(),
            denial.since.rfc3339().into(),
            until
                .unwrap_or_else(|| "somebody ends it".to_owned())
                .into(),
            denial.actor.as_str().into(),
            denial.reason.as_str().into(),
        ]);
    }
    table.render(ink)
}

/// Refused here in the same words as there, before anything is sent.
fn network(text: &str) -> Result<String, String> {
    match addresses::network(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err(NETWORK_FORMS.to_owned()),
    }
}

fn span(text: &str) -> Result<Duration, String> {
    match duration::parse(text) {
        Ok(span) if !span.is_zero() => Ok(span),
        _ => Err(
            "write how long from now, as a number with one of the units s, m, h or d, such as \
             `90s`, `30m`, `1.5h` or `7d`; a date or a time of day is not taken"
                .to_owned(),
        ),
    }
}

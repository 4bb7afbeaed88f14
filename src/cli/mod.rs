//! The command line.
//!
//! Commands that operate a running instance speak its admin API and nothing else: they open no
//! state store and no configuration, so whatever the CLI can do a script can do too, and an
//! operator's laptop needs no file of the server's.
//!
//! A command is a struct of arguments with a `run` that returns an [`Answer`] or a [`Failure`];
//! only [`main`] prints and exits. To add one: write the struct in the file of its group, add a
//! variant to [`Command`] (its first line of documentation is the summary in `cutover help`, the
//! rest is the long help and ends with an example) and an arm to [`Cli::run`].
//!
//! Exit codes are promises; see [`Exit`].

mod change;
mod client;
mod deny;
mod exit;
mod explain;
mod file;
mod history;
mod judge;
mod offline;
mod operate;
mod output;
mod record;
mod serve;
mod smoke;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod wait;

use std::io::Write;
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

pub use self::exit::{Exit, Failure};
use self::output::{Answer, Format, Ink};
use crate::handover::last_words;

/// Moves live traffic from a legacy API to its replacement, in stages, on evidence, and back at
/// the first sign of harm.
#[derive(Debug, Parser)]
#[command(name = "cutover", version, after_help = Exit::help())]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Stand in front of both APIs and move traffic.
    ///
    /// Example: cutover serve --config cutover.yaml
    ///
    /// Prints where it listens, then serves until SIGTERM or Ctrl-C. The file is watched: an edit
    /// takes effect within a tenth of a second, and one with problems changes nothing. SIGHUP reads
    /// it at once.
    Serve(serve::Serve),

    /// Show all of it on this machine: two APIs, 2,000 sessions, a plan, a death, a rollback.
    ///
    /// Example: cutover demo
    ///
    /// Starts two small APIs, this program's `serve` between them, and traffic. The new API goes
    /// through a plan from 0% to 100% by itself, at compressed time; then it dies, and later heals.
    /// Everything keeps running until Ctrl-C, with the commands to try. With --once five more
    /// rollouts are harmed, each in another way, and it ends; the exit code is 0 only if each claim
    /// was seen to hold. It needs no file and leaves none behind.
    Demo(offline::Demo),

    /// Say everything that is wrong with a configuration file.
    ///
    /// Example: cutover check --config cutover.yaml
    ///
    /// Reads the file as `serve` would, certificates and all, and touches nothing. Every problem is
    /// listed with its line, column and remedy; the exit code is 0 or 3.
    Check(offline::Check),

    /// Show what a running instance does: shares, arms, evidence, backends.
    ///
    /// Example: cutover status
    ///
    /// Shows for each split its share, how each arm fares, how close each rollback criterion is to
    /// firing, and the last decision with its reason; then each backend's endpoints. What the
    /// figures count starts with the process. `cutover status checkout` shows one split alone.
    Status(status::Arguments),

    /// Tell what was decided, by whom, and why.
    ///
    /// Example: cutover history checkout --since 7d
    ///
    /// Decisions of people, of the engine and of edited files, the latest at the bottom. They
    /// survive restarts; the last 10,000 are kept. With `-o json` the latest comes first, each with
    /// every criterion as it stood.
    History(history::Arguments),

    /// Take a backup of what survives a restart, or put one in place.
    ///
    /// Example: cutover state export > state.json
    ///
    /// A backup is one JSON document with every rollout, the emergency and the audit.
    #[command(subcommand)]
    State(state::State),

    /// Send a share of the sessions to the new API.
    ///
    /// Example: cutover set checkout 25% --reason "week 2"
    ///
    /// Takes effect with the next request on every worker. Raising a share only moves sessions to
    /// the new arm, lowering it only moves them back. Refused while a rollback is latched (see
    /// `cutover resume`), and for a share that the file fixes unless --override is given.
    Set(operate::Set),

    /// Take a split to a stage of its plan, whatever is proven.
    ///
    /// Example: cutover stage checkout 2 --reason "the first stage said nothing"
    ///
    /// The stage begins anew: what leaves it must be proven in it. Ends a pause and an operator's
    /// share. Refused while a rollback is latched (see `cutover resume`). With --wait it returns once
    /// the split has come to rest, and the exit code says where.
    Stage(operate::Stage),

    /// Take the next step of a split's plan now, whatever is proven.
    ///
    /// Example: cutover promote checkout --wait --timeout 30m
    ///
    /// As `cutover stage` with the stage that follows. With --wait it returns once that stage is left
    /// or the plan completed (exit code 0), the split was rolled back (4), or it stands still until
    /// somebody acts (5).
    Promote(operate::GoOn),

    /// Raise the share of a split no more until somebody resumes.
    ///
    /// Example: cutover pause checkout --reason "the database is being moved"
    ///
    /// The share stays where it is, and is still rolled back at the first sign of harm. Ends with
    /// `cutover resume`, `cutover stage` or `cutover promote`.
    Pause(operate::Pause),

    /// Approve that a split leaves its stage.
    ///
    /// Example: cutover approve checkout --reason "agreed with support"
    ///
    /// For stages with `approval: true`, and for a first step of more than 10%. It does not wait for
    /// the evidence, and the evidence is waited for all the same: to go on without it use
    /// `cutover promote`.
    Approve(operate::GoOn),

    /// Send everything of a split back to legacy, now.
    ///
    /// Example: cutover rollback checkout --reason "carts are empty"
    ///
    /// The share falls to 0, or to that of the stage before with `--to previous` and where the split's
    /// `rollback_to` says so, and is latched there: neither the file nor a plan raises it again until
    /// `cutover resume` or a new `rollout.id`. Requests in flight go on where they are, but answers of
    /// the new API that still stream after the split's `stream_grace` are closed.
    Rollback(operate::Rollback),

    /// End a rollback's latch, a pause or a hold, and judge afresh.
    ///
    /// Example: cutover resume checkout --reason "fixed in 2.4.1"
    ///
    /// After a rollback the split returns to the share it had before, and what was measured until now
    /// no longer counts against it. Within a plan it also ends an operator's share. The interrupted
    /// stage is proven afresh; `--stage` goes on at a lower one.
    Resume(operate::Resume),

    /// Tell the value of a signal that is `pushed`.
    ///
    /// Example: cutover signal checkout complaints 3 --legacy 2
    ///
    /// It is judged with what is counted from now on, and is fresh as long as the file says. It is no
    /// decision: the revision stays, and the history does not tell of it.
    Signal(operate::Signal),

    /// Send everything to legacy, whatever else says otherwise.
    ///
    /// Example: cutover emergency --reason "orders are lost"
    ///
    /// Covers all splits unless one is named, also pinned keys and pin tokens, survives restarts,
    /// and ends only by `cutover emergency --clear`. Declaring it needs a reason.
    Emergency(operate::Emergency),

    /// Deny a client address or network, now; or tell what is denied.
    ///
    /// Example: cutover deny 192.0.2.0/24 --for 1h --reason "a flood of logins"
    ///
    /// Whoever comes from there is answered 403 from the next request on, on connections that are
    /// open already as well, whatever the file's lists allow. It survives restarts, and ends with the
    /// time given or by `cutover deny --remove NETWORK`. Without a network it lists what is denied;
    /// what the file denies is not in the list.
    Deny(deny::Arguments),

    /// Read the configuration file again, now.
    ///
    /// Example: cutover reload
    ///
    /// The file is watched, so this is for mounts that report no changes, and for scripts that want
    /// to know whether the file was accepted. A file with problems changes nothing: they are
    /// listed, and the exit code is 3.
    Reload(operate::Reload),

    /// Replace the running process by what lies in its program's place, without losing a request.
    ///
    /// Example: install cutover-2.5 /usr/local/bin/cutover && cutover upgrade
    ///
    /// The running process starts its program's file anew, gives it its listening sockets and the
    /// state, and leaves when its connections have ended. Returns when the new process serves. If it
    /// does not come to that, the old one goes on as if nothing had happened; the exit code is 5,
    /// and the reason is told. SIGUSR2 does the same.
    Upgrade(operate::Upgrade),

    /// Tell to which arm a session goes, and why.
    ///
    /// Example: cutover explain --split checkout --key 8f14e45f
    ///
    /// Asks a running instance, or with --config a file alone: then the share is the file's, and no
    /// emergency or rollback is known. Anyone can reproduce the bucket with a stock xxHash library.
    Explain(explain::Explain),

    /// Print a signed token that fixes the arm of whoever carries it.
    ///
    /// Example: cutover pin --config cutover.yaml --split checkout --arm new --for 24h
    ///
    /// Requests carry it in the header `Cutover-Pin` or the cookie `cutover_pin`. It holds at any
    /// share and after a rollback, but not under an emergency; such requests are no evidence. It
    /// cannot be revoked except by changing the split's secret, so keep its life short.
    Pin(offline::Pin),

    /// Try both arms: one GET to every endpoint of each split.
    ///
    /// Example: cutover test --config cutover.yaml --path /api/health
    ///
    /// Connects as the proxy would. An endpoint fails that cannot be reached, does not answer in
    /// time or answers 5xx, and one of the new arm also that answers 4xx where legacy has an
    /// answer. The exit code is 1 if any fails.
    Test(smoke::Smoke),

    /// Record what a split is judged by, for `cutover judge`.
    ///
    /// Example: cutover record checkout --for 5m --output checkout.json
    ///
    /// Waits until the time is over, or until Ctrl-C, and writes what was recorded: what the judge
    /// knew at the beginning, every window of counts after that, and what it found in them. It holds
    /// counts only, neither keys nor addresses, and changes nothing.
    Record(record::Record),

    /// Judge recorded traffic again: what would it have done?
    ///
    /// Example: cutover judge recording.json
    ///
    /// Reads windows of counts, recorded from a rollout or made up, and judges them with the code
    /// that runs live: whether and why it would have rolled back, when it could have advanced, and
    /// what is lacking. With `-o json` it prints the evidence after each window for which the file
    /// asks, and the results of single function calls. For a recording of `cutover record` it says
    /// whether the evidence is what it was live, and the exit code is 1 if it is not.
    Judge(judge::Judge),

    /// Print the JSON Schema of the configuration file.
    ///
    /// Example: cutover schema > cutover.schema.json
    ///
    /// Editors that know it complete and check the file while it is written.
    Schema,

    /// Print a completion script for a shell.
    ///
    /// Example: source <(cutover completions bash)
    Completions(offline::Completions),
}

/// Reads the command line, does what it says and returns what the shell is told.
pub fn main() -> ExitCode {
    let words = Cli::command().try_get_matches().unwrap_or_else(|error| {
        last_words::say(&error.to_string());
        error.exit()
    });
    match obey(&words, Ink::for_stdout()) {
        Ok(answer) => {
            // A reader that went away (`cutover status | head -1`) has seen all it wanted.
            let _ = std::io::stdout().write_all(answer.text.as_bytes());
            answer.exit.into()
        }
        Err(failure) => {
            last_words::say(&failure.message);
            // If stderr is closed, the exit code still tells.
            // In one write, so that processes which share a log do not tear each other's lines.
            let said = format!("cutover: {failure}\n");
            let _ = std::io::stderr().write_all(said.as_bytes());
            failure.exit.into()
        }
    }
}

/// Does what the command line says. A script that asked for JSON reads it whatever the exit code.
fn obey(words: &ArgMatches, ink: Ink) -> Result<Answer, Failure> {
    let cli = Cli::from_arg_matches(words).unwrap_or_else(|error| error.exit());
    match (cli.run(ink), Format::wanted(words)) {
        (Err(failure), Format::Json) => Ok(failure.json()),
        (answer, _) => answer,
    }
}

impl Cli {
    fn run(self, ink: Ink) -> Result<Answer, Failure> {
        match self.command {
            Command::Serve(serve) => serve.run(),
            Command::Demo(demo) => demo.run(ink),
            Command::Check(check) => check.run(),
            Command::Status(status) => status.run(ink),
            Command::History(history) => history.run(ink),
            Command::State(state) => state.run(),
            Command::Set(set) => set.run(),
            Command::Rollback(rollback) => rollback.run(),
            Command::Stage(stage) => stage.run(),
            Command::Promote(promote) => promote.run("promote"),
            Command::Pause(pause) => pause.run(),
            Command::Approve(approve) => approve.run("approve"),
            Command::Resume(resume) => resume.run(),
            Command::Signal(signal) => signal.run(),
            Command::Emergency(emergency) => emergency.run(),
            Command::Deny(deny) => deny.run(ink),
            Command::Reload(reload) => reload.run(),
            Command::Upgrade(upgrade) => upgrade.run(),
            Command::Explain(explain) => explain.run(),
            Command::Pin(pin) => pin.run(),
            Command::Test(smoke) => smoke.run(ink),
            Command::Record(record) => record.run(),
            Command::Judge(judge) => judge.run(ink),
            Command::Schema => Ok(offline::schema()),
            Command::Completions(completions) => Ok(completions.run()),
        }
    }
}

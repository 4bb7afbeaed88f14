//! The command line against a real admin service with a stand-in for the single writer behind it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;
use clap::CommandFactory;
use serde_json::{Value, json};

use crate::admin::{AdminState, Readiness, service};
use crate::config::model::{Role, Token};
use crate::control::command::{Change, Command as Asked, Moved, Order, Outcome, Proviso};
use crate::control::denied::Denied;
use crate::control::history::HistoryQuery;
use crate::control::protocol::{
    ConfigStatus, ControlHandle, Message, Refused, Status, no_such_split,
};
use crate::control::recorder::Export;
use crate::handover::upgrade::Upgrades;

use super::*;
use crate::policy::plan::Retreat;

mod offline;

/// A running instance, as far as the CLI can tell.
struct Instance {
    address: SocketAddr,
    orders: Receiver<Order>,
}

impl Instance {
    fn start() -> Self {
        let (announce, address) = channel();
        let (seen, orders) = channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let (control, mut messages) = ControlHandle::channel();
                let state = AdminState {
                    control,
                    tokens: Arc::new([Token {
                        name: "alice".into(),
                        role: Role::Operate,
                        secret: "secret".into(),
                    }]),
                    readiness: Readiness::starting(),
                    upgrades: Upgrades::channel().0,
                };
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                announce.send(listener.local_addr().unwrap()).unwrap();
                tokio::spawn(async move { axum::serve(listener, service(state)).await });
                while let Some(message) = messages.recv().await {
                    answer(message, &seen);
                }
            });
        });
        Self {
            address: address.recv().unwrap(),
            orders,
        }
    }

    /// Runs `cutover` with these words, as an operator with the right token.
    fn run(&self, words: &[&str]) -> Result<Answer, Failure> {
        let admin = format!("http://{}", self.address);
        let mut all = vec!["cutover"];
        all.extend(words);
        all.extend(["--admin", &admin, "--token", "secret"]);
        obey(
            &Cli::command().try_get_matches_from(all).unwrap(),
            Ink::Plain,
        )
    }
}

fn answer(message: Message, seen: &std::sync::mpsc::Sender<Order>) {
    match message {
        Message::Status { reply } => drop(reply.send(status())),
        Message::Split { split, reply } => {
            let message = no_such_split(&split, ["a"].into_iter());
            drop(reply.send(Err(Refused::NoSuchSplit(message))));
        }
        Message::Denied { reply } => drop(reply.send(Denied { denied: Vec::new() })),
        Message::Metrics { reply } => drop(reply.send(String::new())),
        Message::History { query, reply } => drop(reply.send(Ok(history(&query)))),
        Message::Recording { reply, .. } => {
            let pieces = vec![
                Bytes::from_static(b"{\"traces\":"),
                Bytes::from_static(b"[]}"),
            ];
            drop(reply.send(Ok(Export { pieces })));
        }
        Message::State { reply } => drop(reply.send(Ok(r#"{"format": 1}"#.into()))),
        Message::Explain { reply, .. } => {
            drop(reply.send(Err(Refused::NoSuchSplit("no splits".into()))));
        }
        Message::Command { order, reply } => {
            let split = match &order.command {
                Asked::Change { split, .. } => split.as_str(),
                _ => "",
            };
            let answer = match (&order.command, split) {
                (Asked::Reload, _) => Err(Refused::InvalidConfig("line 1: no".into())),
                (_, "unknown") => Err(Refused::NoSuchSplit(
                    "no split `unknown`; the splits are: a".into(),
                )),
                (_, "unwritable") => Err(Refused::StoreFailed("the disk is full".into())),
                (_, "latched") => Err(Refused::Precondition("nothing is latched".into())),
                (_, "moved") => Err(Refused::RevisionMismatch("alice was faster".into())),
                _ => Ok(Outcome {
                    sentence: "It is done.\u{7}".into(),
                    revision: 8,
                    splits: vec![Moved {
                        name: split.to_owned(),
                        from: "0%".into(),
                        to: "10%".into(),
                        stage: Some(2),
                    }],
                    dry_run: order.proviso.dry_run,
                }),
            };
            seen.send(order).unwrap();
            reply.send(answer).unwrap();
        }
        Message::Release { .. } | Message::Resume { .. } | Message::Obey { .. } => {
            unreachable!("the admin API does not ask for this")
        }
    }
}

/// What was asked for, as the sentence of a decision with control characters in it.
fn history(query: &HistoryQuery) -> String {
    let sentence = format!("{query:?}\u{1b}[2J\u{9b}2J");
    json!({"decisions": [
        {"at": "2026-11-20T14:00:01.000Z", "split": "a", "actor": "engine", "action": "rollback",
         "reason": "error_rate > 5%", "from": 2500, "to": 0, "conditions": [], "sentence": "Later."},
        {"at": "2026-11-20T14:00:00.000Z", "split": "a", "actor": "alice\u{7f}", "action": "set",
         "reason": "", "from": 0, "to": 2500, "conditions": [], "sentence": sentence},
    ]})
    .to_string()
}

fn status() -> Status {
    Status {
        version: "9.9.9".into(),
        process: 7,
        generation: 1,
        revision: 0,
        started_at: "2026-11-20T00:00:00Z".into(),
        config: ConfigStatus {
            path: "cutover.yaml".into(),
            loaded_at: "2026-11-20T00:00:00Z".into(),
            last_reload_successful: true,
            problems: Vec::new(),
        },
        emergency: false,
        store_healthy: true,
        splits: Vec::new(),
        backends: Vec::new(),
    }
}

fn parse_error(words: &[&str]) -> clap::Error {
    Cli::try_parse_from(words).expect_err("these words are refused")
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_teaches_with_an_example() {
    for command in Cli::command().get_subcommands() {
        let name = command.get_name();
        let about = command.get_about().map(ToString::to_string);
        assert!(about.is_some_and(|text| !text.contains('\n')), "{name}");
        let long = command.get_long_about().map(ToString::to_string);
        let example = format!("cutover {name}");
        assert!(long.is_some_and(|text| text.contains(&example)), "{name}");
    }
}

#[test]
fn the_help_lists_every_exit_code() {
    let help = Cli::command().render_long_help().to_string();
    for exit in Exit::ALL {
        assert!(help.contains(&format!("\n  {}  ", exit.code())), "{help}");
    }
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    for words in [
        &["cutover"] as &[&str],
        &["cutover", "stauts"],
        &["cutover", "set", "checkout"],
        &["cutover", "set", "checkout", "25"],
        &["cutover", "set", "checkout", "101%"],
        &["cutover", "emergency"],
        &["cutover", "rollback", "a", "--reason", "two\nlines"],
        &["cutover", "status", "--admin", "https://localhost"],
        &["cutover", "status", "-o", "xml"],
        &["cutover", "stage", "checkout"],
        &["cutover", "rollback", "checkout", "--to", "50%"],
        &["cutover", "promote", "checkout", "--wait", "--dry-run"],
        &["cutover", "pause", "checkout", "--wait"],
        &["cutover", "promote", "checkout", "--expect", "now"],
        &["cutover", "signal", "checkout", "lag", "NaN"],
    ] {
        let error = parse_error(words);
        assert_eq!(
            error.exit_code(),
            i32::from(Exit::Usage.code()),
            "{words:?}"
        );
    }
    let help = parse_error(&["cutover", "help", "set"]);
    assert_eq!(help.exit_code(), i32::from(Exit::Success.code()));
    let share = parse_error(&["cutover", "set", "checkout", "25"]).to_string();
    assert!(share.contains("`12.5%`"), "the remedy is in: {share}");
}

#[test]
fn the_token_in_the_environment_is_not_shown_by_the_help() {
    let mut command = Cli::command();
    let status = command.find_subcommand_mut("status").unwrap();
    let token = status.get_arguments().find(|arg| arg.get_id() == "token");
    assert!(token.is_some_and(clap::Arg::is_hide_env_values_set));
}

#[test]
fn a_change_sends_what_was_asked_and_prints_the_sentence() {
    let instance = Instance::start();
    let words = [
        "set",
        "check/out",
        "12.5%",
        "--override",
        "--reason",
        "week 2",
    ];
    let answer = instance.run(&words).unwrap();
    let said = "It is done.\u{fffd}\nRevision 8.\n";
    assert_eq!(answer, Answer::success(said));
    let order = instance.orders.recv().unwrap();
    let change = Change::Set {
        share: "12.5%".parse().unwrap(),
        override_file: true,
    };
    let split = "check/out".into();
    assert_eq!(order.command, Asked::Change { split, change });
    assert_eq!(order.proviso, Proviso::default());
    let author = order.author;
    assert_eq!(
        (author.actor.as_str(), author.reason.as_str()),
        ("alice", "week 2")
    );

    for (words, split, clear) in [
        (&["emergency", "--reason", "fire"] as &[&str], None, false),
        (&["emergency", "a", "--reason", "fire"], Some("a"), false),
        (&["emergency", "--clear"], None, true),
    ] {
        instance.run(words).unwrap();
        let order = instance.orders.recv().unwrap();
        let split = split.map(str::to_owned);
        assert_eq!(order.command, Asked::Emergency { split, clear });
    }
}

#[test]
fn each_command_that_moves_a_rollout_asks_for_its_change() {
    let instance = Instance::start();
    for (words, change) in [
        (&["stage", "a", "3"] as &[&str], Change::Stage { number: 3 }),
        (&["promote", "a"], Change::Promote),
        (&["pause", "a"], Change::Pause),
        (&["approve", "a"], Change::Approve),
        (&["resume", "a"], Change::Resume { stage: None }),
        (
            &["resume", "a", "--stage", "2"],
            Change::Resume { stage: Some(2) },
        ),
        (&["rollback", "a"], Change::Rollback { to: None }),
        (
            &["rollback", "a", "--to", "0"],
            Change::Rollback {
                to: Some(Retreat::Zero),
            },
        ),
        (
            &["rollback", "a", "--to", "previous"],
            Change::Rollback {
                to: Some(Retreat::PreviousStage),
            },
        ),
    ] {
        let rehearsal = [words, &["--expect", "7", "--dry-run"]].concat();
        instance.run(&rehearsal).unwrap();
        let order = instance.orders.recv().unwrap();
        let split = "a".into();
        assert_eq!(order.command, Asked::Change { split, change }, "{words:?}");
        let proviso = Proviso {
            expected_revision: Some(7),
            dry_run: true,
        };
        assert_eq!(order.proviso, proviso, "{words:?}");
    }
}

#[test]
fn each_refusal_has_its_exit_code_and_keeps_its_sentence() {
    let instance = Instance::start();
    for (words, exit, sentence) in [
        (
            &["rollback", "unknown"] as &[&str],
            Exit::Usage,
            "the splits are: a",
        ),
        (
            &["rollback", "unwritable"],
            Exit::Failure,
            "the disk is full",
        ),
        (&["resume", "latched"], Exit::Refused, "nothing is latched"),
        (&["promote", "moved"], Exit::Stale, "alice was faster"),
        (&["reload"], Exit::Config, "line 1: no"),
        (
            &["status", "no"],
            Exit::Usage,
            "no split `no`; the splits are: a",
        ),
        (&["emergency", "--reason", " "], Exit::Usage, "reason"),
        (
            &["explain", "--split", "no", "--key", "a"],
            Exit::Usage,
            "no splits",
        ),
    ] {
        let failure = instance.run(words).unwrap_err();
        assert_eq!(failure.exit, exit, "{words:?}: {failure}");
        assert!(failure.message.contains(sentence), "{failure}");
        let answer = instance.run(&[words, &["-o", "json"]].concat()).unwrap();
        assert_eq!(answer.exit, exit, "{words:?}");
        let read: Value = serde_json::from_str(&answer.text).unwrap();
        assert_eq!(read["error"]["exit"], exit.code());
        assert_eq!(read["error"]["message"], failure.message);
    }
}

#[test]
fn a_wrong_token_is_a_failure_and_nobody_there_is_unreachable() {
    let instance = Instance::start();
    let admin = format!("http://{}", instance.address);
    let run = |admin: &str| {
        let words = ["cutover", "status", "--token", "wrong", "--admin", admin];
        Cli::try_parse_from(words)
            .unwrap()
            .run(Ink::Plain)
            .unwrap_err()
    };
    assert_eq!(run(&admin).exit, Exit::Failure);
    for command in [&["status"] as &[&str], &["history"], &["status", "a"]] {
        let connection = ["-o", "json", "--token", "wrong", "--admin", &admin];
        let words = [&["cutover"], command, &connection].concat();
        let matches = Cli::command().try_get_matches_from(words).unwrap();
        let answer = obey(&matches, Ink::Plain).unwrap();
        let read: Value = serde_json::from_str(&answer.text).unwrap();
        assert_eq!(
            (answer.exit, &read["error"]["exit"]),
            (Exit::Failure, &json!(1))
        );
    }

    // Bound, so that nobody else takes the port, and not listening.
    let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    silent
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let address = silent.local_addr().unwrap().as_socket().unwrap();
    let failure = run(&format!("http://{address}"));
    assert_eq!(failure.exit, Exit::Unreachable);
    assert!(failure.message.contains("CUTOVER_ADMIN"), "{failure}");
}

#[test]
fn a_status_is_text_for_people_and_json_for_programs() {
    let instance = Instance::start();
    let text = instance.run(&["status"]).unwrap().text;
    assert!(text.starts_with("cutover 9.9.9, started"), "{text}");
    let json = instance.run(&["status", "-o", "json"]).unwrap().text;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["version"], "9.9.9");
}

#[test]
fn a_history_ends_with_the_latest_and_nothing_in_it_steers_the_terminal() {
    let instance = Instance::start();
    let words = ["history", "a", "--limit", "7", "--since", "90m"];
    let text = instance.run(&words).unwrap().text;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    for part in [
        "alice",
        "set",
        "0% -> 25%",
        r#"split: Some("a")"#,
        "Ago(5400s)",
        "limit: 7",
    ] {
        assert!(lines[1].contains(part), "{part}: {text}");
    }
    assert!(
        lines[2].ends_with("25% -> 0%  Later. Reason: error_rate > 5%"),
        "{text}"
    );
    let json = instance.run(&["history", "-o", "json"]).unwrap().text;
    let read: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(read["decisions"][1]["actor"], "alice\u{7f}");
    for text in [text, json] {
        let steers = |character: char| character.is_control() && character != '\n';
        assert!(!text.contains(steers), "{text:?}");
    }
    for words in [["--limit", "0"], ["--limit", "1001"], ["--since", "soon"]] {
        let words = [&["cutover", "history"][..], &words].concat();
        assert!(Cli::try_parse_from(words).is_err());
    }
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let cli = Cli::try_parse_from(["cutover", "completions", shell]).unwrap();
        let script = cli.run(Ink::Plain).unwrap().text;
        assert!(script.contains("emergency"), "{shell}");
    }
}

//! What a change may say, and whom it is booked to.

use super::*;
use crate::control::command::{Change, Proviso};
use crate::policy::plan::Retreat;
use crate::policy::signal::Reading;

#[tokio::test]
async fn the_author_of_a_change_is_the_token_or_local() {
    let body = json!({"share": "12.5%", "override": true, "reason": "night shift"});
    for (mut service, secret, actor) in [
        (Service::guarded().await, Some("touch"), "alice"),
        (Service::open().await, None, "local"),
    ] {
        let asking = service.post("/api/v1/splits/check%20out/share", &body);
        let answer = asking.bearer(secret).send().await;
        assert_eq!(answer.status, StatusCode::OK);
        let outcome: Value = serde_json::from_str(&answer.text).unwrap();
        let expected = json!({"sentence": "done", "revision": 8, "splits": [], "dry_run": false});
        assert_eq!(outcome, expected);
        let command = Command::Change {
            split: "check out".into(),
            change: Change::Set {
                share: "12.5%".parse().unwrap(),
                override_file: true,
            },
        };
        let author = Author {
            actor: actor.into(),
            reason: "night shift".into(),
        };
        let order = Order {
            command,
            author,
            proviso: Proviso::default(),
        };
        assert_eq!(service.carried_out(), Some(order));
    }
}

#[tokio::test]
async fn every_change_may_name_a_revision_and_be_a_rehearsal() {
    let mut service = Service::open().await;
    let previous = Some(Retreat::PreviousStage);
    let share = Share::from_basis_points(2500).unwrap();
    for (path, body, change) in [
        (
            "share",
            json!({"share": "25%"}),
            Change::Set {
                share,
                override_file: false,
            },
        ),
        ("stage", json!({"stage": 3}), Change::Stage { number: 3 }),
        ("promote", json!({}), Change::Promote),
        ("pause", json!({}), Change::Pause),
        ("approve", json!({}), Change::Approve),
        ("rollback", json!({}), Change::Rollback { to: None }),
        (
            "rollback",
            json!({"to": "0"}),
            Change::Rollback {
                to: Some(Retreat::Zero),
            },
        ),
        (
            "rollback",
            json!({"to": "previous"}),
            Change::Rollback { to: previous },
        ),
        ("resume", json!({}), Change::Resume { stage: None }),
        (
            "resume",
            json!({"stage": 2}),
            Change::Resume { stage: Some(2) },
        ),
    ] {
        let split = "a".to_owned();
        let path = format!("/api/v1/splits/a/{path}");
        asks(&mut service, &path, body, Command::Change { split, change }).await;
    }
    let told = Command::Signal {
        split: "a".into(),
        name: "lag b".into(),
        reading: Reading::of(12.5, Some(-3.0)),
    };
    let values = json!({"value": 12.5, "legacy": -3});
    asks(
        &mut service,
        "/api/v1/splits/a/signals/lag%20b",
        values,
        told,
    )
    .await;
    let everywhere = Command::Emergency {
        split: None,
        clear: true,
    };
    let clear = json!({"clear": true});
    asks(&mut service, "/api/v1/emergency", clear, everywhere).await;
    asks(&mut service, "/api/v1/reload", json!({}), Command::Reload).await;
}

/// With and without a condition, this body asks for this command.
async fn asks(service: &mut Service, path: &str, body: Value, command: Command) {
    for (expected_revision, dry_run) in [(None, false), (Some(7), true)] {
        let mut body = body.clone();
        if let Some(revision) = expected_revision {
            body["expected_revision"] = json!(revision);
            body["dry_run"] = json!(dry_run);
        }
        let answer = service.post(path, &body).send().await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
        let outcome: Outcome = serde_json::from_str(&answer.text).unwrap();
        assert_eq!((outcome.revision, outcome.dry_run), (8, dry_run), "{path}");
        let order = service.carried_out().unwrap();
        assert_eq!(order.command, command, "{path}");
        let proviso = Proviso {
            expected_revision,
            dry_run,
        };
        assert_eq!(order.proviso, proviso, "{path}");
    }
}

#[tokio::test]
async fn an_emergency_is_declared_with_a_reason_and_cleared_with_or_without() {
    let mut service = Service::open().await;
    for (body, split, clear) in [
        (
            json!({"split": null, "clear": false, "reason": "fire"}),
            None,
            false,
        ),
        (json!({"split": "a", "reason": "fire"}), Some("a"), false),
        (json!({"clear": true}), None, true),
    ] {
        let answer = service.post("/api/v1/emergency", &body).send().await;
        assert_eq!(answer.status, StatusCode::OK, "{body}");
        let expected = Command::Emergency {
            split: split.map(str::to_owned),
            clear,
        };
        assert_eq!(
            service.carried_out().map(|order| order.command),
            Some(expected)
        );
    }
}

//! What a person says about a share holds, for as long as was said.

use std::time::Duration;

use cutover::clock::Clock;
use cutover::config::model::Secret;
use cutover::identity::pin;
use cutover::policy::arm::Arm;
use cutover::policy::rollout::Phase;
use http::Request;
use http_body_util::Full;

use crate::harness::migration;
use crate::harness::proxy::Proxy;
use crate::harness::upstream::Upstream;
use crate::rollback::{becomes, command, is, key_of, served_by, start};

#[tokio::test]
async fn only_a_new_rollout_id_clears_the_latch() {
    let (legacy, new) = (Upstream::ok("legacy"), Upstream::ok("new"));
    let other = Upstream::ok("other");
    let proxy = start(&legacy, &new, "").await;
    command(&proxy, &["rollback", "api"]).await;
    for (action, count) in [("rollback", 1.0), ("resume", 0.0)] {
        let labels = [("split", "api"), ("action", action)];
        proxy
            .counts(count, "cutover_decisions_total", &labels)
            .await;
    }
    let edit = |to: &Upstream, settings: &str| {
        let configuration = migration(legacy.address(), to.address(), settings);
        proxy.site().configure(&configuration);
    };

    edit(&new, "share: 60%");
    becomes(&proxy, "another share is read", |split| {
        split.file_share.as_deref() == Some("60%")
    })
    .await;
    is(&proxy, Phase::RolledBack, "0%").await;
    edit(&other, "share: 60%, rollback: ['error_rate > 7%']");
    becomes(&proxy, "other criteria are read", |split| {
        let mut conditions = split.conditions.iter();
        conditions.any(|condition| condition.criterion == "error_rate > 7%")
    })
    .await;
    is(&proxy, Phase::RolledBack, "0%").await;
    let refused = proxy.cutover(&["set", "api", "70%", "--override"]).await;
    assert_eq!(refused.status.code(), Some(5));
    is(&proxy, Phase::RolledBack, "0%").await;

    edit(&other, "share: 60%, rollout: {id: second}");
    becomes(&proxy, "the second rollout begins", |split| {
        split.phase == Phase::Progressing && split.share == "60%"
    })
    .await;
    let key = key_of(Arm::New);
    assert_eq!(served_by(&proxy, &key).await.as_deref(), Some("other"));
    let decision = proxy.split("api").await.last_decision;
    let decision = decision.expect("it is one");
    assert_eq!(decision.actor, "file");
    assert!(decision.sentence.contains("rollout second"), "{decision:?}");
}

#[tokio::test]
async fn an_emergency_beats_every_pin_and_ends_only_by_hand() {
    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    let (legacy, new) = (Upstream::ok("legacy"), Upstream::ok("new"));
    let pins = format!("pins: {{keys: {{vip: new}}}}, pin_secret: {SECRET}");
    let proxy = start(&legacy, &new, &pins).await;
    let token = pin::issue(
        &Secret(SECRET.as_bytes().to_vec()),
        "api",
        Arm::New,
        Duration::from_secs(3600),
        Clock::start().now().seconds(),
    );
    let all_go_to = async |proxy: &Proxy, arm: &str, when: &str| {
        let bearer = Request::get("/").header("cutover-pin", &token);
        let bearer = bearer.body(Full::default()).expect("a valid request");
        let bearer = proxy.client().await.send(bearer).await;
        assert_eq!(bearer.served_by(), Some(arm), "the token, {when}");
        for key in ["vip", &key_of(Arm::New)] {
            let server = served_by(proxy, key).await;
            assert_eq!(server.as_deref(), Some(arm), "{key}, {when}");
        }
    };
    all_go_to(&proxy, "new", "before").await;
    let nobody_says_why = proxy.cutover(&["emergency"]).await;
    assert_eq!(nobody_says_why.status.code(), Some(2));
    command(&proxy, &["emergency", "--reason", "orders are lost"]).await;
    all_go_to(&proxy, "legacy", "in an emergency").await;

    let proxy = proxy.kill().launch(&[]).await;
    assert!(proxy.status().await.emergency);
    all_go_to(&proxy, "legacy", "after a restart").await;
    command(&proxy, &["set", "api", "100%", "--override"]).await;
    all_go_to(&proxy, "legacy", "after a set").await;
    let settings = format!("share: 60%, rollout: {{id: second}}, {pins}");
    let configuration = migration(legacy.address(), new.address(), &settings);
    proxy.site().configure(&configuration);
    becomes(&proxy, "the second rollout is read", |split| {
        split.rollout_id == "second"
    })
    .await;
    all_go_to(&proxy, "legacy", "in a new rollout").await;
    is(&proxy, Phase::Progressing, "0%").await;

    command(&proxy, &["emergency", "--clear"]).await;
    all_go_to(&proxy, "new", "when it is cleared").await;
    is(&proxy, Phase::Progressing, "60%").await;
}

#[tokio::test]
async fn an_override_is_asked_for_shows_survives_and_ends_with_the_file() {
    let (legacy, new) = (Upstream::ok("legacy"), Upstream::ok("new"));
    let proxy = start(&legacy, &new, "").await;
    let refused = proxy.cutover(&["set", "api", "30%"]).await;
    assert_eq!(refused.status.code(), Some(5));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        said.contains("50%") && said.contains("--override"),
        "{said}"
    );
    is(&proxy, Phase::Progressing, "50%").await;

    command(&proxy, &["set", "api", "30%", "--override"]).await;
    let proxy = proxy.kill().launch(&[]).await;
    let split = proxy.split("api").await;
    assert_eq!(split.share, "30%");
    assert_eq!(split.override_share.as_deref(), Some("30%"));
    assert_eq!(split.file_share.as_deref(), Some("50%"));

    let edit = |settings: &str| {
        let configuration = migration(legacy.address(), new.address(), settings);
        proxy.site().configure(&configuration);
    };
    edit("share: 50%, rollback: ['error_rate > 7%']");
    becomes(&proxy, "another edit is read", |split| {
        let mut conditions = split.conditions.iter();
        conditions.any(|condition| condition.criterion == "error_rate > 7%")
    })
    .await;
    is(&proxy, Phase::Progressing, "30%").await;
    edit("share: 40%");
    becomes(&proxy, "the file's share is in force", |split| {
        split.share == "40%" && split.override_share.is_none()
    })
    .await;
}

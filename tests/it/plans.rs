//! A plan moves by itself, with the real program and real traffic: forward without anybody being
//! thrown back, over a kill, over an edit, and not at all while its steps cannot be kept.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cutover::control::history::History;
use cutover::control::protocol::SplitStatus;
use cutover::policy::rollout::Phase;
use tokio::task::JoinHandle;

use crate::harness::client::Client;
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::Upstream;
use crate::harness::{eventually, migration};
use crate::rollback::becomes;

/// Nothing is to be proven but a second in good health with a few requests.
const HASTY: &str = "advance: off, rollout: {observe: 1s, min_requests: 20}";

/// The same users again and again, so that each can tell who answered before.
struct Users {
    is_over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    callers: Vec<JoinHandle<()>>,
}

impl Users {
    /// Two hundred users with some four hundred requests per second between them. Each is answered
    /// well, and once by `new`, always by `new`.
    fn begin(proxy: &Proxy) -> Self {
        Self::of(proxy, true)
    }

    /// The same, who may also be taken back to legacy.
    fn who_may_be_taken_back(proxy: &Proxy) -> Self {
        Self::of(proxy, false)
    }

    fn of(proxy: &Proxy, only_forward: bool) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let callers = (0..4).map(|caller| {
            let (is_over, answered) = (Arc::clone(&is_over), Arc::clone(&answered));
            let address = proxy.address();
            tokio::spawn(async move {
                let mut client = Client::http1(address).await;
                let mut pace = tokio::time::interval(Duration::from_millis(10));
                let mut is_on_new = [false; 50];
                for user in (0..50).cycle() {
                    pace.tick().await;
                    if is_over.load(Ordering::SeqCst) {
                        return;
                    }
                    let answer = client.get("/", &format!("user-{caller}-{user}")).await;
                    assert_eq!(answer.status, 200);
                    let is_new = answer.served_by() == Some("new");
                    let was_new = std::mem::replace(&mut is_on_new[user], is_new);
                    assert!(is_new || !was_new || !only_forward, "user {user} went back");
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            })
        });
        Self {
            callers: callers.collect(),
            is_over,
            answered,
        }
    }

    /// Waits for this many more answers.
    async fn go_on(&self, answers: usize) {
        let goal = self.answered.load(Ordering::SeqCst) + answers;
        eventually("the users are answered", async || {
            self.answered.load(Ordering::SeqCst) >= goal
        })
        .await;
    }

    async fn end(self) {
        self.is_over.store(true, Ordering::SeqCst);
        for caller in self.callers {
            caller
                .await
                .expect("each request was answered as it should be");
        }
    }
}

fn plan(legacy: &Upstream, new: &Upstream, settings: &str) -> String {
    migration(legacy.address(), new.address(), settings)
}

fn healthy_seconds(split: &SplitStatus) -> f64 {
    let stage = split.outlook.stage.as_ref().expect("it has a plan");
    stage.healthy_seconds
}

/// Action, share before and share after of each decision, the oldest first.
async fn decisions(proxy: &Proxy) -> Vec<String> {
    let history = proxy.ask("/api/v1/history?limit=1000").await;
    let history: History = serde_json::from_slice(&history.body).expect("a history");
    let decisions = history.decisions.into_iter().rev();
    decisions
        .map(|it| format!("{} {} -> {}", it.action, it.from, it.to))
        .collect()
}

#[tokio::test]
async fn a_plan_moves_everybody_by_itself_and_nobody_notices() {
    let (legacy, new) = (Upstream::ok("legacy"), Upstream::ok("new"));
    let settings = format!("stages: [0%, 10%, 50%, 100%], {HASTY}");
    let proxy = Site::new().start(&plan(&legacy, &new, &settings)).await;
    let users = Users::begin(&proxy);
    becomes(&proxy, "it is completed", |split| {
        split.phase == Phase::Completed
    })
    .await;
    users.go_on(200).await;
    users.end().await;
    assert_eq!(
        decisions(&proxy).await,
        [
            "advance 0% -> 10%",
            "advance 10% -> 50%",
            "advance 50% -> 100%",
            "complete 100% -> 100%",
        ]
    );
    let (split, served) = (proxy.split("api").await, new.received().len());
    assert_eq!(split.share, "100%");
    assert!(served >= 200, "{served} requests of everybody");
}

#[tokio::test]
async fn a_kill_in_the_middle_of_a_stage_costs_it_five_seconds_at_most() {
    let (legacy, new) = (Upstream::ok("legacy"), Upstream::ok("new"));
    let stages = "stages: [{share: 0%, observe: 1s}, {share: 10%, observe: 1h}, 100%]";
    let settings = format!("{stages}, {HASTY}");
    let proxy = Site::new().start(&plan(&legacy, &new, &settings)).await;
    let users = Users::begin(&proxy);
    becomes(&proxy, "a stage has ripened", |split| {
        split.share == "10%" && healthy_seconds(split) > 7.0
    })
    .await;
    users.end().await;
    let before = healthy_seconds(&proxy.split("api").await);

    let proxy = proxy.kill().launch(&[]).await;
    let split = proxy.split("api").await;
    assert_eq!((split.phase, &*split.share), (Phase::Progressing, "10%"));
    let after = healthy_seconds(&split);
    // The interval of savings, and what one takes on a busy machine.
    assert!(after > before - 6.5, "{before} s became {after} s");
    assert!(after < before + 6.5, "{before} s became {after} s");
    let users = Users::begin(&proxy);
    becomes(&proxy, "it ripens on", |split| {
        healthy_seconds(split) > after + 1.0
    })
    .await;
    users.end().await;
    assert_eq!(decisions(&proxy).await, ["advance 0% -> 10%"]);
}

#[tokio::test]
async fn a_store_that_cannot_be_written_stops_promotion_and_nothing_else() {
    let (legacy, new) = (Upstream::ok("legacy"), Upstream::ok("new"));
    let settings = format!("stages: [{{share: 0%, observe: 1s}}, 10%, 100%], {HASTY}");
    let site = Site::new().surviving_full_disks();
    let proxy = site.start(&plan(&legacy, &new, &settings)).await;
    let users = Users::who_may_be_taken_back(&proxy);
    becomes(&proxy, "the plan has begun", |split| split.share == "10%").await;
    let space = |limit: &str| {
        let limit = format!("--fsize={limit}:");
        let pid = format!("--pid={}", proxy.process());
        let status = Command::new("prlimit").args([&limit, &pid]).status();
        assert!(status.expect("util-linux is installed").success());
    };
    space("0");
    eventually("the store is said to fail", async || {
        !proxy.status().await.store_healthy
    })
    .await;
    let told = proxy.cutover(&["status"]).await;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("STATE STORE FAILING"), "{told}");
    becomes(&proxy, "all is proven", |split| {
        split.outlook.lacking.is_empty()
    })
    .await;
    users.go_on(400).await;
    assert_eq!(proxy.split("api").await.share, "10%", "but not kept");

    drop(new);
    becomes(&proxy, "it is rolled back", |split| {
        (split.phase, &*split.share) == (Phase::RolledBack, "0%")
    })
    .await;
    users.go_on(200).await;
    users.end().await;

    space("unlimited");
    eventually("the store works again", async || {
        proxy.status().await.store_healthy
    })
    .await;
    let proxy = proxy.kill().launch(&[]).await;
    let split = proxy.split("api").await;
    assert_eq!((split.phase, &*split.share), (Phase::RolledBack, "0%"));
}

#[tokio::test]
async fn an_edited_plan_goes_on_where_it_is_and_another_rollout_begins_anew() {
    let (legacy, new) = (Upstream::ok("legacy"), Upstream::ok("new"));
    let first = "stages: [{share: 0%, observe: 1s}, {share: 10%, observe: 1h}, 100%]";
    let proxy = Site::new()
        .start(&plan(&legacy, &new, &format!("{first}, {HASTY}")))
        .await;
    let users = Users::who_may_be_taken_back(&proxy);
    becomes(&proxy, "the plan has begun", |split| split.share == "10%").await;
    let edited = "stages: [0%, 5%, 60%]";
    proxy
        .reconfigure(&plan(&legacy, &new, &format!("{edited}, {HASTY}")))
        .await;
    becomes(&proxy, "it is completed", |split| {
        (split.phase, &*split.share) == (Phase::Completed, "60%")
    })
    .await;

    let renamed = "stages: [0%, 60%], advance: off, rollout: {id: again, observe: 1s}";
    let text = proxy.site().text(&plan(&legacy, &new, renamed));
    proxy.rewrite("cutover.yaml", text);
    proxy.signal("HUP");
    becomes(&proxy, "it is begun anew", |split| {
        (&*split.rollout_id, &*split.share) == ("again", "0%")
    })
    .await;
    becomes(&proxy, "a large first step waits for a person", |split| {
        split.outlook.lacking == ["Somebody has to approve 60%."]
    })
    .await;
    users.end().await;
    assert_eq!(
        decisions(&proxy).await,
        [
            "advance 0% -> 10%",
            "configured 10% -> 5%",
            "advance 5% -> 60%",
            "complete 60% -> 60%",
            "configured 60% -> 0%",
        ]
    );
}

//! What was judged live is judged again, and comes out the same.
//!
//! Vectors show that the statistics are right, and nothing of what they are fed with. So traffic
//! with all that makes counting hard is recorded while it flows: sessions of legacy that fail as a
//! whole, answers of `new` that never come, errors that come at once. If the replay of the counts
//! leads to what `status` said at those moments, the live judge was given these counts and no others.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cutover::control::protocol::SplitStatus;
use cutover::policy::judge::replay::{Ending, File};
use cutover::policy::rollout::{Condition, Phase};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::harness::client::Client;
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Script, Upstream};
use crate::harness::{LOOK_AGAIN, PATIENCE, ended, eventually, migration};

/// What is believed of bunching before legacy has shown it.
const PRIOR_OVERDISPERSION: f64 = 1.5;

const CRITERIA: &str = "rollback: ['error_rate > 30%', 'p95 > 150ms', \
                        'error_rate worse than legacy by 100%', \
                        'p50 worse than legacy by 300%'], fallback: {enabled: false}";

/// A split at half of the keys between two arms that have their troubles, and its callers.
struct Scene {
    proxy: Proxy,
    is_bad: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
    callers: Vec<JoinHandle<usize>>,
    _arms: [Upstream; 2],
}

impl Scene {
    async fn begin() -> Self {
        // One session in nine fails whenever it asks.
        let legacy = Upstream::start("legacy", |request| {
            let user = request.field("x-user").unwrap_or_default();
            let number = user.trim_start_matches("user-").parse().unwrap_or(0_u64);
            Script::status(if number.is_multiple_of(9) { 500 } else { 200 })
        });
        let (count, is_bad) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&is_bad);
        let new = Upstream::start("new", move |_| {
            let number = count.fetch_add(1, Ordering::SeqCst);
            let fails_in = if told.load(Ordering::SeqCst) { 2 } else { 40 };
            if number % 60 == 7 {
                Script::hang()
            } else if number % fails_in == 1 {
                Script::status(500)
            } else {
                Script::status(200)
            }
        });
        let settings = format!("share: 50%, {CRITERIA}");
        let configuration = migration(legacy.address(), new.address(), &settings).replace(
            "new: {endpoints",
            "new: {timeouts: {first_byte: 400ms}, endpoints",
        );
        let proxy = Site::new().start(&configuration).await;
        let is_over = Arc::new(AtomicBool::new(false));
        let callers = (0..8).map(|caller| {
            let is_over = Arc::clone(&is_over);
            tokio::spawn(sessions(proxy.address(), caller, is_over))
        });
        Self {
            callers: callers.collect(),
            proxy,
            is_bad,
            is_over,
            _arms: [legacy, new],
        }
    }

    async fn split(&self) -> SplitStatus {
        self.proxy.split("api").await
    }

    /// Every caller was answered every time.
    async fn end(self) -> Proxy {
        self.is_over.store(true, Ordering::SeqCst);
        for caller in self.callers {
            assert!(caller.await.expect("every request is answered") > 0);
        }
        self.proxy
    }
}

/// One session after the other, of ten requests each.
async fn sessions(address: SocketAddr, caller: u64, is_over: Arc<AtomicBool>) -> usize {
    let mut client = Client::http1(address).await;
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let mut answered = 0;
    for session in 0.. {
        for _ in 0..10 {
            pace.tick().await;
            if is_over.load(Ordering::SeqCst) {
                return answered;
            }
            let key = format!("user-{}", session * 8 + caller);
            client.get("/", &key).await;
            answered += 1;
        }
    }
    answered
}

/// Windows recorded so far.
fn recorded(split: &SplitStatus) -> usize {
    let recording = split.recording.as_ref();
    recording.map_or(0, |recording| recording.windows as usize)
}

fn condition<'a>(split: &'a SplitStatus, criterion: &str) -> &'a Condition {
    let mut conditions = split.conditions.iter();
    let found = conditions.find(|condition| condition.criterion == criterion);
    found.expect("it is configured")
}

fn judged(document: &Value) -> Ending {
    let outcome = File::parse(&document.to_string()).and_then(|file| file.judge());
    outcome.expect("a recording").traces.remove(0)
}

/// The recording up to what `split` knew, judged again.
fn judged_until(document: &Value, split: &SplitStatus) -> Ending {
    let windows = recorded(split);
    let mut document = document.clone();
    let trace = &mut document["traces"][0];
    let rows = trace["windows"].as_array_mut().expect("rows");
    rows.truncate(windows);
    assert_eq!(rows.len(), windows, "the recording is at least as long");
    let samples = trace["samples"].as_array_mut().expect("samples");
    samples.retain(|sample| sample["window"].as_u64() < Some(windows as u64));
    judged(&document)
}

fn conditions(ending: &Ending) -> Vec<Condition> {
    let conditions = ending.conditions.iter();
    conditions.map(|(_, condition)| condition.clone()).collect()
}

/// The command line says of the file that it is as it was live.
async fn agrees(proxy: &Proxy, path: &str) {
    let output = proxy.cutover(&["judge", path]).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("As it was live"), "{said}");
    assert!(said.contains("to the last bit"), "{said}");
    assert_eq!(output.status.code(), Some(0), "{said}");
}

#[tokio::test]
async fn live_traffic_judged_again_leads_to_the_evidence_and_the_discounts_that_status_showed() {
    let scene = Scene::begin().await;
    let api = "/api/v1/splits/api/recording";
    // Not from the first request on: a recording begins with what is known.
    eventually("some requests are judged", async || {
        condition(&scene.split().await, "error_rate > 30%").samples > 50
    })
    .await;
    let begun = scene.proxy.change(api, r#"{"for": "10m"}"#).await;
    assert_eq!(begun.status, 200, "{:?}", begun.body);
    let mut shown = vec![scene.split().await];
    let started = Instant::now();
    let first = condition(&shown[0], "error_rate > 30%").evidence;
    loop {
        let split = scene.split().await;
        let errors = condition(&split, "error_rate > 30%");
        let has_learnt = (errors.overdispersion - PRIOR_OVERDISPERSION).abs() > 0.1;
        if has_learnt && errors.overdispersion > 1.2 && recorded(&split) > recorded(&shown[0]) + 60
        {
            shown.push(split);
            break;
        }
        if recorded(&split) >= recorded(&shown[shown.len() - 1]) + 20 {
            shown.push(split);
        }
        assert!(started.elapsed() < 2 * PATIENCE, "{:?}", shown.last());
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let recording = scene.proxy.ask(api).await;
    assert_eq!(recording.status, 200);
    let proxy = scene.end().await;

    let document: Value = serde_json::from_slice(&recording.body).expect("JSON");
    for split in &shown {
        let ending = judged_until(&document, split);
        assert_eq!(conditions(&ending), split.conditions, "bit for bit");
        let agreement = ending.agreement.as_ref().expect("it has samples");
        assert_eq!(agreement.differences, [""; 0]);
        assert_eq!(agreement.rounded, 0);
    }
    let last = &shown[shown.len() - 1];
    let errors = condition(last, "error_rate > 30%");
    assert!(errors.overdispersion > 1.2, "sessions fail as a whole");
    assert!(errors.evidence * 2.0 < 0.5, "from ½: {}", errors.evidence);
    assert!(first <= 0.5 && errors.events > 0);
    let slow = condition(last, "p95 > 150ms");
    assert!(slow.events > 0, "hung requests are slow before they end");
    assert!(slow.samples < errors.samples, "fast errors are not fast");
    assert!(slow.evidence * 2.0 < 0.5, "from ½: {}", slow.evidence);
    let compared = condition(last, "p50 worse than legacy by 300%");
    assert!(compared.samples > 0, "legacy has a median by now");
    assert_eq!(last.phase, Phase::Progressing);
    assert!(!judged(&document).rollback);

    proxy.rewrite("recording.json", &recording.body);
    agrees(&proxy, "recording.json").await;
    let mut asked = document.clone();
    let wanted = shown
        .iter()
        .map(|split| json!({"window": recorded(split).saturating_sub(1)}));
    asked["traces"][0]["samples"] = wanted.collect();
    proxy.rewrite("asked.json", asked.to_string());
    let output = proxy.cutover(&["judge", "asked.json", "-o", "json"]).await;
    let outcome: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let samples = outcome["traces"][0]["samples"].as_array().expect("samples");
    let last_sample = &samples[samples.len() - 1]["evidence"];
    for condition in &last.conditions {
        let evidence = last_sample[&condition.criterion].as_f64();
        assert_eq!(
            evidence,
            Some(condition.evidence),
            "{}",
            condition.criterion
        );
    }
}

#[tokio::test]
async fn a_rollback_judged_again_is_the_same_rollback() {
    let scene = Scene::begin().await;
    let mut recording = Recording::begin(&scene.proxy, "rollback.json");
    eventually("it is being recorded", async || {
        recorded(&scene.split().await) > 10
    })
    .await;
    let again = scene
        .proxy
        .change("/api/v1/splits/api/recording", r#"{"for": "1m"}"#);
    assert_eq!(again.await.status, 409, "one at a time");
    scene.is_bad.store(true, Ordering::SeqCst);
    eventually("new is rolled back", async || {
        scene.split().await.phase == Phase::RolledBack
    })
    .await;
    let windows = recorded(&scene.split().await);
    eventually("what comes afterwards is recorded too", async || {
        recorded(&scene.split().await) > windows + 10
    })
    .await;
    let refused = scene
        .proxy
        .cutover(&["record", "api", "--output", "refused.json"]);
    assert_eq!(refused.await.status.code(), Some(5), "one at a time");
    let left = scene.proxy.site().path().join("refused.json");
    assert!(!left.exists(), "a refused recording leaves no empty file");
    recording.interrupt().await;
    let split = scene.split().await;
    assert_eq!(split.recording, None, "it is fetched and forgotten");
    let proxy = scene.end().await;

    let decision = split.last_decision.expect("the engine decided");
    let text = std::fs::read_to_string(proxy.site().path().join("rollback.json"));
    let document: Value = serde_json::from_str(&text.expect("it is written")).expect("JSON");
    let ending = judged(&document);
    assert!(ending.rollback_window < Some(windows));
    assert_eq!(ending.condition.as_deref(), Some(decision.reason.as_str()));
    assert_eq!(conditions(&ending), decision.conditions, "bit for bit");
    agrees(&proxy, "rollback.json").await;

    // One error more or less is another story, and said to be one.
    let forged = forge(document);
    proxy.rewrite("forged.json", forged.to_string());
    let output = proxy.cutover(&["judge", "forged.json"]).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("Not as it was live"), "{said}");
    assert_eq!(output.status.code(), Some(1), "{said}");
}

/// Adds a request of `new` to the first window.
fn forge(mut document: Value) -> Value {
    let trace = &mut document["traces"][0];
    let columns = trace["columns"].as_array().expect("columns").clone();
    let place = columns.iter().position(|column| column == "window");
    let window = &mut trace["windows"][0][place.expect("it has windows")];
    let requests = &mut window["new"]["errors"]["total"][0];
    *requests = json!(requests.as_u64().expect("a count") + 1);
    document
}

/// `cutover record` on its way.
struct Recording(Child);

impl Recording {
    fn begin(proxy: &Proxy, output: &str) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_cutover"))
            .args(["record", "api", "--for", "30m", "--output", output])
            .env("CUTOVER_ADMIN", format!("http://{}", proxy.admin()))
            .current_dir(proxy.site().path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.expect("the binary was built for this test"))
    }

    /// Ctrl-C, once, at whatever it does at that moment; it ends well.
    async fn interrupt(&mut self) {
        let kill = format!("kill -INT {}", self.0.id());
        let sent = Command::new("sh").arg("-c").arg(&kill).status();
        assert!(sent.expect("there is a shell").success());
        assert_eq!(ended(&mut self.0).await.code(), Some(0));
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

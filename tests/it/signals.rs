//! Signals from the Prometheus that people have, from a JSON document and from people: they hold a
//! plan, roll back, and cost nothing where they fail.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cutover::control::signals::Signals;
use cutover::policy::rollout::Phase;
use cutover::policy::signal::SignalState;

use crate::harness::proxy::{Proxy, Site};
use crate::harness::traffic::Traffic;
use crate::harness::upstream::{Gate, Reply, Script, Step, Upstream};
use crate::harness::{eventually, in_time, migration};
use crate::real_parts::Prometheus;
use crate::rollback::{becomes, command, decision, is};

/// A server of one JSON document, which a test may change.
struct Document {
    server: Upstream,
    script: Arc<Mutex<Script>>,
}

impl Document {
    fn start(script: Script) -> Self {
        let script = Arc::new(Mutex::new(script));
        let told = Arc::clone(&script);
        let server = Upstream::start("document", move |_| told.lock().expect("no panic").clone());
        Self { server, script }
    }

    fn says(&self, body: &str) {
        *self.script.lock().expect("no panic") = document(body);
    }

    /// A signal that is asked for here often, and whose value holds long enough for a slow machine.
    fn signal(&self, pointer: &str) -> String {
        let address = self.server.address();
        format!(
            "{{http: 'http://{address}/health.json', pointer: {pointer}, interval: 20ms, \
             fresh_for: 3s}}"
        )
    }
}

fn document(body: &str) -> Script {
    Script::answer(Reply::new(200).body(body.to_owned()))
}

/// Two arms, and the split `api` between them with these settings.
async fn start(settings: &str) -> (Proxy, Upstream, Upstream) {
    let (legacy, new) = (Upstream::ok("legacy"), Upstream::ok("new"));
    let configuration = migration(legacy.address(), new.address(), settings);
    (Site::new().start(&configuration).await, legacy, new)
}

async fn signal(proxy: &Proxy, name: &str) -> SignalState {
    let mut signals = proxy.split("api").await.signals.into_iter();
    let found = signals.find(|signal| signal.name == name);
    found.expect("tests ask for signals they configured")
}

async fn signal_becomes(proxy: &Proxy, name: &str, condition: impl Fn(&SignalState) -> bool) {
    let what = format!("the signal {name} is as it should be");
    eventually(&what, async || condition(&signal(proxy, name).await)).await;
}

#[tokio::test]
async fn a_plan_stands_still_while_a_source_is_down_and_goes_on_when_it_answers() {
    let source = Document::start(Script::reset());
    let settings = format!(
        "signals: {{lag: {}}}, stages: [{{share: 0%, observe: 200ms}}, {{share: 10%, observe: 1h}}, 100%], \
         advance: ['lag < 5']",
        source.signal("/lag")
    );
    let (proxy, _legacy, _new) = start(&settings).await;
    // Time in which a needed signal is silent is no time in good health.
    becomes(&proxy, "the signal is lacking, and time with it", |split| {
        let lacking = &split.outlook.lacking[..];
        let silence = "lag: no reading yet, fresh for 3s is needed (";
        matches!(lacking, [signal, time] if signal.starts_with(silence) && time.contains("0s of"))
    })
    .await;
    assert_eq!(proxy.split("api").await.share, "0%");
    let silent = signal(&proxy, "lag").await;
    assert!(!silent.fresh && silent.error.is_some(), "{silent:?}");
    assert_eq!(silent.conditions[0].verdict, "inconclusive");
    let shown = proxy.cutover(&["status"]).await;
    let shown = String::from_utf8(shown.stdout).expect("text");
    for part in ["- lag: no reading", "no value", "lag < 5"] {
        assert!(shown.contains(part), "no `{part}` in:\n{shown}");
    }
    let labels = [("split", "api"), ("signal", "lag")];
    proxy.counts(0.0, "cutover_signal_fresh", &labels).await;

    source.says(r#"{"lag": 7}"#);
    becomes(&proxy, "the value is too high", |split| {
        split.outlook.lacking == ["lag < 5 is not met: it is 7."]
    })
    .await;
    assert_eq!(proxy.split("api").await.share, "0%");

    source.says(r#"{"lag": 3}"#);
    becomes(&proxy, "the plan goes on", |split| split.share == "10%").await;
    proxy.counts(1.0, "cutover_signal_fresh", &labels).await;
    proxy.counts(3.0, "cutover_signal_value", &labels).await;
}

#[tokio::test]
async fn memory_that_prometheus_sees_above_its_limit_rolls_back_and_is_named() {
    let memory = Arc::new(AtomicU64::new(1_500_000_000));
    let scraped = Arc::clone(&memory);
    let target = Upstream::start("target", move |_| {
        let body = format!("memory_bytes {}\n", scraped.load(Ordering::Relaxed));
        Script::answer(Reply::new(200).body(body))
    });
    let prometheus = Prometheus::start(target.address()).await;
    let settings = format!(
        "signals: {{memory: {{prometheus: 'http://{}', query: memory_bytes, interval: 20ms, \
         fresh_for: 3s}}}}, share: 50%, rollback: ['memory > 2GiB for 300ms']",
        prometheus.address
    );
    let (proxy, _legacy, _new) = start(&settings).await;
    signal_becomes(&proxy, "memory", |it| it.fresh && it.value == Some(1.5e9)).await;
    is(&proxy, Phase::Progressing, "50%").await;

    memory.store(3_000_000_000, Ordering::Relaxed);
    let decided = decision(&proxy, "rollback").await;
    assert_eq!(decided.reason, "memory > 2GiB for 300ms");
    let sentence = &decided.sentence;
    assert!(
        sentence.starts_with("Rolled back new of api at ")
            && sentence.contains("memory > 2GiB for 300ms: it is 2.794GiB"),
        "{sentence}"
    );
    is(&proxy, Phase::RolledBack, "0%").await;

    drop(prometheus);
    signal_becomes(&proxy, "memory", |it| {
        let error = it.error.as_deref().unwrap_or_default();
        !it.fresh && error.contains("cannot connect")
    })
    .await;
}

#[tokio::test]
async fn a_signal_may_hold_or_be_told_of_and_the_share_stays() {
    let source = Document::start(document(r#"{"lag": 0, "mood": 0}"#));
    let settings = format!(
        "signals: {{lag: {}, mood: {}}}, share: 50%, \
         rollback: ['lag > 5 then hold', 'mood > 3 then notify']",
        source.signal("/lag"),
        source.signal("/mood")
    );
    let (proxy, _legacy, _new) = start(&settings).await;
    signal_becomes(&proxy, "lag", |it| it.fresh).await;
    source.says(r#"{"lag": 9, "mood": 0}"#);
    let held = decision(&proxy, "hold").await;
    assert!(
        held.sentence.contains("lag > 5 then hold: it is 9"),
        "{}",
        held.sentence
    );
    source.says(r#"{"lag": 0, "mood": 4}"#);
    let told = decision(&proxy, "notify").await;
    assert!(
        told.sentence.contains("mood > 3 then notify: it is 4"),
        "{}",
        told.sentence
    );
    is(&proxy, Phase::Progressing, "50%").await;
    proxy.says(0, "action=rollback").await;
}

#[tokio::test]
async fn a_source_that_hangs_or_talks_nonsense_costs_nothing_but_freshness() {
    let gate = Gate::new();
    let hanging = Document::start(Script::of([Step::Wait(gate.clone())]));
    let babbling = Document::start(document("<html>"));
    let numberless = Document::start(document(r#"{"lag": "NaN"}"#));
    let settings = format!(
        "signals: {{hanging: {}, babbling: {}, numberless: {}}}, share: 50%, \
         rollback: ['hanging > 5', 'babbling > 5', 'numberless > 5']",
        hanging
            .signal("/lag")
            .replace("fresh_for", "timeout: 100ms, fresh_for"),
        babbling.signal("/lag"),
        numberless.signal("/lag"),
    );
    let (proxy, _legacy, new) = start(&settings).await;
    let traffic = Traffic::begin(proxy.address(), 2, Duration::from_millis(10));
    for (name, said) in [
        ("hanging", "no answer within 100ms"),
        ("babbling", "the answer is no JSON"),
        ("numberless", "NaN is no value"),
    ] {
        signal_becomes(&proxy, name, |it| {
            let error = it.error.as_deref().unwrap_or_default();
            !it.fresh && it.value.is_none() && error.starts_with(said)
        })
        .await;
    }
    traffic.goes_on(50).await;
    is(&proxy, Phase::Progressing, "50%").await;
    drop(new);
    let decided = decision(&proxy, "rollback").await;
    assert!(!decided.reason.contains("> 5"), "{}", decided.reason);
    let record = traffic.end().await;
    assert!(record.statuses.iter().all(|status| *status == 200));
    gate.open();
}

async fn until(signals: &mut Signals, wanted: Result<f64, &str>) {
    let reading = in_time("the signal is as wanted", async {
        loop {
            let (split, signal, reading) = signals.next().await;
            assert_eq!((&*split, &*signal), ("api", "memory"));
            let is_wanted = match (&reading.new, wanted) {
                (Ok(value), Ok(wanted)) => *value == wanted,
                (Err(error), Err(wanted)) => error.contains(wanted),
                _ => false,
            };
            if is_wanted {
                return reading;
            }
        }
    });
    reading.await;
}

fn ask(signals: &mut Signals, prometheus: &Prometheus, query: &str) {
    let text = format!(
        "listeners: [{{address: '127.0.0.1:0'}}]
backends: {{old: {{endpoints: ['127.0.0.1:1']}}, fresh: {{endpoints: ['127.0.0.1:2']}}}}
splits:
  api:
    legacy: old
    new: fresh
    signals:
      memory: {{prometheus: 'http://{}', query: '{query}', interval: 20ms}}
routes: [{{split: api}}]
",
        prometheus.address
    );
    let config = cutover::config::load_text(&text, ".".as_ref(), &|_| None);
    let config = config.unwrap_or_else(|problems| panic!("{problems}"));
    signals.reconcile(&config.splits);
}

#[tokio::test]
async fn a_signal_follows_what_prometheus_scrapes() {
    let memory = Arc::new(AtomicU64::new(1_500_000_000));
    let scraped = Arc::clone(&memory);
    let target = Upstream::start("target", move |_| {
        let memory = scraped.load(Ordering::Relaxed);
        let body = format!(
            "memory_bytes{{job=\"new\"}} {memory}\nmany{{of=\"1\"}} 1\nmany{{of=\"2\"}} 2\n"
        );
        Script::of([Step::Answer(Reply::new(200).body(body))])
    });
    let prometheus = Prometheus::start(target.address()).await;
    let mut signals = Signals::default();
    ask(&mut signals, &prometheus, "memory_bytes");
    until(&mut signals, Ok(1.5e9)).await;
    memory.store(2_500_000_000, Ordering::Relaxed);
    until(&mut signals, Ok(2.5e9)).await;
    ask(&mut signals, &prometheus, "scalar(memory_bytes) / 0");
    until(&mut signals, Err("inf is no value")).await;
    ask(&mut signals, &prometheus, "many");
    until(&mut signals, Err("the query finds 2 series; one is needed")).await;
    ask(&mut signals, &prometheus, "nothing_of_this_name");
    until(&mut signals, Err("the query finds no sample")).await;
    ask(&mut signals, &prometheus, "memory_bytes{");
    until(&mut signals, Err("the query fails: ")).await;
    drop(prometheus);
    until(&mut signals, Err("cannot connect")).await;
}

#[tokio::test]
async fn what_people_tell_holds_as_long_as_the_file_says_and_outlives_a_kill() {
    let settings = "signals: {complaints: {pushed: true}, mood: {pushed: true, fresh_for: 200ms}}, \
                    share: 50%, rollback: ['complaints > 20', 'complaints worse than legacy by 50%', \
                    'mood < 1 then hold']";
    let (proxy, _legacy, _new) = start(settings).await;
    assert!(!signal(&proxy, "complaints").await.fresh);
    command(&proxy, &["signal", "api", "mood", "5"]).await;
    let told = ["signal", "api", "complaints", "3", "--legacy", "2.5"];
    command(&proxy, &told).await;
    signal_becomes(&proxy, "complaints", |it| {
        it.fresh && it.value == Some(3.0) && it.legacy == Some(2.5)
    })
    .await;
    signal_becomes(&proxy, "mood", |it| !it.fresh && it.value == Some(5.0)).await;
    is(&proxy, Phase::Progressing, "50%").await;

    command(&proxy, &["signal", "api", "complaints", "21"]).await;
    let decided = decision(&proxy, "rollback").await;
    assert_eq!(decided.reason, "complaints > 20");
    let proxy = proxy.kill().launch(&[]).await;
    is(&proxy, Phase::RolledBack, "0%").await;
    let kept = signal(&proxy, "complaints").await;
    assert_eq!((kept.fresh, kept.value), (true, Some(21.0)));
}

//! A signal from the Prometheus that people have.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cutover::control::signals::Signals;

use crate::harness::in_time;
use crate::harness::upstream::{Reply, Script, Step, Upstream};
use crate::real_parts::Prometheus;

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

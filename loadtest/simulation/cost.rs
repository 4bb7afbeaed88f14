//! What one judgement costs, and how much a judge remembers.

use std::hint::black_box;
use std::time::{Duration, Instant};

use cutover::policy::criteria::Criteria;
use cutover::policy::judge::Judge;
use cutover::policy::time::Timestamp;

use crate::model::traffic::Traffic;

const ROUNDS: u32 = 200_000;

pub(crate) fn print() {
    let default = Criteria::default();
    let conditions_only = Criteria {
        advance: Vec::new(),
        ..Criteria::default()
    };
    println!("\n## Cost\n");
    println!("| criteria | requests to new in a window | one judgement |");
    println!("| --- | --- | --- |");
    for (name, criteria) in [
        ("4 conditions", conditions_only),
        ("4 conditions, 4 requirements", default),
    ] {
        for rate in [10.0, 1_000.0] {
            let took = one_judgement(&criteria, rate);
            println!(
                "| {name} | {} | {:.2} µs |",
                rate / 10.0,
                took.as_secs_f64() * 1e6
            );
        }
    }
}

fn one_judgement(criteria: &Criteria, rate: f64) -> Duration {
    let mut traffic = Traffic::independent(1, rate, 0.1, 0.001);
    let windows: Vec<_> = (0..1_000)
        .map(|_| {
            let mut window = traffic.window(0.1);
            for arm in [&mut window.new, &mut window.legacy] {
                arm.client_errors = arm.errors.clone();
                arm.latency = vec![arm.errors.clone(), arm.errors.clone()];
            }
            window
        })
        .collect();
    let mut now = Timestamp::from_milliseconds(0);
    let mut judge = Judge::new(criteria.clone(), now);
    let began = Instant::now();
    for round in 0..ROUNDS {
        now = now.plus(Duration::from_millis(100));
        let window = &windows[round as usize % windows.len()];
        black_box(judge.observe(black_box(window), now));
    }
    began.elapsed() / ROUNDS
}

//! The table of the simulation.

use std::thread;

use cutover::policy::criteria::{Criteria, Criterion, Metric, Overdispersion, Requirement};

use crate::model::theory::{gate_limit, information_limit};
use crate::model::traffic::{Sessions, Traffic};
use crate::model::{LIMIT, MARGIN, Trial, When, quantile, requests, seconds, two_error_conditions};

const HOUR: f64 = 3_600.0;
const DAY: f64 = 24.0 * HOUR;
const SHARE: f64 = 0.1;

pub(crate) fn print() {
    false_rollbacks();
    changes_at_the_start();
    changes_after_six_hours();
    gates();
    shared_outages();
}

/// Runs `trial` for each seed, on all cores.
fn runs<T: Send>(count: u64, trial: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let cores = thread::available_parallelism().map_or(1, usize::from) as u64;
    let trial = &trial;
    thread::scope(|scope| {
        let workers: Vec<_> = (0..cores)
            .map(|core| {
                scope.spawn(move || -> Vec<T> {
                    (core..count).step_by(cores as usize).map(trial).collect()
                })
            })
            .collect();
        let results = workers.into_iter().map(|worker| worker.join());
        results
            .flat_map(|result| result.expect("a trial does not panic"))
            .collect()
    })
}

fn heading(text: &str, columns: &[&str]) {
    println!("\n## {text}\n");
    println!("| {} |", columns.join(" | "));
    println!("|{}", " --- |".repeat(columns.len()));
}

fn row(cells: &[String]) {
    println!("| {} |", cells.join(" | "));
}

fn percent(ratio: f64) -> String {
    format!("{} %", (ratio * 100_000.0).round() / 1_000.0)
}

fn fits(holds: bool) -> String {
    if holds { "yes" } else { "NO" }.to_owned()
}

fn false_rollbacks() {
    heading(
        "False rollbacks of a good new arm within 24 h (goal: at most 1 %)",
        &[
            "sessions",
            "discount",
            "new/s",
            "legacy fails",
            "new fails",
            "rolled back",
        ],
    );
    let edge = 0.02 * (1.0 + MARGIN);
    let cells = [
        (0.001, 0.001),
        (0.01, 0.01),
        (0.03, 0.03),
        (0.02, edge),
        (LIMIT, LIMIT),
    ];
    for (sessions, overdispersion) in [
        ("independent", Overdispersion::Fixed(1.0)),
        ("bunched", Overdispersion::Auto),
        ("bunched", Overdispersion::Fixed(1.0)),
    ] {
        let (mut rolled_back, mut all) = (0, 0);
        for rate in [1.0, 10.0] {
            for (legacy, new) in cells {
                let ended = runs(RUNS, |seed| {
                    let mut traffic = match sessions {
                        "independent" => Traffic::independent(seed, rate, SHARE, legacy),
                        _ => Traffic::bunched(seed, rate, SHARE, legacy),
                    };
                    traffic.new.errors = new;
                    let criteria = Criteria {
                        overdispersion,
                        ..two_error_conditions()
                    };
                    Trial::new(criteria, traffic).rollback(DAY, 1.0).is_some()
                });
                let count = ended.iter().filter(|ended| **ended).count();
                rolled_back += count;
                all += ended.len();
                row(&[
                    sessions.to_owned(),
                    discount(overdispersion),
                    rate.to_string(),
                    percent(legacy),
                    percent(new),
                    format!("{count} of {}", ended.len()),
                ]);
            }
        }
        row(&[
            sessions.to_owned(),
            discount(overdispersion),
            "all".to_owned(),
            String::new(),
            String::new(),
            format!(
                "**{rolled_back} of {all} = {:.2} %**",
                rolled_back as f64 * 100.0 / all as f64
            ),
        ]);
    }
}

const RUNS: u64 = 100;

fn discount(overdispersion: Overdispersion) -> String {
    match overdispersion {
        Overdispersion::Auto => "auto".to_owned(),
        Overdispersion::Fixed(phi) => phi.to_string(),
    }
}

const CHANGES: [(f64, f64); 6] = [
    (0.001, 0.005),
    (0.001, 0.02),
    (0.001, 0.05),
    (0.001, 0.2),
    (0.01, 0.03),
    (0.01, 0.5),
];
const RATES: [f64; 3] = [1.0, 10.0, 100.0];
const DELAY_COLUMNS: [&str; 7] = [
    "new/s",
    "legacy fails",
    "new fails",
    "limit, requests",
    "median, s (goal)",
    "95th percentile, s (goal)",
    "kept",
];

fn changes_at_the_start() {
    heading("Delay of the rollback: bad from the start", &DELAY_COLUMNS);
    for (legacy, new) in CHANGES {
        for rate in RATES {
            let limit = information_limit(new, legacy, SHARE);
            let patience = (20.0 * limit / rate).ceil() + 20.0;
            let delays = runs(200, |seed| {
                let mut traffic = Traffic::independent(seed, rate, SHARE, legacy);
                traffic.new.errors = new;
                Trial::new(two_error_conditions(), traffic).rollback(patience, 1.0)
            });
            let median_goal = (1.6 * limit / rate).ceil() + 1.0;
            let late_goal = (4.0 * limit / rate).ceil() + 1.0;
            delay_row(
                (rate, legacy, new, limit),
                &delays,
                median_goal,
                Some(late_goal),
            );
        }
    }
}

fn changes_after_six_hours() {
    heading(
        "Delay of the rollback: bad after six good hours",
        &DELAY_COLUMNS,
    );
    for (legacy, new) in CHANGES {
        for rate in RATES {
            let limit = information_limit(new, legacy, SHARE);
            let patience = (20.0 * limit / rate).ceil() + 20.0;
            let delays = runs(60, |seed| {
                let traffic = Traffic::independent(seed, rate, SHARE, legacy);
                let mut trial = Trial::new(two_error_conditions(), traffic);
                if trial.rollback(6.0 * HOUR, 10.0).is_some() {
                    return None;
                }
                trial.traffic.new.errors = new;
                trial.rollback(patience, 1.0)
            });
            let goal = (3.25 * limit / rate).ceil() + 3.0;
            delay_row((rate, legacy, new, limit), &delays, goal, None);
        }
    }
}

fn delay_row(
    (rate, legacy, new, limit): (f64, f64, f64, f64),
    delays: &[Option<When>],
    median_goal: f64,
    late_goal: Option<f64>,
) {
    let median = quantile(seconds(delays), 0.5);
    let late = quantile(seconds(delays), 0.95);
    let goal = late_goal.map_or_else(String::new, |goal| format!(" ({goal})"));
    row(&[
        rate.to_string(),
        percent(legacy),
        percent(new),
        format!("{limit:.0}"),
        format!("{median} ({median_goal})"),
        format!("{late}{goal}"),
        fits(median <= median_goal && late_goal.is_none_or(|goal| late <= goal)),
    ]);
}

fn gates() {
    heading(
        "Requests until a gate opens (median; goal: 1.3 times the limit and a second's)",
        &["gate", "new/s", "rate", "limit", "median (goal)", "kept"],
    );
    for (name, limit, rates) in [
        ("< 1 %", 0.01, [0.0, 0.001, 0.005]),
        ("p95", 0.05, [0.0, 0.01, 0.025]),
    ] {
        for errors in rates {
            for rate in [10.0, 100.0] {
                let opened = runs(200, |seed| gate_trial(seed, rate, errors, limit));
                let needed = gate_limit(errors, limit, 0.05);
                let median = quantile(requests(&opened), 0.5);
                let goal = 1.3 * needed + rate;
                row(&[
                    name.to_owned(),
                    rate.to_string(),
                    percent(errors),
                    format!("{needed:.0}"),
                    format!("{median} ({goal:.0})"),
                    fits(median <= goal),
                ]);
            }
        }
    }
    heading(
        "Gates that open within an hour although the limit is just violated (goal: at most 5 %)",
        &["gate", "new/s", "opened", "kept"],
    );
    for (name, limit) in [("< 1 %", 0.01), ("p95", 0.05)] {
        for rate in [1.0, 10.0, 100.0] {
            let opened = runs(1_000, |seed| gate_trial(seed, rate, limit, limit));
            let count = opened.iter().flatten().count();
            let part = count as f64 / opened.len() as f64;
            row(&[
                name.to_owned(),
                rate.to_string(),
                format!("{count} of {} = {:.1} %", opened.len(), part * 100.0),
                fits(part <= 0.05),
            ]);
        }
    }
}

fn gate_trial(seed: u64, rate: f64, errors: f64, limit: f64) -> Option<When> {
    let criteria = Criteria {
        rollback: Vec::new(),
        advance: vec![Requirement::within(Metric::ErrorRate, limit)],
        observe: std::time::Duration::ZERO,
        min_requests: 0,
        overdispersion: Overdispersion::Fixed(1.0),
        ..Criteria::default()
    };
    let traffic = Traffic::independent(seed, rate, SHARE, errors);
    Trial::new(criteria, traffic).advance(HOUR, 1.0)
}

fn shared_outages() {
    heading(
        "Comparison during an outage of both arms (goal: at most 0.5 %, the budget)",
        &["sessions", "both fail", "for, s", "rolled back"],
    );
    for sessions in ["independent", "bunched"] {
        for errors in [0.04, 0.3, 0.9] {
            for length in [10.0, 600.0] {
                let ended = runs(400, |seed| {
                    let mut traffic = Traffic::independent(seed, 10.0, SHARE, 0.001);
                    if sessions == "bunched" {
                        let bunched = Sessions::Bunched {
                            size: 20,
                            correlation: 0.05,
                        };
                        (traffic.new.sessions, traffic.legacy.sessions) = (bunched, bunched);
                    }
                    let criteria = Criteria {
                        rollback: vec![Criterion::worse_than_legacy(Metric::ErrorRate, MARGIN)],
                        overdispersion: Overdispersion::Auto,
                        ..two_error_conditions()
                    };
                    let mut trial = Trial::new(criteria, traffic);
                    let before = trial.rollback(600.0, 1.0);
                    (trial.traffic.new.errors, trial.traffic.legacy.errors) = (errors, errors);
                    let during = trial.rollback(length, 1.0);
                    (trial.traffic.new.errors, trial.traffic.legacy.errors) = (0.001, 0.001);
                    let after = trial.rollback(600.0, 1.0);
                    [before, during, after].iter().any(Option::is_some)
                });
                let count = ended.iter().filter(|ended| **ended).count();
                row(&[
                    sessions.to_owned(),
                    percent(errors),
                    length.to_string(),
                    format!("{count} of {}", ended.len()),
                ]);
            }
        }
    }
}

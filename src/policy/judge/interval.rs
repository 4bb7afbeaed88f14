//! Which rates are compatible with what was counted.
//!
//! An ordinary 95 % interval holds for one look at the end; looked at ten times a second it will
//! sooner or later exclude the truth. A confidence sequence covers the true rate at every look at
//! once. It assumes a constant rate and is therefore for display only: decisions use evidence.

use super::window::Pair;

/// The chance that the sequence ever excludes the true rate.
pub(super) const ALPHA: f64 = 0.05;

/// Enough to exhaust the digits of a number below one.
const HALVINGS: usize = 100;

/// The lower and the upper end of the rates that are compatible with `counts`, whose events come in
/// bunches of `phi`; none without requests.
pub(super) fn confidence_sequence(counts: Pair, alpha: f64, phi: f64) -> Option<(f64, f64)> {
    let observed = counts.ratio()?;
    let (requests, events) = (counts.n as f64 / phi, counts.e as f64 / phi);
    let quiet = requests - events;
    // The logarithm of Beta(½, ½) is that of pi.
    let mixture = ln_beta(0.5 + events, 0.5 + quiet) - std::f64::consts::PI.ln();
    let excludes = |rate: f64| {
        let likelihood = weighted_ln(events, rate) + weighted_ln(quiet, 1.0 - rate);
        mixture - likelihood >= -alpha.ln()
    };
    let low = if counts.e == 0 {
        0.0
    } else {
        border(0.0, observed, excludes)
    };
    let high = if counts.e >= counts.n {
        1.0
    } else {
        border(1.0, observed, excludes)
    };
    Some((low, high))
}

/// Where exclusion begins on the way from `inside` to `outside`.
fn border(mut outside: f64, mut inside: f64, excludes: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..HALVINGS {
        let between = (outside + inside) / 2.0;
        if excludes(between) {
            outside = between;
        } else {
            inside = between;
        }
    }
    (outside + inside) / 2.0
}

/// What happened zero times says nothing, whatever its chance.
fn weighted_ln(times: f64, chance: f64) -> f64 {
    if times <= 0.0 {
        0.0
    } else {
        times * chance.ln()
    }
}

fn ln_beta(a: f64, b: f64) -> f64 {
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

/// The logarithm of the gamma function of a positive number: Stirling's series, after the argument
/// was moved to where the series is exact to the last digits.
fn ln_gamma(argument: f64) -> f64 {
    const SERIES_FROM: f64 = 15.0;
    let mut product = 1.0;
    let mut x = argument;
    while x < SERIES_FROM {
        product *= x;
        x += 1.0;
    }
    let square = 1.0 / (x * x);
    let series = (1.0 / 12.0
        - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square * (1.0 / 1680.0))))
        / x;
    (x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + series - f64::ln(product)
}

#[cfg(test)]
mod tests {
    use super::super::vectors::{assert_near, integer, load, number, numbers};
    use super::*;

    #[test]
    fn the_specified_sequences_hold() {
        for (n, e, phi, low, high) in [
            (5_000, 25, 1.0, 0.002_061_14, 0.009_899_48),
            (300, 0, 1.0, 0.0, 0.021_174_0),
            (5_000, 25, 2.0, 0.001_368_11, 0.012_347_6),
        ] {
            let found = confidence_sequence(Pair { n, e }, 0.05, phi).expect("requests");
            assert!((found.0 - low).abs() < 5e-9, "{found:?}");
            assert!((found.1 - high).abs() < 5e-8, "{found:?}");
        }
    }

    #[test]
    fn sequences_match_the_reference() {
        for vector in load().of("conf_seq") {
            let counts = Pair {
                n: integer(&vector["n"]),
                e: integer(&vector["e"]),
            };
            let (alpha, phi) = (number(&vector["alpha"]), number(&vector["phi"]));
            let found = confidence_sequence(counts, alpha, phi).expect("requests");
            let expected = numbers(&vector["out"]);
            assert_near(found.0, expected[0], 1e-9);
            assert_near(found.1, expected[1], 1e-9);
        }
    }

    #[test]
    fn the_logarithm_of_the_gamma_function_is_that_of_factorials_and_of_halves() {
        let mut factorial = 0.0_f64;
        for n in 1..171_u32 {
            let found = ln_gamma(f64::from(n));
            assert!(
                (found - factorial).abs() <= 1e-13 * factorial.max(1.0),
                "{n}"
            );
            factorial += f64::from(n).ln();
        }
        let of_half = std::f64::consts::PI.ln() / 2.0;
        assert!((ln_gamma(0.5) - of_half).abs() < 1e-13);
    }

    #[test]
    fn without_requests_nothing_is_excluded_and_nothing_is_said() {
        assert_eq!(confidence_sequence(Pair::default(), 0.05, 1.0), None);
    }
}

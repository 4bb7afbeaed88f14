//! How much one failure is worth when failures come in bunches.
//!
//! Sticky sessions make errors arrive in bunches; twenty failures of one user are not twenty
//! witnesses, and taking them for such gave up to 21 % false rollbacks a day in simulation. The
//! remedy is to divide the log factors by the dispersion phi. It is estimated on *legacy*, where
//! nothing is being tested: a `new` that fails for some users only must not discount itself.
//!
//! Old counts fade, and that has a trap: a sum whose parts are weighted by w scatters by the sum of
//! w², so a statistic that divides by the sum of w finds, after hours, half the scatter there is
//! (and simulation a fifth of all good releases rolled back within a day). So the requests are kept
//! a second time, with their weights squared.

use serde::{Deserialize, Serialize};

use super::by_cluster::ByCluster;
use super::window::{Clustered, Pair};

/// Old counts lose half their weight in this time.
const HALF_LIFE_SECONDS: f64 = 3_600.0;
/// How often the estimate moves.
const INTERVAL_SECONDS: f64 = 10.0;
/// What is believed before anything was seen, and how many observations that belief is worth.
pub(super) const PRIOR: f64 = 1.5;
const PRIOR_WEIGHT: f64 = 10.0;
/// Below 1 would claim more witnesses than requests; above 20 nothing would ever be decided.
const RANGE: (f64, f64) = (1.0, 20.0);

/// The dispersion of one kind of event on legacy, learnt as traffic passes.
///
/// An estimate moves only at the beginning of a window, from windows before it, so that no window
/// chooses its own discount.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Dispersion {
    /// Requests and events per cluster, old ones fading.
    requests: ByCluster<f64>,
    events: ByCluster<f64>,
    /// The requests with the squares of their weights.
    squares: ByCluster<f64>,
    /// Counted since the last estimate.
    #[serde(with = "as_clustered")]
    recent: ByCluster<Pair>,
    /// Seconds since the last estimate.
    elapsed: f64,
    phi: f64,
}

impl Default for Dispersion {
    fn default() -> Self {
        Self {
            requests: ByCluster::default(),
            events: ByCluster::default(),
            squares: ByCluster::default(),
            recent: ByCluster::default(),
            elapsed: 0.0,
            phi: PRIOR,
        }
    }
}

impl Dispersion {
    /// The estimate in force: errors come in bunches of about this size.
    pub(super) const fn phi(&self) -> f64 {
        self.phi
    }

    /// Renews the estimate if it is due; to be called before a window is judged.
    pub(super) fn renew_if_due(&mut self) {
        if self.elapsed < INTERVAL_SECONDS {
            return;
        }
        let fade = (-self.elapsed / HALF_LIFE_SECONDS).exp2();
        self.elapsed = 0.0;
        if self.requests.is_untouched() && self.recent.is_untouched() {
            // Legacy never had a request, and what is not there does not fade.
            self.phi = PRIOR;
            return;
        }
        let (requests, events) = (self.requests.slots(), self.events.slots());
        let squares = self.squares.slots();
        for (cluster, recent) in self.recent.slots().iter_mut().enumerate() {
            let recent = std::mem::take(recent);
            fade_and_add(requests, cluster, fade, recent.n);
            fade_and_add(events, cluster, fade, recent.e);
            fade_and_add(squares, cluster, fade * fade, recent.n);
        }
        self.phi = estimate(&self.requests, &self.events, &self.squares);
    }

    /// Seconds until the next estimate is due.
    pub(super) fn renewal_left(&self) -> f64 {
        INTERVAL_SECONDS - self.elapsed
    }

    /// Takes in legacy's counts of a window; to be called after the window was judged.
    pub(super) fn learn(&mut self, legacy: &Clustered, seconds: f64) {
        self.elapsed += seconds.max(0.0);
        if self.recent.is_untouched()
            && legacy
                .clusters
                .iter()
                .all(|counts| *counts == Pair::default())
        {
            return;
        }
        for (recent, counts) in self.recent.slots().iter_mut().zip(&legacy.clusters) {
            recent.n += counts.n;
            recent.e += counts.e;
        }
    }
}

/// As it was always written: as the counts of a window, whose total nobody asked for.
mod as_clustered {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{ByCluster, Clustered, Pair};

    pub(super) fn serialize<S: Serializer>(
        counts: &ByCluster<Pair>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let counts = Clustered {
            total: Pair::default(),
            clusters: counts.to_vec(),
        };
        counts.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<ByCluster<Pair>, D::Error> {
        let counts = Clustered::deserialize(deserializer)?;
        Ok(counts.clusters.into_iter().collect())
    }
}

fn fade_and_add(sums: &mut [f64], cluster: usize, fade: f64, more: u64) {
    if let Some(sum) = sums.get_mut(cluster) {
        *sum = *sum * fade + more as f64;
    }
}

/// Pearson's statistic over the clusters, drawn towards the prior while there is little to go by.
pub(super) fn estimate(requests: &[f64], events: &[f64], squares: &[f64]) -> f64 {
    let raw = raw_dispersion(requests, events, squares);
    let (dispersion, freedom) = raw.unwrap_or((PRIOR, 0.0));
    let pulled = (PRIOR_WEIGHT * PRIOR + freedom * dispersion) / (PRIOR_WEIGHT + freedom);
    pulled.clamp(RANGE.0, RANGE.1)
}

/// The unshrunk statistic and how many independent observations it is worth. None where nothing
/// can be learnt: no event, nothing but events, or a single cluster. Where nothing has faded, the
/// requests are their own `squares`.
pub(super) fn raw_dispersion(
    requests: &[f64],
    events: &[f64],
    squares: &[f64],
) -> Option<(f64, f64)> {
    let mut present = 0.0_f64;
    let (mut all_requests, mut all_events) = (0.0, 0.0);
    for (n, e) in requests.iter().zip(events).filter(|(n, _)| **n > 0.0) {
        present += 1.0;
        all_requests += n;
        all_events += e;
    }
    let rate = all_events / all_requests;
    let informative = present > 1.0 && rate > 0.0 && rate < 1.0;
    if !informative {
        return None;
    }
    let scatter: f64 = requests
        .iter()
        .zip(events)
        .zip(squares)
        .filter(|((n, _), square)| **n > 0.0 && **square > 0.0)
        .map(|((n, e), square)| (e - n * rate).powi(2) / (square * rate * (1.0 - rate)))
        .sum();
    let freedom = (present - 1.0).min(all_events);
    Some((scatter / (present - 1.0), freedom))
}

#[cfg(test)]
mod tests {
    use super::super::vectors::{assert_close, load, numbers};
    use super::super::window::Pair;
    use super::*;

    fn legacy(count: impl Fn(u64) -> Pair) -> Clustered {
        Clustered {
            total: Pair::default(),
            clusters: (0..64).map(count).collect(),
        }
    }

    #[test]
    fn the_specified_example_has_the_specified_dispersion() {
        let requests = vec![1000.0; 64];
        let events: Vec<f64> = (0..64).map(|b| f64::from(7 * b % 23)).collect();
        let (raw, freedom) = raw_dispersion(&requests, &events, &requests).expect("informative");
        assert!((raw - 4.203_571_606).abs() < 1e-9, "{raw}");
        assert!((freedom - 63.0).abs() < 1e-9, "{freedom}");
        let phi = estimate(&requests, &events, &requests);
        assert!((phi - 3.833_219_332).abs() < 1e-9, "{phi}");
    }

    #[test]
    fn estimates_match_the_reference() {
        for vector in load().of("dispersion") {
            let (requests, events) = (numbers(&vector["n_b"]), numbers(&vector["e_b"]));
            let expected = numbers(&vector["out"]);
            let (raw, _) = raw_dispersion(&requests, &events, &requests).expect("informative");
            assert_close(raw, expected[0], 1e-9);
            assert_close(estimate(&requests, &events, &requests), expected[1], 1e-9);
        }
    }

    #[test]
    fn an_estimate_applies_only_to_windows_after_those_it_was_learnt_from() {
        let mut dispersion = Dispersion::default();
        let bunched = legacy(|b| Pair {
            n: 1000,
            e: 7 * b % 23,
        });
        dispersion.renew_if_due();
        dispersion.learn(&bunched, 10.0);
        assert_eq!(dispersion.phi(), PRIOR, "learnt, not yet in force");
        dispersion.renew_if_due();
        assert!((dispersion.phi() - 3.833_219_332).abs() < 1e-9);
        dispersion.learn(&bunched, 9.9);
        dispersion.renew_if_due();
        assert!((dispersion.phi() - 3.833_219_332).abs() < 1e-9, "not due");
    }

    #[test]
    fn old_counts_lose_half_their_weight_in_an_hour() {
        let mut dispersion = Dispersion::default();
        dispersion.learn(&legacy(|_| Pair { n: 100, e: 1 }), 10.0);
        dispersion.renew_if_due();
        dispersion.learn(&Clustered::default(), 3_600.0);
        dispersion.renew_if_due();
        assert!((dispersion.requests[5] - 50.0).abs() < 1e-9);
        assert!((dispersion.events[5] - 0.5).abs() < 1e-9);
        assert!((dispersion.squares[5] - 25.0).abs() < 1e-9);
    }

    /// Sessions of ten requests that fail together, for half a day. Whoever divides the scatter of
    /// fading sums by the fading requests finds five where ten is the truth.
    #[test]
    fn what_has_faded_does_not_make_bunches_look_smaller() {
        let mut dispersion = Dispersion::default();
        let (mut all, mut naive) = (0.0, 0.0);
        let mut state = 1_u64;
        for tick in 0..4_320 {
            dispersion.renew_if_due();
            let session = |_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let fails = (state >> 33).is_multiple_of(10);
                Pair {
                    n: 10,
                    e: 10 * u64::from(fails),
                }
            };
            let window = Clustered {
                clusters: (0..64).map(session).collect(),
                ..Clustered::default()
            };
            dispersion.learn(&window, 10.0);
            if tick >= 2_160 && tick % 360 == 0 {
                let (requests, events) = (&dispersion.requests, &dispersion.events);
                let raw = |squares| raw_dispersion(requests, events, squares).expect("informative");
                all += raw(&dispersion.squares).0 / 6.0;
                naive += raw(requests).0 / 6.0;
            }
        }
        assert!((all - 10.0).abs() < 2.0, "{all}");
        assert!((naive - 5.0).abs() < 1.0, "{naive}");
    }

    #[test]
    fn without_errors_or_with_nothing_else_the_prior_stands() {
        for pair in [Pair { n: 50, e: 0 }, Pair { n: 50, e: 50 }] {
            let mut dispersion = Dispersion::default();
            dispersion.learn(&legacy(|_| pair), 10.0);
            dispersion.renew_if_due();
            assert_eq!(dispersion.phi(), PRIOR, "{pair:?}");
        }
    }
}

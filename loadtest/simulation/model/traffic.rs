//! Windows of counts as traffic would make them, from a seed.

use cutover::policy::judge::window::{ArmCounts, Clustered, Pair, StreakReading, Window};

const CLUSTERS: usize = 64;

/// Requests to both arms.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    pub(crate) draws: Draws,
    pub(crate) new: Source,
    pub(crate) legacy: Source,
}

/// The requests to one arm.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Requests per second.
    pub(crate) rate: f64,
    /// The part of them that fails.
    pub(crate) errors: f64,
    pub(crate) sessions: Sessions,
}

/// How the requests of a session hang together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Sessions {
    /// Not at all.
    Independent,
    /// `size` requests within the same window, which is the hardest case, some sessions being
    /// luckier than others: each has an error rate of its own, so that two requests of one session
    /// correlate by `correlation`.
    Bunched { size: u64, correlation: f64 },
}

impl Traffic {
    /// Independent requests, `share` of them to `new`, which has `rate` per second.
    pub(crate) fn independent(seed: u64, rate: f64, share: f64, errors: f64) -> Self {
        let source = |rate| Source {
            rate,
            errors,
            sessions: Sessions::Independent,
        };
        Self {
            draws: Draws::new(seed),
            new: source(rate),
            legacy: source(rate * (1.0 - share) / share),
        }
    }

    /// The same in sessions of twenty requests.
    pub(crate) fn bunched(seed: u64, rate: f64, share: f64, errors: f64) -> Self {
        let mut traffic = Self::independent(seed, rate, share, errors);
        let sessions = Sessions::Bunched {
            size: 20,
            correlation: 0.05,
        };
        traffic.new.sessions = sessions;
        traffic.legacy.sessions = sessions;
        traffic
    }

    /// What happens in the next `seconds`.
    pub(crate) fn window(&mut self, seconds: f64) -> Window {
        Window {
            seconds,
            new: self.new.counts(seconds, &mut self.draws),
            legacy: self.legacy.counts(seconds, &mut self.draws),
            slower: None,
            streak: StreakReading::default(),
            legacy_available: true,
            new_available: true,
        }
    }
}

impl Source {
    fn counts(&self, seconds: f64, draws: &mut Draws) -> ArmCounts {
        let errors = match self.sessions {
            Sessions::Independent => self.independent(seconds, draws),
            Sessions::Bunched { size, correlation } => {
                self.bunched(seconds, size, correlation, draws)
            }
        };
        ArmCounts {
            errors,
            ..ArmCounts::default()
        }
    }

    fn independent(&self, seconds: f64, draws: &mut Draws) -> Clustered {
        let mut counts = Clustered::default();
        let requests = draws.poisson(self.rate * seconds);
        let errors = draws.binomial(requests, self.errors);
        for _ in 0..errors {
            counts.count(draws.below(CLUSTERS), Pair { n: 1, e: 1 });
        }
        // Who sent the good ones matters to nobody; the groups need only be many.
        let good = requests - errors;
        let each = good / CLUSTERS as u64;
        if each > 0 {
            for cluster in 0..CLUSTERS {
                counts.count(cluster, Pair { n: each, e: 0 });
            }
        }
        for _ in 0..good % CLUSTERS as u64 {
            counts.count(draws.below(CLUSTERS), Pair { n: 1, e: 0 });
        }
        counts
    }

    fn bunched(&self, seconds: f64, size: u64, correlation: f64, draws: &mut Draws) -> Clustered {
        let mut counts = Clustered::default();
        let failures = BetaBinomial::new(size, self.errors, correlation);
        for _ in 0..draws.poisson(self.rate * seconds / size as f64) {
            let session = Pair {
                n: size,
                e: failures.draw(draws),
            };
            counts.count(draws.below(CLUSTERS), session);
        }
        counts
    }
}

/// Random numbers that are the same on every machine and in every year (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Draws(u64);

impl Draws {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(1))
    }

    /// In `0.0..1.0`.
    pub(crate) fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.uniform() * end as f64) as usize
    }

    /// How many of something happen that happens `mean` times on average.
    pub(crate) fn poisson(&mut self, mean: f64) -> u64 {
        // In parts, so that the chance of none does not underflow.
        let parts = (mean / 500.0).ceil().max(1.0);
        (0..parts as u64)
            .map(|_| self.small_poisson(mean / parts))
            .sum()
    }

    fn small_poisson(&mut self, mean: f64) -> u64 {
        let mut left = self.uniform();
        let mut chance = (-mean).exp();
        let mut count = 0;
        // Beyond the bound there is nothing but rounding.
        while left >= chance && count < 2_000 {
            left -= chance;
            count += 1;
            chance *= mean / count as f64;
        }
        count
    }

    /// How many of `trials` succeed.
    pub(crate) fn binomial(&mut self, trials: u64, chance: f64) -> u64 {
        if chance > 0.5 {
            return trials - self.binomial(trials, 1.0 - chance);
        }
        if chance <= 0.0 {
            return 0;
        }
        // From one success to the next.
        let quiet = (1.0 - chance).ln();
        let (mut successes, mut at) = (0, 0.0);
        loop {
            at += ((1.0 - self.uniform()).ln() / quiet).floor() + 1.0;
            if at > trials as f64 {
                return successes;
            }
            successes += 1;
        }
    }
}

/// How many of a session's requests fail, where each session has a rate of its own.
struct BetaBinomial {
    size: u64,
    bad: f64,
    good: f64,
    /// The chance that none fails.
    none: f64,
}

impl BetaBinomial {
    fn new(size: u64, mean: f64, correlation: f64) -> Self {
        let weight = 1.0 / correlation - 1.0;
        let (bad, good) = (mean * weight, (1.0 - mean) * weight);
        let quiet = (0..size).map(|i| (good + i as f64) / (weight + i as f64));
        Self {
            size,
            bad,
            good,
            none: quiet.product(),
        }
    }

    fn draw(&self, draws: &mut Draws) -> u64 {
        let mut left = draws.uniform();
        let mut chance = self.none;
        let mut failures = 0;
        while left >= chance && failures < self.size {
            left -= chance;
            let (k, n) = (failures as f64, self.size as f64);
            chance *= (n - k) * (self.bad + k) / ((k + 1.0) * (self.good + n - k - 1.0));
            failures += 1;
        }
        failures
    }
}

//! For how long a judge need not be given windows in which nothing happens.
//!
//! Of a thousand splits few have traffic, and ten looks a second at each of the others cost a fifth
//! of a core. Windows need not be equal, so those without requests can be given as one: what they
//! do to the evidence is a sum over their seconds, or fades with them, and comes out the same but
//! for rounding. The mistake to avoid is to sleep through what time alone brings, or to shift the
//! moments from which something is counted. These are all there are, and a lull ends with the first:
//!
//! - Evidence that suffices may have to last, and is told of while it does: no lull at all.
//! - A clipped detector bounds what a second supplies; the second has to end when it would have.
//! - Latency is judged from the end of its warm-up on.
//! - The estimate of a dispersion is renewed when it is due.
//!
//! Weight that is granted by the second could in the end exceed a threshold too. That takes days, so
//! the caller's own bound on a lull decides how late it is noticed.

use super::Judge;
use super::watch::Watch;

impl Judge {
    /// For how many seconds at most windows without requests may be [observed](Self::observe) as
    /// one; 0 where each has to be.
    pub fn lull(&self) -> f64 {
        let threshold = self.bench().threshold();
        let watches = &self.evidence.watches;
        if watches.iter().any(|watch| watch.evidence() >= threshold) {
            return 0.0;
        }
        let is_clipped = self.criteria.min_breach_windows > 1;
        let clipped = watches.iter().filter(|_| is_clipped);
        let seconds = clipped.filter_map(Watch::second_left);
        let seconds = seconds.chain(self.warm_up_left());
        seconds.fold(self.lull_of_learning(), f64::min)
    }

    /// For how many seconds at most windows without requests may be [learnt](Self::learn) from as
    /// one.
    pub fn lull_of_learning(&self) -> f64 {
        self.evidence.learnt.renewal_left()
    }

    fn warm_up_left(&self) -> Option<f64> {
        let warm_up = self.criteria.latency_warmup.as_secs_f64();
        let left = warm_up - self.evidence.seconds_since_first_request?;
        (left >= 0.0).then_some(left)
    }
}

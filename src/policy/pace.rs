//! Whether a peer moves bytes as fast as it must.
//!
//! Time without any progress is limited elsewhere, and a peer that trickles never reaches such a
//! limit: a byte now and then keeps a request, its upstream's connection and its buffers for days.
//! An average since the beginning would forgive an hour of trickling for one fast minute, and blame a
//! client for time in which nobody waited for it. So what counts is the time spent waiting for the
//! peer, in spans that are judged one by one.

use core::time::Duration;

use super::time::Elapsed;

/// Whether a peer moves bytes as fast as it must, judged over spans of waiting.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    bytes_per_second: u64,
    span: Duration,
    /// Bytes moved in this span.
    moved: u64,
    /// Time waited in this span, up to the last progress.
    waited: Duration,
    waiting_since: Option<Elapsed>,
}

impl Pace {
    /// At least so many bytes a second, over each `span` of waiting.
    pub const fn new(bytes_per_second: u64, span: Duration) -> Self {
        Self {
            bytes_per_second,
            span,
            moved: 0,
            waited: Duration::ZERO,
            waiting_since: None,
        }
    }

    /// From `now` on the peer is waited for; the time until the span is over, if the peer was not
    /// waited for already.
    pub fn wait(&mut self, now: Elapsed) -> Option<Duration> {
        if self.waiting_since.is_some() {
            return None;
        }
        self.waiting_since = Some(now);
        if self.waited.is_zero() {
            // What was moved before anybody had to wait fills no span.
            self.moved = 0;
        }
        Some(self.span.saturating_sub(self.waited))
    }

    /// The peer has moved so many bytes, and is no longer waited for.
    pub fn moved(&mut self, bytes: usize, now: Elapsed) {
        self.settle(now);
        self.moved = self.moved.saturating_add(bytes as u64);
    }

    /// Judges the span, if it is over at `now`: whether too little was moved. If not, the next
    /// one begins, and nobody is waited for.
    pub fn is_too_slow(&mut self, now: Elapsed) -> bool {
        self.settle(now);
        if self.waited < self.span {
            return false;
        }
        let needed = u128::from(self.bytes_per_second) * self.waited.as_millis() / 1000;
        let is_too_slow = u128::from(self.moved) < needed;
        *self = Self::new(self.bytes_per_second, self.span);
        is_too_slow
    }

    fn settle(&mut self, now: Elapsed) {
        if let Some(since) = self.waiting_since.take() {
            self.waited += now.since(since);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Elapsed {
        Elapsed::from_milliseconds(seconds * 1000)
    }

    #[test]
    fn who_moves_less_than_the_rate_while_waited_for_is_too_slow_once_the_span_is_over() {
        let mut pace = Pace::new(100, SPAN);
        assert_eq!(pace.wait(at(0)), Some(SPAN));
        for second in 1..10 {
            pace.moved(99, at(second));
            assert!(!pace.is_too_slow(at(second)), "the span is not over");
            assert_eq!(
                pace.wait(at(second)),
                Some(SPAN - Duration::from_secs(second))
            );
            assert_eq!(pace.wait(at(second)), None, "it is waited for already");
        }
        assert!(pace.is_too_slow(at(10)));
    }

    #[test]
    fn who_keeps_the_rate_goes_on_and_a_fast_beginning_excuses_nothing_later() {
        let mut pace = Pace::new(100, SPAN);
        pace.wait(at(0));
        pace.moved(1_000_000, at(1));
        pace.wait(at(1));
        assert!(!pace.is_too_slow(at(10)));
        pace.moved(1_000_000, at(10));
        assert_eq!(pace.wait(at(10)), Some(SPAN), "the next span begins anew");
        pace.moved(999, at(11));
        pace.wait(at(11));
        assert!(pace.is_too_slow(at(20)));
    }

    #[test]
    fn time_in_which_nobody_waits_for_the_peer_does_not_count() {
        let mut pace = Pace::new(100, SPAN);
        pace.wait(at(0));
        pace.moved(10, at(1));
        // An hour in which we had nothing for it.
        assert_eq!(pace.wait(at(3601)), Some(Duration::from_secs(9)));
        assert!(!pace.is_too_slow(at(3602)));
        pace.moved(1000, at(3602));
        pace.wait(at(3602));
        assert!(!pace.is_too_slow(at(3610)));
    }
}

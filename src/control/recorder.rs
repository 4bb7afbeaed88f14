//! Writes down what the judges are given, for whoever asks later what would have been done.
//!
//! The mistake to avoid is a recording that changes what it records: the judge comes ten times a
//! second and may not wait. So a row is text as soon as its window has been judged, text is kept in
//! pieces that are never touched again, and an export takes references to them and leaves; it is
//! the reader's task that sends them.
//!
//! A recording is for an operator who is present. It lives in memory, has bounds in time, windows
//! and bytes, and ends with the process. What a bound cuts off is said in the recording.

use std::collections::BTreeMap;
use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use bytes::Bytes;

use crate::policy::duration;
use crate::policy::judge::replay::recorded;
use crate::policy::judge::window::Window;
use crate::policy::judge::{Judge, Verdict};
use crate::policy::rollout::Rollout;
use crate::policy::time::Timestamp;

use super::protocol::{RecordingStatus, Refused};

/// Nobody watches for longer.
const LONGEST: Duration = Duration::from_secs(3_600);
/// Recordings at once, ended ones included: what bounds the memory they take.
const MOST_RECORDINGS: usize = 4;
/// Windows between two samples, as long as the verdict stays the same.
const SAMPLE_EVERY: usize = 10;
/// Small enough to be copied while the judge waits, large enough that few pieces make a recording.
const PIECE: usize = 64 * 1024;

/// The recordings of a process.
#[derive(Debug, Default)]
pub struct Recorder {
    /// By split.
    recordings: BTreeMap<String, Recording>,
    bounds: Bounds,
}

/// The most that one recording holds.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    windows: usize,
    /// Of text. What traffic of thousands of requests a second fills in ten minutes or so.
    bytes: usize,
}

/// As many windows as the longest recording has at ten a second.
impl Default for Bounds {
    fn default() -> Self {
        Self {
            windows: 36_000,
            bytes: 64 * 1024 * 1024,
        }
    }
}

/// The text of a recording, in pieces that follow one another.
#[derive(Clone, Debug)]
pub struct Export {
    /// The pieces.
    pub pieces: Vec<Bytes>,
}

#[derive(Debug)]
struct Recording {
    opening: Bytes,
    windows: Lines,
    samples: Lines,
    until: Timestamp,
    span: Duration,
    bounds: Bounds,
    /// Marks that were made before the beginning and are part of it.
    known_marks: usize,
    /// The last row with a sample, and the kind of its verdict.
    last_sample: Option<(usize, Discriminant<Verdict>)>,
    ended: Option<Ended>,
}

/// Why a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Time,
    Windows,
    Bytes,
}

impl Recorder {
    /// Begins a recording of a split; one of it that has ended is forgotten.
    ///
    /// # Errors
    /// [`Refused`] if one is going on, or there are too many, or it would last too long.
    pub fn begin(
        &mut self,
        rollout: &Rollout,
        span: Duration,
        now: Timestamp,
    ) -> Result<String, Refused> {
        let split = rollout.split();
        let refused = |message: String| Err(Refused::Precondition(message));
        if span.is_zero() || span > LONGEST {
            return refused(format!(
                "a recording lasts at most {} and longer than nothing",
                duration::print(LONGEST)
            ));
        }
        if let Some(present) = self.recordings.get(split)
            && present.ended.is_none()
        {
            return refused(format!(
                "{split} is being recorded until {}: wait for its end, or end it with DELETE \
                 /api/v1/splits/{split}/recording",
                present.until.clock()
            ));
        }
        self.recordings.remove(split);
        if self.recordings.len() >= MOST_RECORDINGS {
            let splits: Vec<&str> = self.recordings.keys().map(String::as_str).collect();
            return refused(format!(
                "there are {MOST_RECORDINGS} recordings already, of {}: end one of them with \
                 DELETE /api/v1/splits/NAME/recording",
                splits.join(", ")
            ));
        }
        let judge = rollout.judge();
        let recording = Recording {
            opening: Bytes::from(recorded::opening(split, judge, now)),
            windows: Lines::default(),
            samples: Lines::default(),
            until: now.plus(span),
            span,
            bounds: self.bounds,
            known_marks: judge.marks_since(),
            last_sample: None,
            ended: None,
        };
        let sentence = format!(
            "Recording {split} for {}, until {}.",
            duration::print(span),
            recording.until.clock()
        );
        self.recordings.insert(split.to_owned(), recording);
        Ok(sentence)
    }

    /// Whether a split is being recorded.
    pub fn is_recording(&self, split: &str) -> bool {
        let recording = self.recordings.get(split);
        recording.is_some_and(|recording| recording.ended.is_none())
    }

    /// A copy of a window that is to be recorded once it was judged.
    pub fn copy(&self, split: &str, window: &Window) -> Option<Window> {
        self.is_recording(split).then(|| window.clone())
    }

    /// Records a window that a rollout has just taken in.
    pub fn take_in(&mut self, rollout: &Rollout, window: Window, now: Timestamp) {
        if let Some(recording) = self.recordings.get_mut(rollout.split()) {
            recording.take_in(rollout.judge(), window, now);
        }
    }

    /// What was recorded of a split so far.
    ///
    /// # Errors
    /// [`Refused`] if nothing was.
    pub fn export(&self, split: &str) -> Result<Export, Refused> {
        let recording = self.recordings.get(split).ok_or_else(|| none(split))?;
        Ok(recording.export())
    }

    /// Ends a recording and forgets it.
    ///
    /// # Errors
    /// [`Refused`] if there is none.
    pub fn end(&mut self, split: &str) -> Result<String, Refused> {
        let recording = self.recordings.remove(split).ok_or_else(|| none(split))?;
        let windows = recording.windows.count;
        Ok(format!(
            "The recording of {split} is forgotten: {windows} windows."
        ))
    }

    /// What `status` says of a split's recording.
    pub fn status(&self, split: &str) -> Option<RecordingStatus> {
        let recording = self.recordings.get(split)?;
        Some(RecordingStatus {
            windows: recording.windows.count as u64,
            bytes: recording.bytes() as u64,
            ended: recording.reason(),
        })
    }

    /// Forgets recordings of splits that are no more.
    pub fn keep(&mut self, is_there: impl Fn(&str) -> bool) {
        self.recordings.retain(|split, _| is_there(split));
    }
}

fn none(split: &str) -> Refused {
    Refused::Precondition(format!(
        "nothing is recorded of {split}: begin with `cutover record {split}`"
    ))
}

impl Recording {
    fn take_in(&mut self, judge: &Judge, window: Window, now: Timestamp) {
        let row = recorded::row(judge, window, self.known_marks, now);
        self.known_marks = 0;
        let index = self.windows.count;
        self.windows.add(&row);
        if let Some(verdict) = &judge.last_look().verdict {
            let kind = discriminant(verdict);
            let is_due = |(last, before)| index - last >= SAMPLE_EVERY || before != kind;
            if self.last_sample.is_none_or(is_due) {
                self.samples.add(&recorded::sample(judge, index));
                self.last_sample = Some((index, kind));
            }
        }
        self.ended = if now >= self.until {
            Some(Ended::Time)
        } else if self.windows.count >= self.bounds.windows {
            Some(Ended::Windows)
        } else if self.bytes() >= self.bounds.bytes {
            Some(Ended::Bytes)
        } else {
            None
        };
    }

    fn bytes(&self) -> usize {
        self.opening.len() + self.windows.bytes() + self.samples.bytes()
    }

    fn reason(&self) -> Option<String> {
        self.ended.map(|ended| match ended {
            Ended::Time => format!("after {}", duration::print(self.span)),
            Ended::Windows => format!("{} windows are the most that is kept", self.bounds.windows),
            Ended::Bytes => format!("{} bytes are the most that is kept", self.bounds.bytes),
        })
    }

    fn export(&self) -> Export {
        let is_truncated = matches!(self.ended, Some(Ended::Windows | Ended::Bytes));
        let reason = self.reason();
        let mut pieces = vec![self.opening.clone()];
        pieces.extend(self.windows.pieces());
        pieces.push(Bytes::from_static(recorded::SAMPLES.as_bytes()));
        pieces.extend(self.samples.pieces());
        let closing = recorded::closing(reason.as_deref(), is_truncated);
        pieces.push(Bytes::from(closing));
        Export { pieces }
    }
}

/// Texts with commas between them.
#[derive(Debug, Default)]
struct Lines {
    whole: Vec<Bytes>,
    whole_bytes: usize,
    open: String,
    count: usize,
}

impl Lines {
    fn add(&mut self, line: &str) {
        if self.count > 0 {
            self.open.push_str(",\n");
        }
        self.open.push_str(line);
        self.count += 1;
        if self.open.len() >= PIECE {
            let piece = std::mem::take(&mut self.open);
            self.whole_bytes += piece.len();
            self.whole.push(Bytes::from(piece));
        }
    }

    const fn bytes(&self) -> usize {
        self.whole_bytes + self.open.len()
    }

    fn pieces(&self) -> impl Iterator<Item = Bytes> {
        let open = Bytes::copy_from_slice(self.open.as_bytes());
        self.whole.iter().cloned().chain(std::iter::once(open))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::arm::PerArm;
    use crate::policy::judge::replay::{Ending, File};
    use crate::policy::judge::window::{ArmCounts, Clustered, Pair, StreakReading};
    use crate::policy::plan::{Course, Rules};
    use crate::policy::rollout::{Event, Terms};
    use crate::policy::share::Share;

    const NOW: Timestamp = Timestamp::from_milliseconds(1_000);
    const MINUTE: Duration = Duration::from_secs(60);

    fn rollout(split: &str) -> Rollout {
        let terms = Terms {
            course: Course::ByHand {
                share: Some(Share::ALL),
                criteria: Box::default(),
            },
            rules: Rules::default(),
            rollout_id: "1".to_owned(),
            signals: Vec::new(),
            backends: PerArm::default(),
        };
        Rollout::new(split, terms, NOW)
    }

    /// Every tenth request of `new` fails.
    fn window() -> Window {
        let mut new = ArmCounts {
            latency: vec![Clustered::default(); 2],
            ..ArmCounts::default()
        };
        for cluster in 0..20 {
            let e = u64::from(cluster < 2);
            new.errors.count(cluster, Pair { n: 1, e });
        }
        Window {
            seconds: 0.1,
            legacy: new.clone(),
            new,
            slower: None,
            streak: StreakReading::default(),
            legacy_available: true,
            new_available: true,
        }
    }

    /// Lets a rollout judge, and records, this many windows.
    fn pass(recorder: &mut Recorder, rollout: &mut Rollout, windows: u32) {
        for tick in 1..=windows {
            let now = NOW.plus(Duration::from_millis(100) * tick);
            let recorded = recorder.copy(rollout.split(), &window());
            let event = Event::Observed(Box::new(window()));
            rollout
                .handle(event, now)
                .expect("windows are never refused");
            if let Some(window) = recorded {
                recorder.take_in(rollout, window, now);
            }
        }
    }

    fn judged(recorder: &Recorder, split: &str) -> Ending {
        let pieces = recorder
            .export(split)
            .expect("there is one")
            .pieces
            .concat();
        let text = String::from_utf8(pieces).expect("it is text");
        let outcome = File::parse(&text).and_then(|file| file.judge());
        outcome.expect("it is a recording").traces.remove(0)
    }

    fn bounded(windows: usize, bytes: usize) -> Recorder {
        Recorder {
            bounds: Bounds { windows, bytes },
            ..Recorder::default()
        }
    }

    #[test]
    fn a_recording_can_be_read_while_it_goes_on_and_ends_with_its_time() {
        let (mut recorder, mut rollout) = (Recorder::default(), rollout("api"));
        recorder.begin(&rollout, MINUTE, NOW).expect("the first");
        pass(&mut recorder, &mut rollout, 25);
        let ending = judged(&recorder, "api");
        assert_eq!((ending.windows, ending.is_truncated), (25, false));
        let agreement = ending.agreement.expect("it has samples");
        assert!(
            (2..=6).contains(&agreement.samples),
            "{}",
            agreement.samples
        );
        assert!(agreement.is_whole());
        assert_eq!(recorder.status("api").and_then(|it| it.ended), None);

        recorder.end("api").expect("it goes on");
        recorder
            .begin(&rollout, MINUTE, NOW)
            .expect("the first ended");
        pass(&mut recorder, &mut rollout, 700);
        let status = recorder.status("api").expect("it is kept");
        assert_eq!(status.windows, 600);
        assert_eq!(status.ended.as_deref(), Some("after 1m"));
        let ending = judged(&recorder, "api");
        assert_eq!((ending.windows, ending.is_truncated), (600, false));
        assert!(
            ending
                .agreement
                .is_some_and(|agreement| agreement.is_whole())
        );
    }

    #[test]
    fn a_bound_ends_a_recording_and_the_recording_says_so() {
        for (mut recorder, windows) in [
            (bounded(30, usize::MAX), 30..=30),
            (bounded(usize::MAX, 200_000), 40..=400),
        ] {
            let mut rollout = rollout("api");
            recorder.begin(&rollout, MINUTE, NOW).expect("the first");
            pass(&mut recorder, &mut rollout, 500);
            let status = recorder.status("api").expect("it is kept");
            assert!(windows.contains(&status.windows), "{}", status.windows);
            assert!(status.ended.is_some_and(|ended| ended.contains("most")));
            assert!(status.bytes < 210_000);
            let ending = judged(&recorder, "api");
            assert!(ending.is_truncated);
            assert!(
                ending
                    .agreement
                    .is_some_and(|agreement| agreement.is_whole())
            );
        }
    }

    #[test]
    fn there_is_one_recording_of_a_split_and_there_are_few_in_all() {
        let mut recorder = Recorder::default();
        let refused = |answer: Result<String, Refused>, part: &str| {
            let message = answer.expect_err("refused").to_string();
            assert!(message.contains(part), "{message}");
        };
        let api = rollout("api");
        for span in [Duration::ZERO, LONGEST + MINUTE] {
            refused(recorder.begin(&api, span, NOW), "at most 1h");
        }
        refused(recorder.end("api"), "cutover record api");
        recorder.begin(&api, MINUTE, NOW).expect("the first");
        refused(recorder.begin(&api, MINUTE, NOW), "until 00:01:01");
        for split in ["a", "b", "c"] {
            let begun = recorder.begin(&rollout(split), MINUTE, NOW);
            begun.expect("there is room");
        }
        refused(recorder.begin(&rollout("d"), MINUTE, NOW), "a, api, b, c");
        recorder.keep(|split| split != "b");
        let begun = recorder.begin(&rollout("d"), MINUTE, NOW);
        begun.expect("a split that is gone takes its recording along");
    }
}

//! What is told stays, what is live is drawn over.
//!
//! On a terminal the last few lines are redrawn in place; the story scrolls by above them. In a
//! file or a pipe the same words are plain lines, and the live part is one line every few seconds.
//! A reader that goes away must not end the demonstration with a panic, nor change its result: from
//! then on nothing is written.

use std::io::Write;
use std::time::{Duration, Instant};

/// Often enough to look alive, seldom enough to be read.
const REDRAW: Duration = Duration::from_millis(150);
const NEXT_LINE: Duration = Duration::from_secs(2);

/// Moves to the start of the line and clears to the end of the screen.
const CLEAR: &str = "\r\u{1b}[J";
/// A line that is too long is cut instead of wrapped, which would spoil the count of lines.
const CUT_LONG_LINES: &str = "\u{1b}[?7l";
const WRAP_LONG_LINES: &str = "\u{1b}[?7h";

/// How the live part is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Drawn over in place.
    Redraw,
    /// Lines that follow each other.
    Lines,
}

/// The live part, once for each manner.
pub(super) struct Live {
    /// A few lines for a terminal.
    pub(super) block: String,
    /// The same in one line.
    pub(super) line: String,
}

/// Where the demonstration writes.
pub(super) struct Screen<W: Write> {
    output: W,
    manner: Manner,
    /// The live lines at the bottom of the terminal.
    drawn: usize,
    last_drawn: Option<Instant>,
    is_gone: bool,
}

impl<W: Write> Screen<W> {
    /// An empty screen.
    pub(super) const fn new(output: W, manner: Manner) -> Self {
        Self {
            output,
            manner,
            drawn: 0,
            last_drawn: None,
            is_gone: false,
        }
    }

    /// Tells something; the live part is gone until it is drawn again.
    pub(super) fn say(&mut self, text: &str) {
        let text = format!("{}{text}\n", self.erasure());
        self.drawn = 0;
        // What follows what was just said is not "again".
        if self.manner == Manner::Redraw {
            self.last_drawn = None;
        }
        self.write(&text);
    }

    /// Shows the present state, unless it was shown a moment ago.
    pub(super) fn show(&mut self, now: Instant, live: impl FnOnce() -> Live) {
        let pause = match self.manner {
            Manner::Redraw => REDRAW,
            Manner::Lines => NEXT_LINE,
        };
        if self.last_drawn.is_some_and(|last| now - last < pause) {
            return;
        }
        self.last_drawn = Some(now);
        let live = live();
        match self.manner {
            Manner::Redraw => {
                let block = live.block.trim_end_matches('\n');
                let text = format!(
                    "{}{CUT_LONG_LINES}\n{block}\n{WRAP_LONG_LINES}",
                    self.erasure()
                );
                self.drawn = block.lines().count() + 1;
                self.write(&text);
            }
            Manner::Lines => self.write(&format!("{}\n", live.line)),
        }
    }

    /// Takes the live part away.
    pub(super) fn clear(&mut self) {
        let text = self.erasure();
        self.drawn = 0;
        self.write(&text);
    }

    fn erasure(&self) -> String {
        match self.drawn {
            0 => String::new(),
            lines => format!("\u{1b}[{lines}A{CLEAR}"),
        }
    }

    fn write(&mut self, text: &str) {
        if self.is_gone {
            return;
        }
        let written = self.output.write_all(text.as_bytes());
        self.is_gone = written.and_then(|()| self.output.flush()).is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(word: &str) -> Live {
        Live {
            block: format!("{word} 1\n{word} 2\n"),
            line: word.to_owned(),
        }
    }

    fn text(screen: Screen<Vec<u8>>) -> String {
        String::from_utf8(screen.output).unwrap()
    }

    #[test]
    fn on_a_terminal_the_live_lines_are_drawn_over_and_the_story_stays() {
        let mut screen = Screen::new(Vec::new(), Manner::Redraw);
        let start = Instant::now();
        screen.show(start, || live("a"));
        screen.show(start + REDRAW / 2, || unreachable!("too soon"));
        screen.show(start + REDRAW, || live("b"));
        screen.say("told");
        screen.say("more");
        let block = |word| format!("{CUT_LONG_LINES}\n{word} 1\n{word} 2\n{WRAP_LONG_LINES}");
        let erasure = format!("\u{1b}[3A{CLEAR}");
        let expected = format!("{}{erasure}{}{erasure}told\nmore\n", block("a"), block("b"));
        assert_eq!(text(screen), expected);
    }

    #[test]
    fn in_a_file_there_are_only_lines() {
        let mut screen = Screen::new(Vec::new(), Manner::Lines);
        let start = Instant::now();
        screen.show(start, || live("a"));
        screen.say("told");
        screen.show(start + NEXT_LINE / 2, || unreachable!("too soon"));
        screen.show(start + NEXT_LINE, || live("b"));
        screen.clear();
        assert_eq!(text(screen), "a\ntold\nb\n");
    }

    #[test]
    fn a_reader_that_went_away_is_not_an_error() {
        struct Closed(u32);
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                self.0 += 1;
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut screen = Screen::new(Closed(0), Manner::Lines);
        screen.say("nobody hears");
        screen.say("this");
        assert_eq!(screen.output.0, 1, "it is not tried again");
    }
}

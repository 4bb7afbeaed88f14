//! `cutover demo`: the whole story on one machine, at compressed time.
//!
//! Two small APIs, a few thousand sessions, and this very program's `serve` between them as a child
//! process. A demonstration that reaches into the program it shows proves nothing, so everything
//! here goes through what an operator has: a configuration file, traffic, the admin API, the
//! command line, the metrics. And a demonstration that only looks right proves nothing either, so
//! each claim is a check that counts; with `--once` their sum is the exit code, which makes it a
//! test.
//!
//! [`story`] has the acts; it uses [`apis`] (the two servers), [`harm`] (what they do wrong, and what
//! must be found), [`scratch`] (the configuration), [`child`] (the proxy's process),
//! [`traffic`] and [`census`] (the sessions, and who answered them), [`operator`] (status, metrics
//! and commands), [`checks`], [`view`] and [`screen`] (what is shown, and how).

mod apis;
mod caller;
mod census;
mod checks;
mod child;
mod harm;
mod operator;
mod scratch;
mod screen;
mod story;
mod traffic;
mod view;

use std::io::{self, IsTerminal};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::terminal::Ink;

use self::screen::{Manner, Screen};
use self::story::Story;

/// When the demonstration ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With the story; the exit code says whether all of it was seen to hold.
    Once,
    /// When it is interrupted; until then everything keeps running for whoever wants to try it.
    Interrupted,
}

/// What became of the claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All that were made were seen to hold.
    Held,
    /// One was seen broken, or an interrupt came before all were made.
    Broken,
}

/// The demonstration could not be given; the sentence says why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Impossible(String);

/// Shows cutover at work. Prints to stdout, and leaves nothing behind.
///
/// # Errors
/// [`Impossible`] where it could not be shown; a claim that was seen broken is no error.
pub(crate) fn run(ending: Ending, ink: Ink) -> Result<Outcome, Impossible> {
    let manner = if io::stdout().is_terminal() && !is_dumb() {
        Manner::Redraw
    } else {
        Manner::Lines
    };
    let mut screen = Screen::new(io::stdout(), manner);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| cannot("start a runtime", &error))?;
    runtime.block_on(perform(ending, ink, &mut screen))
}

async fn perform(
    ending: Ending,
    ink: Ink,
    screen: &mut Screen<io::Stdout>,
) -> Result<Outcome, Impossible> {
    let mut signals = Signals::new().map_err(|error| cannot("listen for signals", &error))?;
    // Raced as a whole, so that an interrupt is obeyed in the middle of an act, too.
    let mut story = tokio::select! {
        story = Story::begin(ending, ink, screen) => story?,
        () = signals.next() => return Ok(Outcome::Broken),
    };
    let told = tokio::select! {
        told = story.tell() => Some(told),
        () = signals.next() => None,
    };
    // Torn down before a failure is reported, whatever it was.
    story.end().await;
    match (told, ending) {
        (Some(told), _) => told,
        // Ending it is what the operator was asked to do.
        (None, Ending::Interrupted) => Ok(Outcome::Held),
        (None, Ending::Once) => Ok(Outcome::Broken),
    }
}

/// The ways in which a terminal and a test runner ask to stop.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb")
}

fn cannot(what: &str, error: &dyn std::fmt::Display) -> Impossible {
    Impossible(format!("the demo cannot {what}: {error}"))
}

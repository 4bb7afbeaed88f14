//! The acts, in order, and what each of them claims.
//!
//! An act ends when what it waits for has been seen, never after a time. A claim that does not
//! come true is recorded as broken and the story goes on: what follows tells more about the reason
//! than an early end.
//!
//! [`promotion`] is the good part, [`death`] the loud one, and [`harms`] the rest, which is shown
//! with `--once`.

mod death;
mod harms;
mod promotion;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use crate::control::protocol::SplitStatus;
use crate::policy::arm::{Arm, PerArm};
use crate::terminal::{Ink, Tone, count};

use super::apis::Api;
use super::census::{Era, Figures};
use super::checks::Checks;
use super::child::Proxy;
use super::harm::{DEATH, OTHERS};
use super::operator::{Operator, SPLIT};
use super::scratch::{Places, Rollout, Scratch};
use super::screen::Screen;
use super::traffic::{Traffic, session_key};
use super::view::{self, Rate};
use super::{Ending, Impossible, Outcome, cannot};

/// How long an act waits for what it claims: a plan that takes a quarter of a minute takes minutes
/// in a debug build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long all of them wait together, so that a story in which everything is broken ends, too.
const ALL_PATIENCE: Duration = Duration::from_secs(240);
/// Between two looks at the status.
const LOOK: Duration = Duration::from_millis(50);
/// The same where the time until a change is measured.
const LOOK_CLOSELY: Duration = Duration::from_millis(5);

const NO_SHARE: &str = "0%";

/// A demonstration under way.
pub(super) struct Story<'a, W: Write> {
    ending: Ending,
    ink: Ink,
    screen: &'a mut Screen<W>,
    checks: Checks,
    rate: Rate,
    places: Places,
    /// The engine's latest decision that was told.
    told: u64,
    // In the order in which they are torn down: who asks before who answers.
    traffic: Traffic,
    operator: Operator,
    proxy: Proxy,
    new: Api,
    legacy: Api,
    scratch: Scratch,
}

impl<'a, W: Write> Story<'a, W> {
    /// Starts the APIs, the proxy and the traffic.
    pub(super) async fn begin(
        ending: Ending,
        ink: Ink,
        screen: &'a mut Screen<W>,
    ) -> Result<Self, Impossible> {
        let checks = Checks::new();
        let program = std::env::current_exe().map_err(|error| cannot("find itself", &error))?;
        let legacy = start_api(Arm::Legacy)?;
        let new = start_api(Arm::New)?;
        let scratch = Scratch::new().map_err(|error| cannot("make a directory", &error))?;
        let apis = PerArm {
            legacy: legacy.address(),
            new: new.address(),
        };
        let (listen, admin) = match ending {
            // A test must not depend on which ports are free.
            Ending::Once => (0, 0),
            Ending::Interrupted => (free_or_any(8080).await, free_or_any(9900).await),
        };
        let places = Places {
            listen: local(listen),
            admin: local(admin),
            apis,
        };
        scratch
            .write_config(places, Rollout::Planned { id: DEATH.rollout })
            .map_err(|error| cannot("write a configuration", &error))?;
        let proxy = Proxy::start(&program, &scratch).await?;
        let operator = Operator::new(program, proxy.admin());
        let traffic = Traffic::start(proxy.listen());
        let mut story = Self {
            ending,
            ink,
            screen,
            checks,
            rate: Rate::new(Instant::now()),
            places,
            told: 0,
            traffic,
            operator,
            proxy,
            new,
            legacy,
            scratch,
        };
        story.introduce(apis);
        Ok(story)
    }

    /// All acts.
    pub(super) async fn tell(&mut self) -> Result<Outcome, Impossible> {
        self.it_is_promoted_by_itself().await?;
        self.the_new_api_dies().await?;
        self.it_heals_and_nobody_goes_back().await?;
        self.the_operator_resumes().await?;
        if self.ending == Ending::Once {
            for harm in &OTHERS {
                self.harm_is_noticed(harm).await?;
            }
        }
        let figures = self.figures();
        self.check_sessions_stay("no session changed arm in the whole story", &figures);
        self.check_no_get_failed("no GET failed in the whole story", &figures);
        self.conclude();
        if self.ending == Ending::Interrupted {
            self.keep_running().await?;
        }
        Ok(if self.checks.hold() {
            Outcome::Held
        } else {
            Outcome::Broken
        })
    }

    /// Stops everything, the traffic first.
    pub(super) async fn end(self) {
        self.screen.clear();
        drop(self.traffic);
        self.proxy.stop().await;
    }

    fn introduce(&mut self, apis: PerArm<SocketAddr>) {
        self.act("Two APIs, and cutover in front of them");
        let config = self.scratch.config();
        for (what, place) in [
            ("legacy API", format!("http://{}", apis.legacy)),
            ("new API", format!("http://{}", apis.new)),
            ("cutover", format!("http://{}", self.proxy.listen())),
            ("admin", format!("http://{}", self.proxy.admin())),
            ("config", config.display().to_string()),
        ] {
            self.screen.say(&format!("  {what:<11} {place}"));
        }
    }

    fn conclude(&mut self) {
        let (made, broken) = self.checks.count();
        let table = self.checks.table(self.ink);
        let result = match broken {
            0 => self
                .ink
                .paint(Tone::Good, &format!("All {made} claims were seen to hold")),
            _ => self
                .ink
                .paint(Tone::Bad, &format!("{broken} of {made} claims were broken")),
        };
        let took = self.checks.elapsed().as_secs_f64();
        if self.ending == Ending::Once {
            self.act("What was claimed, and what was seen");
            self.screen.say(table.trim_end());
        }
        self.screen.say(&format!("\n{result}, in {took:.1} s."));
    }

    /// Shows what can be tried, and the state, until the caller stops waiting.
    async fn keep_running(&mut self) -> Result<(), Impossible> {
        self.traffic.census().enter(Era::Free);
        self.act("It keeps running; try it from another terminal");
        let key = session_key(0);
        let door = format!("http://{}", self.proxy.listen());
        let operator = &self.operator;
        let lines = [
            format!("curl -i {door}/cart -H 'Cookie: session={key}'"),
            operator.line(&["status"]),
            operator.line(&["set", SPLIT, "50%"]),
            operator.line(&["history"]),
            operator.line(&["explain", "--split", SPLIT, "--key", &key]),
            operator.line(&["emergency", "--reason", "just trying"]),
            operator.line(&["emergency", "--clear"]),
            format!("curl http://{}/metrics", self.proxy.admin()),
        ];
        for line in lines {
            self.screen.say(&format!("  {line}"));
        }
        self.screen.say(&format!(
            "  Or change `rollout.id` in {} and save it.\n  Ctrl-C ends it all.",
            self.scratch.config().display()
        ));
        loop {
            self.look().await?;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Watches until `enough`, or until patience ends; returns what was seen last.
    async fn watch(
        &mut self,
        pause: Duration,
        mut enough: impl FnMut(&SplitStatus, &Figures) -> bool,
    ) -> Result<(SplitStatus, Figures), Impossible> {
        let patience = self.patience();
        loop {
            let (status, figures) = self.look().await?;
            if enough(&status, &figures) || patience.has_ended() {
                return Ok((status, figures));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// The patience of one act, which begins now.
    fn patience(&self) -> Patience {
        let left = ALL_PATIENCE.saturating_sub(self.checks.elapsed());
        Patience {
            until: Instant::now() + PATIENCE.min(left),
        }
    }

    /// Looks once, and shows it.
    async fn look(&mut self) -> Result<(SplitStatus, Figures), Impossible> {
        let status = self.operator.status().await;
        let status = status.map_err(|why| self.proxy.lost(&why))?;
        self.tell_decision(&status);
        let figures = self.figures();
        let now = Instant::now();
        self.rate.read(figures.gets, now);
        let (rate, ink) = (&self.rate, self.ink);
        self.screen
            .show(now, || view::live(&status, &figures, rate, ink));
        Ok((status, figures))
    }

    /// Tells what the engine decided since the last look.
    fn tell_decision(&mut self, status: &SplitStatus) {
        let decision = status.last_decision.as_ref();
        let Some(decision) = decision.filter(|decision| decision.revision > self.told) else {
            return;
        };
        self.told = decision.revision;
        if decision.actor != "engine" {
            return;
        }
        let tone = match decision.action.as_str() {
            "advance" | "complete" => Tone::Good,
            _ => Tone::Warning,
        };
        let sentence = format!("    {}", decision.sentence);
        self.screen.say(&self.ink.paint(tone, &sentence));
    }

    fn figures(&self) -> Figures {
        self.traffic.census().figures()
    }

    async fn failed_attempts(&mut self) -> Result<u64, Impossible> {
        let failed = self.operator.failed_attempts().await;
        failed.map_err(|why| self.proxy.lost(&why))
    }

    fn act(&mut self, title: &str) {
        let title = self.ink.paint(Tone::Heading, title);
        self.screen.say(&format!("\n{title}"));
    }

    fn check(&mut self, claim: &str, holds: bool, seen: String) {
        let line = self.checks.add(claim, holds, seen, self.ink);
        self.screen.say(&line);
    }

    fn check_no_get_failed(&mut self, claim: &str, figures: &Figures) {
        let mut gets = format!("{} of {}", count(figures.failed), count(figures.gets));
        if figures.errors_of_legacy > 0 {
            let errors = count(figures.errors_of_legacy);
            gets.push_str(&format!(", {errors} legacy's own errors apart"));
        }
        let seen = match &figures.first_failed {
            Some(first) => format!("{gets}; first: {first}"),
            None => gets,
        };
        self.check(claim, figures.failed == 0, seen);
    }

    fn check_sessions_stay(&mut self, claim: &str, figures: &Figures) {
        let strays = format!(
            "{} in {} answers",
            count(figures.strays),
            count(figures.gets - figures.failed)
        );
        let seen = match &figures.first_stray {
            Some(first) => format!("{strays}; first: {first}"),
            None => strays,
        };
        self.check(claim, figures.strays == 0, seen);
    }
}

/// How long something is waited for.
struct Patience {
    until: Instant,
}

impl Patience {
    fn has_ended(&self) -> bool {
        Instant::now() >= self.until
    }
}

fn start_api(arm: Arm) -> Result<Api, Impossible> {
    Api::start(arm).map_err(|error| cannot(&format!("start the {arm} API"), &error))
}

const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// A port that is easy to remember, or 0 where it is taken.
async fn free_or_any(port: u16) -> u16 {
    match TcpListener::bind(local(port)).await {
        Ok(_) => port,
        Err(_) => 0,
    }
}

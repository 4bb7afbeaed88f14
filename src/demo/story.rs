//! The acts, in order, and what each of them claims.
//!
//! An act ends when what it waits for has been seen, never after a time. A claim that does not
//! come true is recorded as broken and the story goes on: what follows tells more about the reason
//! than an early end.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use crate::control::protocol::SplitStatus;
use crate::policy::arm::{Arm, PerArm};
use crate::policy::rollout::Phase;
use crate::terminal::{Ink, Tone, count, seconds};

use super::apis::Api;
use super::census::{Era, Figures};
use super::checks::Checks;
use super::child::Proxy;
use super::operator::{Operator, SPLIT};
use super::scratch::Scratch;
use super::screen::Screen;
use super::traffic::{Traffic, session_key};
use super::view::{self, Rate};
use super::{Ending, Impossible, Outcome, cannot};

/// How long an act waits for what it claims.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two looks at the status.
const LOOK: Duration = Duration::from_millis(50);
/// The same where the time until a change is measured.
const LOOK_CLOSELY: Duration = Duration::from_millis(3);

/// The share in the configuration.
const SHARE: &str = "10%";
const NO_SHARE: &str = "0%";
/// How far the sessions' part may be from it: four standard deviations of 3 000 tosses.
const SHARE_TOLERANCE: f64 = 0.022;
/// The most that a dead API may be asked in vain, and the longest that it may take.
const FAILED_ATTEMPTS: u64 = 40;
const TIME_TO_ZERO: Duration = Duration::from_secs(1);
/// Answers to sessions of `new` after which "it stays so" is believed.
const CONVINCING: u64 = 100;

/// A demonstration under way.
pub(super) struct Story<'a, W: Write> {
    ending: Ending,
    ink: Ink,
    screen: &'a mut Screen<W>,
    checks: Checks,
    rate: Rate,
    // In the order in which they are torn down: who asks before who answers.
    traffic: Traffic,
    operator: Operator,
    proxy: Proxy,
    new: Api,
    _legacy: Api,
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
        scratch
            .write_config(local(listen), local(admin), apis)
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
            traffic,
            operator,
            proxy,
            new,
            _legacy: legacy,
            scratch,
        };
        story.introduce(apis);
        Ok(story)
    }

    /// All acts.
    pub(super) async fn tell(&mut self) -> Result<Outcome, Impossible> {
        self.a_tenth_of_the_sessions().await?;
        self.the_new_api_dies().await?;
        self.it_heals_and_nobody_goes_back().await?;
        self.the_operator_resumes().await?;
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

    async fn a_tenth_of_the_sessions(&mut self) -> Result<(), Impossible> {
        let sessions = count(self.figures().sessions as u64);
        self.act(&format!(
            "{sessions} sessions arrive; the file says that {SHARE} of them get the new API"
        ));
        let (status, figures) = self
            .watch(LOOK, |_, figures| figures.seen_twice == figures.sessions)
            .await?;
        let ratio = figures.on_new as f64 / figures.seen.max(1) as f64;
        let is_whole = figures.seen_twice == figures.sessions;
        self.check(
            "10% of the sessions are on new",
            is_whole && status.share == SHARE && (ratio - 0.1).abs() < SHARE_TOLERANCE,
            format!(
                "{} of {} ({:.1}%)",
                count(figures.on_new as u64),
                count(figures.seen as u64),
                ratio * 100.0
            ),
        );
        self.check_sessions_stay("no session changed arm", &figures);
        let is_calm = |arm: Arm| {
            let measured = &status.arms[arm];
            measured.requests > 0 && measured.errors == 0 && measured.p95_seconds.is_some()
        };
        let told = |arm: Arm| {
            let p95 = status.arms[arm].p95_seconds;
            let p95 = p95.map_or_else(|| "unknown".to_owned(), seconds);
            let errors = view::error_rate(&status, arm);
            format!("{arm} errors {errors} p95 {p95}")
        };
        self.check(
            "errors and latency are measured per arm",
            is_calm(Arm::Legacy) && is_calm(Arm::New),
            format!("{}, {}", told(Arm::Legacy), told(Arm::New)),
        );
        self.check_no_get_failed("no GET failed", &figures);
        Ok(())
    }

    async fn the_new_api_dies(&mut self) -> Result<(), Impossible> {
        self.act("The new API dies: its port is closed, its connections are reset");
        let failed_before = self.failed_attempts().await?;
        self.traffic.census().enter(Era::Away);
        let died = Instant::now();
        self.new.die().await;
        let (status, _) = self
            .watch(LOOK_CLOSELY, |status, _| status.share == NO_SHARE)
            .await?;
        let took = died.elapsed();
        let decision = status
            .last_decision
            .filter(|decision| decision.action == "rollback" && decision.actor == "engine");
        let first_rescue = self.figures().first_rescue;
        let since_failure = first_rescue.map_or(Duration::ZERO, |first| {
            (died + took).saturating_duration_since(first)
        });
        self.check(
            "within a second the share is 0",
            status.share == NO_SHARE && took <= TIME_TO_ZERO,
            format!(
                "{:.2} s after its death, {:.2} s after the first rescue",
                took.as_secs_f64(),
                since_failure.as_secs_f64()
            ),
        );
        if let Some(decision) = &decision {
            let sentence = format!("    {}", decision.sentence);
            self.screen.say(&self.ink.paint(Tone::Warning, &sentence));
        }
        self.check(
            "one sentence says why",
            decision
                .as_ref()
                .is_some_and(|decision| !decision.sentence.is_empty()),
            decision.map_or_else(
                || "the engine recorded no rollback".to_owned(),
                |decision| decision.reason,
            ),
        );
        let before = self.figures();
        let (_, figures) = self
            .watch(LOOK, |_, figures| {
                figures.sent_to_legacy >= before.sent_to_legacy + CONVINCING
            })
            .await?;
        self.check(
            "its sessions are served by legacy",
            figures.sent_to_legacy >= before.sent_to_legacy + CONVINCING
                && figures.by_new == before.by_new,
            format!(
                "{} answers, and {} rescued before",
                count(figures.sent_to_legacy - before.sent_to_legacy),
                count(figures.rescued)
            ),
        );
        let failed = self.failed_attempts().await?.saturating_sub(failed_before);
        self.check(
            "at most 40 attempts failed on the dead API",
            failed <= FAILED_ATTEMPTS,
            count(failed),
        );
        self.check_no_get_failed("no GET failed while the new API died", &figures);
        Ok(())
    }

    async fn it_heals_and_nobody_goes_back(&mut self) -> Result<(), Impossible> {
        self.act("The new API is back; cutover does not trust it by itself");
        self.new
            .revive()
            .map_err(|error| cannot("revive the new API", &error))?;
        let before = self.figures();
        let (status, figures) = self
            .watch(LOOK, |_, figures| {
                figures.sent_to_legacy >= before.sent_to_legacy + CONVINCING
            })
            .await?;
        self.check(
            "a rollback is latched until a person clears it",
            status.share == NO_SHARE
                && status.phase == Phase::RolledBack
                && figures.by_new == before.by_new,
            format!(
                "share {}, {} answers of new",
                status.share,
                figures.by_new - before.by_new
            ),
        );
        Ok(())
    }

    async fn the_operator_resumes(&mut self) -> Result<(), Impossible> {
        self.act("The operator resumes");
        let words = ["resume", SPLIT, "--reason", "the new API is back"];
        let command = format!("  $ {}", self.operator.line(&words));
        self.screen.say(&self.ink.paint(Tone::Heading, &command));
        let before = self.figures();
        let resumed = Instant::now();
        let said = self.operator.run(&words).await?;
        for line in said.text.lines() {
            self.screen.say(&format!("    {line}"));
        }
        self.traffic.census().enter(Era::Steady);
        let (_, figures) = self
            .watch(LOOK_CLOSELY, |_, figures| figures.by_new > before.by_new)
            .await?;
        let first = resumed.elapsed();
        let came_back = figures.by_new > before.by_new;
        let (status, figures) = self
            .watch(LOOK, |_, figures| figures.on_new == figures.home_new)
            .await?;
        self.check(
            "after the resume the same sessions are back on new",
            said.success
                && came_back
                && status.share == SHARE
                && status.phase == Phase::Progressing
                && figures.on_new == figures.home_new,
            format!(
                "{} of {}, the first after {:.2} s",
                count(figures.on_new as u64),
                count(figures.home_new as u64),
                first.as_secs_f64()
            ),
        );
        self.check_sessions_stay("no session changed arm in the whole story", &figures);
        self.check_no_get_failed("no GET failed in the whole story", &figures);
        Ok(())
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
            operator.line(&["set", SPLIT, "50%", "--override"]),
            operator.line(&["explain", "--split", SPLIT, "--key", &key]),
            operator.line(&["emergency", "--reason", "just trying"]),
            operator.line(&["emergency", "--clear"]),
            format!("curl http://{}/metrics", self.proxy.admin()),
        ];
        for line in lines {
            self.screen.say(&format!("  {line}"));
        }
        self.screen.say(&format!(
            "  Or change the share in {} and save it.\n  Ctrl-C ends it all.",
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
        enough: impl Fn(&SplitStatus, &Figures) -> bool,
    ) -> Result<(SplitStatus, Figures), Impossible> {
        let began = Instant::now();
        loop {
            let (status, figures) = self.look().await?;
            if enough(&status, &figures) || began.elapsed() > PATIENCE {
                return Ok((status, figures));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Looks once, and shows it.
    async fn look(&mut self) -> Result<(SplitStatus, Figures), Impossible> {
        let status = self.operator.status().await;
        let status = status.map_err(|why| self.proxy.lost(&why))?;
        let figures = self.figures();
        let now = Instant::now();
        self.rate.read(figures.gets, now);
        let (rate, ink) = (&self.rate, self.ink);
        self.screen
            .show(now, || view::live(&status, &figures, rate, ink));
        Ok((status, figures))
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

    fn check(&mut self, claim: &'static str, holds: bool, seen: String) {
        let line = self.checks.add(claim, holds, seen, self.ink);
        self.screen.say(&line);
    }

    fn check_no_get_failed(&mut self, claim: &'static str, figures: &Figures) {
        let gets = format!("{} of {}", count(figures.failed), count(figures.gets));
        let seen = match &figures.first_failed {
            Some(first) => format!("{gets}; first: {first}"),
            None => gets,
        };
        self.check(claim, figures.failed == 0, seen);
    }

    fn check_sessions_stay(&mut self, claim: &'static str, figures: &Figures) {
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

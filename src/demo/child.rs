//! The proxy's process: this very program, started as an operator would start it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::scratch::Scratch;
use super::{Impossible, cannot};

/// A busy machine may need seconds to start a process; more would be a mistake somewhere.
const START: Duration = Duration::from_secs(15);

/// Longer than the drain deadline in the demonstration's configuration.
const STOP: Duration = Duration::from_secs(6);

/// Nothing tells us that a child has ended without a signal handler for it, so it is asked.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A running `cutover serve`.
pub(super) struct Proxy {
    process: Child,
    listen: SocketAddr,
    admin: SocketAddr,
    log: PathBuf,
}

impl Proxy {
    /// Starts it with the configuration in `scratch` and waits until it has said where it listens.
    pub(super) async fn start(program: &Path, scratch: &Scratch) -> Result<Self, Impossible> {
        let log = scratch.log();
        let log_file =
            std::fs::File::create(&log).map_err(|error| cannot("write a log", &error))?;
        let mut process = Command::new(program)
            .arg("serve")
            .arg("--config")
            .arg(scratch.config())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .spawn()
            .map_err(|error| cannot("start the proxy", &error))?;
        let lines = process.stdout.take().map(lines_of);
        // Holds the process from here on, so that it ends whatever goes wrong.
        let mut proxy = Self {
            process,
            listen: SocketAddr::from(([0; 4], 0)),
            admin: SocketAddr::from(([0; 4], 0)),
            log,
        };
        let announced = match lines {
            Some(lines) => tokio::time::timeout(START, announcements(lines)).await,
            None => Ok(None),
        };
        match announced {
            Ok(Some((listen, admin))) => {
                proxy.listen = listen;
                proxy.admin = admin;
                Ok(proxy)
            }
            Ok(None) => Err(proxy.lost("it ended before it listened")),
            Err(_) => Err(proxy.lost("it did not say where it listens in time")),
        }
    }

    /// Where clients connect.
    pub(super) const fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Where operators connect.
    pub(super) const fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// What to report when it is not there as it should be: why, and its last words.
    pub(super) fn lost(&self, why: &str) -> Impossible {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(5).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        let words = match last.as_slice() {
            [] => "its log is empty".to_owned(),
            lines => format!("the end of its log:\n  {}", lines.join("\n  ")),
        };
        cannot("go on without the proxy", &format!("{why}; {words}"))
    }

    /// Asks it to stop, as a service manager would, and waits until it has.
    pub(super) async fn stop(mut self) {
        // The standard library can only kill; a shell can ask.
        let ask = format!("kill -TERM {}", self.process.id());
        let asked = Command::new("sh").arg("-c").arg(ask).status();
        if !asked.is_ok_and(|status| status.success()) {
            return;
        }
        let asked_at = Instant::now();
        while asked_at.elapsed() < STOP && matches!(self.process.try_wait(), Ok(None)) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            // Whatever fails here, the process is not ours to reach any more.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

/// The lines of a child's output. It is read to its end, since a full pipe would stop the child.
fn lines_of(output: ChildStdout) -> mpsc::Receiver<String> {
    let (lines, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            let Ok(line) = line else { break };
            // Nobody listens once the addresses are known.
            let _ = lines.blocking_send(line);
        }
    });
    receiver
}

/// Waits for both addresses; none if the output ends without them.
async fn announcements(mut lines: mpsc::Receiver<String>) -> Option<(SocketAddr, SocketAddr)> {
    let (mut listen, mut admin) = (None, None);
    loop {
        if let (Some(listen), Some(admin)) = (listen, admin) {
            return Some((listen, admin));
        }
        let line = lines.recv().await?;
        listen = listen.or_else(|| address(&line, "listening on http://"));
        admin = admin.or_else(|| address(&line, "admin on http://"));
    }
}

fn address(line: &str, prefix: &str) -> Option<SocketAddr> {
    line.strip_prefix(prefix)?.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_addresses_are_awaited_in_any_order_among_other_lines() {
        let (sender, receiver) = mpsc::channel(4);
        for line in [
            "cutover 0.1.0",
            "admin on http://127.0.0.1:9900",
            "listening on http://127.0.0.1:8080",
        ] {
            sender.send(line.to_owned()).await.unwrap();
        }
        let found = announcements(receiver).await;
        let ports = found.map(|(listen, admin)| (listen.port(), admin.port()));
        assert_eq!(ports, Some((8080, 9900)));
    }

    #[tokio::test]
    async fn output_that_ends_without_addresses_is_noticed() {
        let (sender, receiver) = mpsc::channel(4);
        sender
            .send("listening on http://127.0.0.1:1".into())
            .await
            .unwrap();
        drop(sender);
        assert_eq!(announcements(receiver).await, None);
    }
}

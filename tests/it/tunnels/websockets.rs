//! A WebSocket library at both ends, which knows the protocol better than a test by hand.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cutover::policy::arm::Arm;

use crate::harness::migration;
use crate::harness::proxy::Site;
use crate::rollback::key_of;

/// A Python program of this directory. `/usr/bin` has the packages that test.sh installs.
fn program(name: &str) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    command.arg(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(PathBuf::from_iter(["tests", "it", "tunnels", name])),
    );
    command
}

/// A WebSocket server; it ends with its input, when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start() -> Self {
        let mut child = program("chat.py")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("there is a Python");
        let stdout = child.stdout.take().expect("it is piped");
        let mut line = String::new();
        let mut lines = BufReader::new(stdout);
        lines.read_line(&mut line).expect("it says its port");
        let port = line.trim().parse().expect("test.sh installs websockets");
        Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn websockets_work_through_both_arms() {
    let (legacy, new) = (Server::start(), Server::start());
    let settings = "share: 50%, response_headers: true";
    let configuration = migration(legacy.address, new.address, settings);
    let proxy = Site::new().start(&configuration).await;
    for arm in [Arm::Legacy, Arm::New] {
        let mut command = program("caller.py");
        command.arg(proxy.address().to_string()).arg(key_of(arm));
        let calling = tokio::task::spawn_blocking(move || command.output());
        let output = calling.await.expect("waiting does not panic");
        let output = output.expect("there is a Python");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arm}: {complaint}");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said.trim(), arm.to_string());
    }
    proxy.counts(0.0, "cutover_tunnels", &[]).await;
    proxy.counts(0.0, "cutover_requests_in_flight", &[]).await;
    let outcomes = [("class", "success")];
    proxy.counts(4.0, "cutover_requests_total", &outcomes).await;
}

//! Sockets that outlive the process, and what systemd is told.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cutover::control::protocol::Status;

use super::load::{Load, echo};
use super::{Heir, plain};
use crate::harness::certificate::Certificate;
use crate::harness::client::{Answer, Client};
use crate::harness::eventually;
use crate::harness::proxy::Site;
use crate::harness::upstream::Upstream;
use crate::project::root;

/// Binds two sockets, tells their addresses, and, once told to, starts a program with them whenever
/// it has ended: what systemd does with a socket unit, as far as a process can tell.
const SUPERVISOR: &str = "
import os, signal, socket, sys
def bind():
    bound = socket.socket()
    bound.bind(('127.0.0.1', 0))
    bound.listen(4096)
    return bound
sockets = [bind(), bind()]
print(*('%s:%d' % bound.getsockname() for bound in sockets), flush=True)
sys.stdin.readline()
held = [os.dup2(bound.fileno(), 100 + place) for place, bound in enumerate(sockets)]
for _ in range(2):
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        for place, number in enumerate(held):
            os.dup2(number, 3 + place)
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2')
        os.execv(sys.argv[1], sys.argv[1:])
    os.waitpid(child, 0)
";

/// Ends what it started, and the last process that said who it is.
struct Supervisor {
    child: Child,
    traffic: SocketAddr,
    admin: SocketAddr,
}

impl Supervisor {
    /// One that holds its sockets, and has started nothing yet.
    fn begin(site: &Site) -> Self {
        let mut child = Command::new("/usr/bin/python3")
            .args([
                "-c",
                SUPERVISOR,
                env!("CARGO_BIN_EXE_cutover"),
                "serve",
                "--config",
            ])
            .arg(site.configuration_path())
            .current_dir(site.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("test.sh installs python3");
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("it is piped");
        let read = BufReader::new(stdout).read_line(&mut line);
        read.expect("it tells its addresses");
        let mut addresses = line.split_whitespace().map(|text| text.parse());
        let mut address = || addresses.next().expect("two").expect("an address");
        Self {
            traffic: address(),
            admin: address(),
            child,
        }
    }

    fn start(&mut self) {
        let stdin = self.child.stdin.as_mut().expect("it is piped");
        stdin.write_all(b"\n").expect("it waits for a line");
    }

    /// Who answers at the admin address; none where it ends at that moment.
    async fn process(&self) -> Option<u32> {
        let request = http::Request::get("/api/v1/status")
            .header("host", self.admin.to_string())
            .body(http_body_util::Full::new(bytes::Bytes::new()))
            .expect("tests write valid requests");
        let mut client = Client::http1(self.admin).await;
        let answer = Answer::read(client.begin(request).await.ok()?).await;
        let status: Status = serde_json::from_slice(&answer.body).ok()?;
        Some(status.process)
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // Its own child is ended by whoever asked for that one's number.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_restart_under_load_with_sockets_of_systemd_loses_no_request() {
    restarts_under_load(None).await;
}

#[tokio::test]
async fn a_restart_under_load_with_sockets_of_systemd_loses_no_request_over_tls() {
    restarts_under_load(Some(Certificate::new())).await;
}

async fn restarts_under_load(certificate: Option<Certificate>) {
    let upstream = echo();
    let mut site = Site::new();
    let mut tls = "";
    if let Some(certificate) = &certificate {
        tls = ", tls: {certificate: edge.pem, key: edge.key}";
        site = site.certified(certificate);
    }
    let mut supervisor = Supervisor::begin(&site);
    let (traffic, admin) = (supervisor.traffic, supervisor.admin);
    let beginning = format!(
        "listeners: [{{address: '{traffic}'{tls}}}]\nadmin: {{address: '{admin}'}}\nstate: \
         {{directory: state}}\nworkers: 2\ndrain: {{delay: 500ms}}\n"
    );
    let site = site.beginning(&beginning);
    site.configure(&plain(&upstream));
    supervisor.start();
    let first = Heir(supervisor.process().await.expect("it has started"));
    let load = match &certificate {
        Some(certificate) => Load::over_tls(traffic, &[certificate]),
        None => Load::begin(traffic),
    };
    load.goes_on(200).await;
    let killed = Command::new("kill").arg(first.0.to_string()).status();
    assert!(killed.expect("there is a kill").success());
    // The old one still answers while it drains; its successor asks the same socket.
    let mut second = first.0;
    eventually("another process answers", async || {
        second = supervisor.process().await.unwrap_or(first.0);
        second != first.0
    })
    .await;
    let second = Heir(second);
    load.goes_on(300).await;
    load.ends_without_loss().await;
    drop((first, second));
}

/// Frees a port that was free a moment ago.
fn free_address() -> SocketAddr {
    let bound = TcpListener::bind("127.0.0.1:0").expect("there are free ports");
    bound.local_addr().expect("it is bound")
}

#[tokio::test]
async fn systemd_starts_it_at_the_first_connection_and_passes_the_socket() {
    let upstream = Upstream::ok("api");
    for claimed in [true, false] {
        let address = free_address();
        let configured = if claimed { address } else { free_address() };
        let beginning = format!(
            "listeners: [{{address: '{configured}'}}]\nadmin: {{address: 127.0.0.1:0}}\nstate: \
             {{directory: state}}\n"
        );
        let site = Site::new().beginning(&beginning);
        site.configure(&plain(&upstream));
        let mut listening = vec!["--listen".to_owned(), address.to_string()];
        let another = free_address().to_string();
        if !claimed {
            listening.extend(["--listen".to_owned(), another.clone()]);
        }
        let mut child = Command::new("systemd-socket-activate")
            .args(listening)
            .args([env!("CARGO_BIN_EXE_cutover"), "serve", "--config"])
            .arg(site.configuration_path())
            .current_dir(site.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("test.sh installs systemd");
        eventually("the socket is bound", async || {
            tokio::net::TcpStream::connect(address).await.is_ok()
        })
        .await;
        if claimed {
            let answer = Client::http1(address).await.get("/", "").await;
            assert_eq!(answer.status, 200);
            child.kill().expect("it is still running");
            child.wait().expect("it is our child");
        } else {
            let output = child.wait_with_output().expect("it refuses");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let expected = format!("systemd passes a socket for {address} and one for {another}");
            assert!(said.contains(&expected), "{said}");
            assert!(said.contains("add it to `listeners`"), "{said}");
        }
    }
}

#[tokio::test]
async fn sockets_of_systemd_that_are_no_tcp_listeners_are_named_with_the_remedy() {
    let site = Site::new();
    site.configure("backends: {}\nroutes: []\n");
    let path = site.path().join("clients.sock");
    let path = path.to_str().expect("it is text");
    let address = free_address().to_string();
    for (options, expected) in [
        (vec!["--listen", path], format!("the Unix socket {path}")),
        (
            vec!["--datagram", "--listen", &address],
            format!("the datagram socket {address}"),
        ),
        (
            vec!["--accept", "--listen", &address],
            format!("one connection to {address} instead of its listener"),
        ),
    ] {
        let is_datagram = options[0] == "--datagram";
        let mut child = Command::new("systemd-socket-activate")
            .args(&options)
            .args([env!("CARGO_BIN_EXE_cutover"), "serve", "--config"])
            .arg(site.configuration_path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("test.sh installs systemd");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let said = tokio::task::spawn_blocking(move || {
            let mut line = || lines.next().and_then(Result::ok).expect("it says why");
            let mut said = line();
            // Whoever holds the socket may speak under the name of what it starts.
            while !said.contains("`ListenStream=ADDRESS:PORT`") {
                said = line();
            }
            said
        });
        eventually("it was asked for", async || {
            // Nobody may listen yet.
            if is_datagram {
                let socket = UdpSocket::bind("127.0.0.1:0").expect("there are free ports");
                let _ = socket.send_to(b"?", &address);
            } else if options.contains(&path) {
                let _ = std::os::unix::net::UnixStream::connect(path);
            } else {
                let _ = std::net::TcpStream::connect(&address);
            }
            said.is_finished()
        })
        .await;
        let said = said.await.expect("it does not panic");
        assert!(said.starts_with("cutover: "), "{said}");
        assert!(said.contains(&expected), "{said}");
        // Where it passes connections on, it goes on itself.
        let _ = child.kill();
        child.wait().expect("it is our child");
    }
}

#[tokio::test]
async fn systemd_is_told_of_the_start_the_heir_and_the_end() {
    let upstream = Upstream::ok("api");
    let site = Site::new();
    let path = site.path().join("notify.sock");
    let told = UnixDatagram::bind(&path).expect("the directory is writable");
    told.set_read_timeout(Some(Duration::from_secs(20)))
        .expect("sockets have timeouts");
    let hear = || {
        let mut buffer = [0; 256];
        let length = told.recv(&mut buffer).expect("it tells");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let path = path.to_str().expect("it is text");
    let site = site.environment("NOTIFY_SOCKET", path).linked();
    let mut proxy = site.start(&plain(&upstream)).await;
    let old = proxy.process();
    assert_eq!(hear(), format!("READY=1\nMAINPID={old}"));
    proxy.signal("USR2");
    let heir = Heir::of(&proxy, old).await;
    let mut both = [hear(), hear()];
    both.sort();
    let told_by_old = format!("MAINPID={}", heir.0);
    let told_by_new = format!("READY=1\nMAINPID={}", heir.0);
    assert_eq!(both, [told_by_old, told_by_new]);
    assert_eq!(proxy.ended().await.code(), Some(0));
    let killed = Command::new("kill").arg(heir.0.to_string()).status();
    assert!(killed.expect("there is a kill").success());
    assert_eq!(hear(), "STOPPING=1");
}

#[test]
fn the_units_are_what_systemd_understands() {
    let directory = tempfile::tempdir().expect("the temporary directory is writable");
    for unit in ["cutover.service", "cutover.socket"] {
        let text = std::fs::read_to_string(root().join("config/systemd").join(unit));
        // The verification wants the program to be there.
        let text = text
            .expect("it is shipped")
            .replace("/usr/local/bin/cutover", "/bin/true");
        std::fs::write(directory.path().join(unit), text).expect("the directory is writable");
    }
    let verified = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "cutover.service", "cutover.socket"])
        .current_dir(directory.path())
        .output()
        .expect("test.sh installs systemd");
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    let about_ours: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("cutover"))
        .collect();
    assert!(about_ours.is_empty(), "{said}");
}

//! The program under test: the `cutover` that was built beside this one.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use http_body_util::BodyExt;
use tempfile::TempDir;

use super::Impossible;
use super::callers::Connection;

/// A running instance; killed when dropped.
pub(super) struct Proxy {
    process: Child,
    directory: TempDir,
    listener: SocketAddr,
    admin: SocketAddr,
}

/// Where the program is: two directories above an example's.
pub(super) fn program() -> Result<PathBuf, Impossible> {
    let own = std::env::current_exe()?;
    let directory = own.parent().and_then(|examples| examples.parent());
    let program = directory.map(|directory| directory.join("cutover"));
    program.filter(|program| program.is_file()).ok_or_else(|| {
        "there is no cutover beside this program: build it first, with the same profile \
         (cargo build --release)"
            .into()
    })
}

impl Proxy {
    /// Starts it with half of the keys on `new`, and the criteria that it has by itself.
    pub(super) fn start(legacy: SocketAddr, new: SocketAddr) -> Result<Self, Impossible> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("cutover.yaml");
        let configuration = format!(
            "listeners: [{{address: '127.0.0.1:0'}}]
admin: {{address: '127.0.0.1:0'}}
state: {{directory: state}}
backends: {{legacy: {{endpoints: ['{legacy}']}}, new: {{endpoints: ['{new}']}}}}
splits:
  api:
    legacy: legacy
    new: new
    key: [{{header: X-User}}]
    keyless: legacy
    share: 50%
    response_headers: true
routes: [{{split: api}}]
"
        );
        fs::write(&file, configuration)?;
        let mut process = Command::new(program()?)
            .args(["serve", "--config"])
            .arg(&file)
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(directory.path().join("log"))?)
            .spawn()?;
        let output = process.stdout.take().ok_or("its output is not piped")?;
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        // Holds the process from here on, so that it ends whatever goes wrong.
        let mut proxy = Self {
            process,
            directory,
            listener: unknown,
            admin: unknown,
        };
        let mut lines = BufReader::new(output).lines();
        for line in lines.by_ref() {
            let line = line?;
            let address = || line.rsplit_once("://").map(|(_, address)| address.parse());
            if line.starts_with("listening on ") {
                proxy.listener = address().ok_or("it listens nowhere")??;
            } else if line.starts_with("admin on ") {
                // The last line that it announces.
                proxy.admin = address().ok_or("its admin API is nowhere")??;
                break;
            }
        }
        if proxy.admin.port() == 0 {
            let log = fs::read_to_string(proxy.directory.path().join("log"))?;
            return Err(format!("cutover did not start: {log}").into());
        }
        // Whatever else it says must find a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(proxy)
    }

    pub(super) const fn listener(&self) -> SocketAddr {
        self.listener
    }

    /// What the admin API says at `path`.
    pub(super) async fn ask(&self, path: &str) -> Result<String, Impossible> {
        let mut connection = Connection::open(self.admin).await?;
        let answer = connection.get(path, "").await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        if status.is_success() {
            Ok(text)
        } else {
            Err(format!("{path} answers {status}: {text}").into())
        }
    }

    /// Attempts on `new` that have failed so far.
    pub(super) async fn failed_attempts(&self) -> Result<u64, Impossible> {
        let metrics = self.ask("/metrics").await?;
        let attempts = metrics
            .lines()
            .filter(|line| line.starts_with("cutover_attempts_total{backend=\"new\""))
            .filter(|line| !line.contains("result=\"success\""));
        let counts = attempts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
        Ok(counts.sum())
    }

    /// How many bytes the state store has on disk.
    pub(super) fn store_bytes(&self) -> Result<u64, Impossible> {
        let file = self.directory.path().join("state/cutover.redb");
        Ok(fs::metadata(file)?.len())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

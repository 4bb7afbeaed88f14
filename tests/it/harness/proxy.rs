//! The program under test, as an operator would start it.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use bytes::Bytes;
use cutover::control::protocol::{EndpointStatus, SplitStatus, Status};
use cutover::policy::assign::Explanation;
use http::Request;
use http_body_util::Full;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tempfile::TempDir;

use super::certificate::Certificate;
use super::client::{Answer, Client};
use super::metrics::Metrics;
use super::{PATIENCE, eventually};

/// Ports that the system chooses, and two workers, since one would hide what only two can do wrong.
const BEGINNING: &str = "\
listeners: [{address: 127.0.0.1:0}]
admin: {address: 127.0.0.1:0}
state: {directory: state}
workers: 2
";

/// How a listener speaks TLS in a site that is [certified](Site::certified).
pub(crate) const TLS: &str = "tls: {certificate: edge.pem, key: edge.key}";
/// One listener, which speaks TLS.
pub(crate) const ONLY_TLS: &str =
    "[{address: 127.0.0.1:0, tls: {certificate: edge.pem, key: edge.key}}]";
/// A plain listener, then one that speaks TLS.
pub(crate) const PLAIN_AND_TLS: &str = "[{address: 127.0.0.1:0}, \
     {address: 127.0.0.1:0, tls: {certificate: edge.pem, key: edge.key}}]";

/// A directory in which the program can be started, more than once.
#[derive(Clone)]
pub(crate) struct Site {
    directory: Arc<TempDir>,
    beginning: String,
    environment: Vec<(String, String)>,
    ignores_full_disks: bool,
    program: PathBuf,
    open_files: Option<usize>,
}

/// A running program. It is killed when dropped; if the test fails, its log is shown.
pub(crate) struct Proxy {
    site: Site,
    child: Child,
    log: Arc<Mutex<String>>,
    listeners: Vec<SocketAddr>,
    admin: SocketAddr,
}

impl Site {
    /// An empty directory.
    pub(crate) fn new() -> Self {
        Self {
            directory: Arc::new(tempfile::tempdir().expect("the temporary directory is writable")),
            beginning: BEGINNING.to_owned(),
            environment: Vec::new(),
            ignores_full_disks: false,
            program: PathBuf::from(env!("CARGO_BIN_EXE_cutover")),
            open_files: None,
        }
    }

    /// Begins every configuration with this instead: listeners, admin, state, workers.
    pub(crate) fn beginning(self, beginning: &str) -> Self {
        Self {
            beginning: beginning.to_owned(),
            ..self
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Sets a variable of the program's environment.
    pub(crate) fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the program by a link in the directory, which may lead elsewhere later.
    pub(crate) fn linked(mut self) -> Self {
        self.program = self.path().join("cutover");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_cutover"), &self.program)
            .expect("the directory is writable");
        self
    }

    /// Starts the program so that a limit on the size of its files is to it what a full disk is: an
    /// error, not a deadly signal.
    pub(crate) fn surviving_full_disks(mut self) -> Self {
        self.ignores_full_disks = true;
        self
    }

    /// Starts the program so that it may have this many files and sockets open.
    pub(crate) fn open_files(mut self, count: usize) -> Self {
        self.open_files = Some(count);
        self
    }

    /// Writes a file.
    pub(crate) fn file(self, name: &str, contents: impl AsRef<[u8]>) -> Self {
        std::fs::write(self.path().join(name), contents).expect("the directory is writable");
        self
    }

    /// Writes the certificate, and its key, that a listener's [`TLS`] names.
    pub(crate) fn certified(self, certificate: &Certificate) -> Self {
        self.file("edge.pem", &certificate.certificate_pem)
            .file("edge.key", &certificate.key_pem)
    }

    /// Starts the program with a plain listener and, besides, this configuration.
    pub(crate) async fn start(self, configuration: &str) -> Proxy {
        self.configure(configuration);
        self.launch(&[]).await
    }

    /// Starts the program with these listeners and, besides, this configuration.
    pub(crate) async fn start_on(self, listeners: &str, configuration: &str) -> Proxy {
        let beginning = BEGINNING.replace("[{address: 127.0.0.1:0}]", listeners);
        self.beginning(&beginning).start(configuration).await
    }

    /// Writes the configuration file in place.
    pub(crate) fn configure(&self, configuration: &str) {
        let text = self.text(configuration);
        std::fs::write(self.configuration_path(), text).expect("the directory is writable");
    }

    /// The whole text of a configuration.
    pub(crate) fn text(&self, configuration: &str) -> String {
        format!("{}{configuration}", self.beginning)
    }

    /// Where the configuration file is.
    pub(crate) fn configuration_path(&self) -> PathBuf {
        self.path().join("cutover.yaml")
    }

    /// Starts the program where it is to refuse, and waits for its end.
    pub(crate) async fn refusal(&self, arguments: &[&str]) -> Output {
        let mut serve = self.serve(arguments);
        let mut child = (serve.stdout(Stdio::piped()).stderr(Stdio::piped()))
            .spawn()
            .expect("the binary was built for this test");
        let started = Instant::now();
        while child.try_wait().expect("it is our child").is_none() {
            if started.elapsed() > PATIENCE {
                // It serves, and would for ever.
                let _ = child.kill();
                panic!("it never refused to start: {:?}", child.wait_with_output());
            }
            tokio::time::sleep(super::LOOK_AGAIN).await;
        }
        child.wait_with_output().expect("it has ended")
    }

    /// Starts the program, configured as it is, with further arguments.
    pub(crate) async fn launch(self, arguments: &[&str]) -> Proxy {
        let site = self;
        let mut child = site
            .serve(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built for this test");
        let log = Arc::new(Mutex::new(String::new()));
        let stdout = child.stdout.take().expect("it is piped");
        let stderr = child.stderr.take().expect("it is piped");
        let announced = Arc::new(Mutex::new(Vec::new()));
        keep_lines(stderr, Arc::clone(&log), |_| {});
        keep_lines(stdout, Arc::clone(&log), {
            let announced = Arc::clone(&announced);
            move |line| lock(&announced).push(line.to_owned())
        });
        let mut proxy = Proxy {
            site,
            child,
            log,
            listeners: Vec::new(),
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        eventually("it announces its addresses", async || {
            let exit = proxy.child.try_wait().expect("it is our child");
            assert!(exit.is_none(), "it ended at once: {exit:?}");
            // The admin address is announced last, so listeners are complete once it is there.
            let lines = lock(&announced).clone();
            proxy.listeners = addresses(&lines, "listening on ");
            if let [admin] = addresses(&lines, "admin on ")[..] {
                proxy.admin = admin;
            }
            proxy.admin.port() != 0 && !proxy.listeners.is_empty()
        })
        .await;
        eventually("it is ready", async || {
            proxy.ask("/readyz").await.status == 200
        })
        .await;
        proxy
    }

    fn serve(&self, arguments: &[&str]) -> Command {
        let program = &self.program;
        let mut prelude = String::new();
        if self.ignores_full_disks {
            prelude.push_str("trap '' XFSZ; ");
        }
        if let Some(count) = self.open_files {
            prelude.push_str(&format!("ulimit -n {count}; "));
        }
        let mut command = if prelude.is_empty() {
            Command::new(program)
        } else {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("{prelude}exec \"$0\" \"$@\"")]);
            shell.arg(program);
            shell
        };
        command
            .args(["serve", "--config"])
            .arg(self.configuration_path())
            .args(arguments)
            .envs(self.environment.clone())
            .current_dir(self.path())
            .stdin(Stdio::null());
        command
    }
}

impl Proxy {
    /// Where it runs.
    pub(crate) fn site(&self) -> &Site {
        &self.site
    }

    /// Kills it without warning; it may be started again in the same place.
    pub(crate) fn kill(mut self) -> Site {
        self.child.kill().expect("it is still running");
        self.child.wait().expect("it is our child");
        self.site.clone()
    }

    /// Its number among the machine's processes.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Where the admin API is.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Where the first listener is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listeners[0]
    }

    /// Where its listeners are, in the configuration's order.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.listeners
    }

    /// A client of the first listener.
    pub(crate) async fn client(&self) -> Client {
        Client::http1(self.address()).await
    }

    /// The state of everything, as the admin API reports it.
    pub(crate) async fn status(&self) -> Status {
        let answer = self.ask("/api/v1/status").await;
        serde_json::from_slice(&answer.body).expect("the status is what the library says it is")
    }

    /// The state of one endpoint of a backend.
    pub(crate) async fn endpoint(&self, backend: &str, address: SocketAddr) -> EndpointStatus {
        let backends = self.status().await.backends.into_iter();
        let endpoints = backends.filter(|found| found.name == backend);
        endpoints
            .flat_map(|backend| backend.endpoints)
            .find(|endpoint| endpoint.address == address.to_string())
            .expect("tests ask for endpoints they configured")
    }

    /// The state of one split.
    pub(crate) async fn split(&self, name: &str) -> SplitStatus {
        let splits = self.status().await.splits;
        splits
            .into_iter()
            .find(|split| split.name == name)
            .expect("tests ask for splits they configured")
    }

    /// A scrape.
    pub(crate) async fn metrics(&self) -> Metrics {
        let answer = self.ask("/metrics").await;
        Metrics::parse(&String::from_utf8_lossy(&answer.body))
    }

    /// Waits until the sum of a metric's samples with these labels is `value`.
    pub(crate) async fn counts(&self, value: f64, name: &str, labels: &[(&str, &str)]) {
        super::found(async || {
            let sum = self.metrics().await.sum(name, labels);
            match (sum - value).abs() < f64::EPSILON {
                true => Ok(()),
                false => Err(format!("{name}{labels:?} is {sum}, not {value}")),
            }
        })
        .await;
    }

    /// Waits until so many connections and requests were turned away for this reason.
    pub(crate) async fn refused(&self, reason: &str, count: f64) {
        let labels = [("reason", reason)];
        self.counts(count, "cutover_refused_total", &labels).await;
    }

    /// Asks the admin API for a change.
    pub(crate) async fn change(&self, path: &str, body: &str) -> Answer {
        let request = Request::post(path)
            .header("host", self.admin.to_string())
            .header("content-type", "application/json")
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .expect("tests write valid requests");
        Client::http1(self.admin).await.send(request).await
    }

    /// Replaces a file in its directory whole, as an editor does.
    pub(crate) fn rewrite(&self, name: &str, contents: impl AsRef<[u8]>) {
        let path = self.site.path();
        let draft = path.join("draft");
        std::fs::write(&draft, contents).expect("the directory is writable");
        std::fs::rename(&draft, path.join(name)).expect("the directory is writable");
    }

    /// Replaces the configuration, but for its beginning, and waits until it is in force.
    pub(crate) async fn reconfigure(&self, configuration: &str) {
        self.rewrite("cutover.yaml", self.site.text(configuration));
        let answer = self.change("/api/v1/reload", "{}").await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
    }

    /// To which arm a key of a split belongs, and why, as the admin API tells it.
    pub(crate) async fn explain(&self, split: &str, key: &str) -> Explanation {
        let escaped: String = key.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let path = format!("/api/v1/explain?split={split}&key={escaped}");
        let answer = self.ask(&path).await;
        serde_json::from_slice(&answer.body).expect("it is what the library says it is")
    }

    /// The most memory that the program has held so far, in bytes.
    pub(crate) fn peak_memory(&self) -> usize {
        self.memory_told("VmHWM:")
    }

    /// The memory that the program holds now, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.memory_told("VmRSS:")
    }

    /// How many files, sockets and the like the program has open.
    pub(crate) fn open_files(&self) -> usize {
        let path = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(path).expect("it is running").count()
    }

    fn memory_told(&self, name: &str) -> usize {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(path).expect("it is running");
        let told = text.lines().find_map(|line| line.strip_prefix(name));
        let kibibytes = told.and_then(|told| told.trim().strip_suffix(" kB"));
        let kibibytes = kibibytes.and_then(|number| number.parse::<usize>().ok());
        kibibytes.expect("the kernel says how much") * 1024
    }

    /// Runs the command line in this instance's directory, against it.
    pub(crate) async fn cutover(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
        command
            .args(words)
            .env("CUTOVER_ADMIN", format!("http://{}", self.admin))
            .current_dir(self.site.path());
        let running = tokio::task::spawn_blocking(move || command.output());
        let output = running.await.expect("waiting does not panic");
        output.expect("the binary was built for this test")
    }

    /// Sends a signal, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("sh")
            .arg("-c")
            .arg(format!("kill -{name} {}", self.child.id()))
            .status()
            .expect("there is a shell");
        assert!(status.success(), "signal {name} could not be sent");
    }

    /// Stops it where it is; it goes on with the signal `CONT`. A signal is sent before it has
    /// arrived, so this waits until none of its threads runs.
    pub(crate) async fn freeze(&self) {
        self.signal("STOP");
        let threads = format!("/proc/{}/task", self.child.id());
        eventually("every thread is stopped", async || {
            let threads = std::fs::read_dir(&threads).expect("it runs");
            threads.flatten().all(|thread| {
                let state = std::fs::read_to_string(thread.path().join("stat"));
                // Behind the name, which stands in brackets and may hold anything.
                state.is_ok_and(|state| {
                    let behind = state.rsplit_once(") ");
                    behind.is_some_and(|(_, state)| state.starts_with('T'))
                })
            })
        })
        .await;
    }

    /// Waits until the program has ended by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        super::ended(&mut self.child).await
    }

    /// Waits until it has written `part` this often.
    pub(crate) async fn says(&self, times: usize, part: &str) {
        let what = format!("it says {part} {times} times");
        eventually(&what, async || self.log().matches(part).count() == times).await;
    }

    /// From now on it may have this many files open.
    pub(crate) fn limit_open_files(&self, count: u64) {
        let process = i32::try_from(self.process()).ok().and_then(Pid::from_raw);
        let limit = Rlimit {
            current: Some(count),
            maximum: Some(count),
        };
        prlimit(process, Resource::Nofile, limit).expect("it is ours");
    }

    /// Everything it wrote so far.
    pub(crate) fn log(&self) -> String {
        lock(&self.log).clone()
    }

    /// Asks the admin API, without a token.
    pub(crate) async fn ask(&self, path: &str) -> Answer {
        let request = Request::get(path)
            .header("host", self.admin.to_string())
            .body(Full::new(Bytes::new()))
            .expect("tests write valid requests");
        Client::http1(self.admin).await.send(request).await
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of cutover\n{}---", self.log());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding this lock")
}

fn keep_lines(
    source: impl Read + Send + 'static,
    log: Arc<Mutex<String>>,
    notice: impl Fn(&str) + Send + 'static,
) {
    std::thread::spawn(move || {
        for line in BufReader::new(source).lines().map_while(Result::ok) {
            notice(&line);
            let mut log = lock(&log);
            log.push_str(&line);
            log.push('\n');
        }
    });
}

fn addresses(lines: &[String], announcement: &str) -> Vec<SocketAddr> {
    let announced = lines
        .iter()
        .filter_map(|line| line.strip_prefix(announcement));
    announced
        .filter_map(|url| url.split_once("://"))
        .map(|(_, address)| {
            address
                .parse()
                .expect("an announcement ends with an address")
        })
        .collect()
}

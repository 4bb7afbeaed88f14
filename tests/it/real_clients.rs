//! Clients that others wrote, each moving bodies both ways: what our own client forgives, one of
//! them may not.

use std::path::Path;
use std::process::Command;

use crate::harness::certificate::Certificate;
use crate::harness::proxy::{PLAIN_AND_TLS, Proxy, Site};
use crate::harness::upstream::{Received, Reply, Script, Upstream};

/// What is answered to everything: a little more than two HTTP/2 frames.
const ANSWER: usize = 40_000;

/// The bytes of which answers and requests are made; no two places near each other look alike.
fn bytes(length: usize) -> Vec<u8> {
    let letters = (0..length).map(|index| b"abcdefghijklmnopqrstuvwxyz0123456789+"[index % 37]);
    letters.collect()
}

/// A proxy with a listener in clear and one for TLS, a server that answers everything alike, and
/// files to send.
struct Scene {
    upstream: Upstream,
    proxy: Proxy,
}

impl Scene {
    async fn start(answer: usize) -> Self {
        let upstream = Upstream::start("api", move |_| {
            Script::answer(Reply::new(200).body(bytes(answer)))
        });
        let address = upstream.address();
        let configuration = format!(
            "backends: {{api: {{endpoints: ['{address}']}}}}\nroutes: [{{backend: api}}]\n"
        );
        let certificate = Certificate::new();
        let proxy = Site::new()
            .certified(&certificate)
            .start_on(PLAIN_AND_TLS, &configuration)
            .await;
        Self { upstream, proxy }
    }

    fn plain(&self, path: &str) -> String {
        format!("http://{}{path}", self.proxy.addresses()[0])
    }

    /// By name, since a certificate for an address is not every client's custom.
    fn secure(&self, path: &str) -> String {
        let port = self.proxy.addresses()[1].port();
        format!("https://localhost:{port}{path}")
    }

    fn site(&self) -> &Path {
        self.proxy.site().path()
    }

    /// Writes a file for a client to read, and says where.
    fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        let path = self.site().join(name);
        std::fs::write(&path, contents).expect("the directory is writable");
        path.display().to_string()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.site())
            .env("NODE_EXTRA_CA_CERTS", self.site().join("edge.pem"));
        command
    }

    /// The requests that arrived whole with this body.
    fn delivered(&self, body: &[u8]) -> usize {
        let is_delivered = |received: &Received| received.is_whole && received.body == body;
        self.upstream.count(is_delivered)
    }
}

/// What a client says that is content.
async fn said(mut command: Command, package: &str) -> String {
    let run = move || (command.output(), command);
    let (output, command) = tokio::task::spawn_blocking(run)
        .await
        .expect("it only waits");
    let output = output.unwrap_or_else(|error| {
        panic!(
            "{command:?} cannot be run ({error}): install the Debian package {package}, or run \
             ./test.sh, which does"
        )
    });
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn curl_moves_bodies_both_ways_in_each_protocol() {
    let scene = Scene::start(3_000_000).await;
    let upload = bytes(2_000_000);
    let file = scene.file("upload", &upload);
    for (index, (options, url, version)) in [
        (&["--http1.1"][..], scene.plain("/plain-1"), "1.1"),
        (&["--http2-prior-knowledge"], scene.plain("/plain-2"), "2"),
        (&["--http1.1"], scene.secure("/secure-1"), "1.1"),
        (&["--http2"], scene.secure("/secure-2"), "2"),
        // No length is told beforehand.
        (
            &["--http1.1", "-H", "Transfer-Encoding: chunked"],
            scene.plain("/chunked"),
            "1.1",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mut curl = scene.command("curl");
        curl.args(options)
            .args(["-sS", "--fail", "--cacert", "edge.pem", "-o", "download"])
            .args(["-w", "%{http_code} %{http_version}"])
            .args(["-H", "Content-Type: text/plain", "--data-binary"])
            .args([&format!("@{file}"), &url]);
        assert_eq!(said(curl, "curl").await, format!("200 {version}"), "{url}");
        let download = std::fs::read(scene.site().join("download")).expect("curl wrote it");
        assert!(download == bytes(3_000_000), "{url}");
        assert_eq!(scene.delivered(&upload), index + 1, "{url}");
    }
}

#[tokio::test]
async fn wrk_finds_no_wrong_answer() {
    let scene = Scene::start(ANSWER).await;
    let upload = bytes(2_000);
    let expected = scene.file("expected", bytes(ANSWER));
    let sent = scene.file("sent", &upload);
    // Each thread has a world of its own; `done` sums up what they counted.
    let script = scene.file(
        "check.lua",
        format!(
            r#"
local function read(name) local f = io.open(name, "rb"); local t = f:read("*a"); f:close(); return t end
local expected = read("{expected}")
local threads = {{}}
function setup(thread) table.insert(threads, thread) end
function init() right = 0; wrong = 0; wrk.method = "POST"; wrk.body = read("{sent}") end
function response(status, headers, body)
  if status == 200 and body == expected then right = right + 1 else wrong = wrong + 1 end
end
function done(summary)
  local right, wrong = 0, 0
  for _, thread in ipairs(threads) do
    right = right + thread:get("right"); wrong = wrong + thread:get("wrong")
  end
  local e = summary.errors
  local errors = e.connect + e.read + e.write + e.status + e.timeout
  io.write("right=" .. right .. " wrong=" .. wrong .. " errors=" .. errors .. "\n")
end
"#
        ),
    );
    let mut wrk = scene.command("wrk");
    wrk.args([
        "-t2",
        "-c16",
        "-d2s",
        "--timeout",
        "20s",
        "-s",
        &script,
        &scene.plain("/"),
    ]);
    let said = said(wrk, "wrk").await;
    let summary = said.lines().find_map(|line| line.strip_prefix("right="));
    let (right, rest) = summary.and_then(|line| line.split_once(' ')).expect(&said);
    assert_eq!(rest, "wrong=0 errors=0");
    let right: usize = right.parse().expect("wrk counts");
    assert!(right > 0 && scene.delivered(&upload) >= right, "{said}");
}

#[tokio::test]
async fn h2load_finds_every_request_answered_in_clear_and_under_tls() {
    const REQUESTS: usize = 1_000;
    let scene = Scene::start(ANSWER).await;
    let upload = bytes(20_000);
    let file = scene.file("upload", &upload);
    for (round, url) in [scene.plain("/"), scene.secure("/")].iter().enumerate() {
        let mut h2load = scene.command("h2load");
        h2load
            .args(["-n", &REQUESTS.to_string(), "-c4", "-m32", "-d", &file])
            .arg(url);
        let said = said(h2load, "nghttp2-client").await;
        let succeeded = format!("{REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout");
        assert!(said.contains(&succeeded), "{said}");
        assert!(
            said.contains(&format!("{REQUESTS} 2xx, 0 3xx, 0 4xx, 0 5xx")),
            "{said}"
        );
        let bytes = format!("({}) data", REQUESTS * ANSWER);
        assert!(said.contains(&bytes), "{said}");
        assert_eq!(scene.delivered(&upload), REQUESTS * (round + 1));
    }
}

#[tokio::test]
async fn fetch_of_node_moves_bodies_both_ways_whole_and_in_pieces() {
    let scene = Scene::start(ANSWER).await;
    let upload = bytes(100_000);
    scene.file("upload", &upload);
    scene.file("expected", bytes(ANSWER));
    let script = r#"
import { readFileSync } from 'node:fs';
const upload = readFileSync('upload'), expected = readFileSync('expected');
let right = 0;
async function one(url, options) {
  const answer = await fetch(url, options);
  const body = Buffer.from(await answer.arrayBuffer());
  if (answer.status !== 200 || !body.equals(expected)) throw new Error(url + ' ' + answer.status);
  right += 1;
}
const pieces = () => new ReadableStream({
  start(controller) {
    for (let at = 0; at < upload.length; at += 7000) {
      controller.enqueue(upload.subarray(at, at + 7000));
    }
    controller.close();
  },
});
for (const url of process.argv.slice(1)) {
  const round = [];
  for (let index = 0; index < 20; index += 1) {
    round.push(one(url));
    round.push(one(url, { method: 'POST', body: upload }));
    round.push(one(url, { method: 'PUT', body: pieces(), duplex: 'half' }));
  }
  await Promise.all(round);
  const left = new AbortController();
  const answer = await fetch(url, { signal: left.signal });
  await answer.body.getReader().read();
  left.abort();
  await one(url);
}
console.log('right=' + right);
"#;
    let mut node = scene.command("node");
    node.args(["--input-type=module", "-e", script])
        .args([scene.plain("/"), scene.secure("/")]);
    assert_eq!(said(node, "nodejs").await, "right=122\n");
    assert_eq!(scene.delivered(&upload), 80);
}

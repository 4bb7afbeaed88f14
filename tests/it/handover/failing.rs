//! Successors that do not come to serve: the old process goes on, and judges on.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::{ATTEMPTS, Heir, keyed, plain, relink};
use crate::harness::proxy::Site;
use crate::harness::upstream::{Gate, Reply, Script, Step, Upstream};
use crate::harness::{eventually, in_time, migration};

/// The version of what processes say to each other at a handover.
const VERSION: u8 = 2;

/// A process's side of a handover, spoken by the test.
struct Stranger(UnixStream);

impl Stranger {
    async fn knock(site: &Site) -> Self {
        let path = site.path().join("state/handover.sock");
        Self(UnixStream::connect(path).await.expect("somebody listens"))
    }

    async fn say(&mut self, text: &str) {
        let length = u32::try_from(text.len()).expect("it is short");
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
        self.0.write_all(&bytes).await.expect("the other listens");
    }

    async fn hear(&mut self) -> serde_json::Value {
        let hearing = async {
            assert_eq!(self.0.read_u8().await.expect("it answers"), VERSION);
            let length = self.0.read_u32().await.expect("it answers whole");
            let mut text = vec![0; length as usize];
            self.0
                .read_exact(&mut text)
                .await
                .expect("it answers whole");
            serde_json::from_slice(&text).expect("it is JSON")
        };
        in_time("the other says something", hearing).await
    }

    /// Asks, and takes no notice of the sockets, which the system then closes.
    async fn ask(&mut self) {
        self.say(r#"{"say": "ask", "version": "9.9.9"}"#).await;
        let sockets = self.hear().await;
        assert_eq!(sockets["say"], "sockets");
        let count = sockets["sockets"].as_array().expect("a list").len();
        for _ in 0..count {
            // One at a time: a read ends at a descriptor, which tokio takes for all there is.
            self.0.read_u8().await.expect("one for each");
        }
    }

    async fn be_released(&mut self) {
        self.say(r#"{"say": "ready"}"#).await;
        assert_eq!(self.hear().await["say"], "released");
    }

    /// Lets a process that has asked take over.
    async fn leave_to_it(&mut self) {
        self.say(r#"{"say": "sockets", "sockets": []}"#).await;
        assert_eq!(self.hear().await["say"], "ready");
        self.say(r#"{"say": "released"}"#).await;
        assert_eq!(self.hear().await["say"], "serving");
        self.say(r#"{"say": "yours"}"#).await;
    }
}

/// The site with the socket of a process that works there, which the test is to speak for.
fn worked_at(configuration: &str) -> (Site, UnixListener) {
    let site = Site::new();
    site.configure(configuration);
    let state = site.path().join("state");
    fs::create_dir_all(&state).expect("the directory is writable");
    let socket = UnixListener::bind(state.join("handover.sock")).expect("it is writable");
    (site, socket)
}

fn script(path: &Path, text: &str) {
    fs::write(path, text).expect("the directory is writable");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
}

#[tokio::test]
async fn a_successor_that_is_none_leaves_the_old_process_in_charge() {
    let upstream = Upstream::ok("api");
    let proxy = Site::new().linked().start(&plain(&upstream)).await;
    let hangs = proxy.site().path().join("hangs");
    script(&hangs, "#!/bin/sh\nexec sleep 600\n");
    let nonsense = proxy.site().path().join("nonsense");
    script(&nonsense, "no program");
    for (program, says) in [
        (Path::new("/bin/false"), "the new process ended at once"),
        (&nonsense, "cannot start"),
        (Path::new("/nowhere"), "cannot start"),
        (&hangs, "asked for nothing"),
    ] {
        relink(proxy.site(), program);
        let refused = proxy.cutover(&["upgrade"]).await;
        assert_eq!(refused.status.code(), Some(5), "{program:?}");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains(says), "{said}");
        assert_eq!(proxy.client().await.get("/still", "").await.status, 200);
        assert_eq!(proxy.status().await.process, proxy.process());
    }
    proxy
        .counts(4.0, "cutover_handovers_total", &[("result", "failed")])
        .await;
}

#[tokio::test]
async fn a_mistake_in_the_configuration_costs_nothing() {
    let upstream = Upstream::ok("api");
    let proxy = Site::new().linked().start(&plain(&upstream)).await;
    proxy.rewrite("cutover.yaml", "nonsense: [");
    let refused = proxy.cutover(&["upgrade"]).await;
    assert_eq!(refused.status.code(), Some(5));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("cutover.yaml:1:12: "), "{said}");
    assert!(said.contains("the new process ended at once"), "{said}");
    let logged = proxy.log();
    let logged = logged.lines().find(|line| line.contains("not replaced"));
    assert!(
        logged.is_some_and(|line| line.contains("cutover.yaml:1:12: ")),
        "{logged:?}"
    );
    assert_eq!(proxy.client().await.get("/still", "").await.status, 200);
    // The old one was never asked to let go.
    assert!(!proxy.log().contains("asks to take over"));
}

#[tokio::test]
async fn a_successor_that_dies_at_any_point_leaves_a_process_that_judges() {
    let legacy = Upstream::ok("legacy");
    let new = Upstream::start("new", |_| Script::status(500));
    let settings = "share: 50%, analysis: {hard_fail: 20}";
    let proxy = Site::new()
        .start(&migration(legacy.address(), new.address(), settings))
        .await;

    drop(Stranger::knock(proxy.site()).await);
    let mut silly = Stranger::knock(proxy.site()).await;
    silly.say(r#"{"say": "serving"}"#).await;
    let mut foreign = Stranger::knock(proxy.site()).await;
    foreign.0.write_all(&[9]).await.expect("it listens");
    assert_eq!(foreign.hear().await["say"], "refused");

    let mut asking = Stranger::knock(proxy.site()).await;
    asking.ask().await;
    drop(asking);

    let mut released = Stranger::knock(proxy.site()).await;
    released.ask().await;
    released.be_released().await;
    let order = proxy.change("/api/v1/reload", "{}").await;
    assert_eq!(order.status, 503, "nobody decides at the moment");
    assert_eq!(proxy.client().await.get("/", "").await.status, 200);
    drop(released);
    eventually("it decides again", async || {
        let order = proxy.change("/api/v1/reload", "{}").await;
        order.status == 200
    })
    .await;
    assert!(proxy.status().await.store_healthy);
    proxy
        .counts(2.0, "cutover_handovers_total", &[("result", "failed")])
        .await;

    let mut client = proxy.client().await;
    let key = keyed("50%", cutover::policy::arm::Arm::New);
    eventually("what fails is rolled back", async || {
        client.get("/", &key).await;
        proxy.split("api").await.share == "0%"
    })
    .await;
}

#[tokio::test]
async fn a_successor_that_hangs_with_the_sockets_in_its_hands_is_not_waited_for() {
    let upstream = Upstream::ok("api");
    let proxy = Site::new().start(&plain(&upstream)).await;
    let mut hanging = Stranger::knock(proxy.site()).await;
    hanging.ask().await;
    hanging.be_released().await;
    assert_eq!(proxy.client().await.get("/", "").await.status, 200);
    proxy.says(1, "not replaced; this process goes on").await;
    let answer = proxy.change("/api/v1/reload", "{}").await;
    assert_eq!(answer.status, 200, "it decides again");
}

#[tokio::test]
async fn who_is_asked_to_stop_during_a_handover_leaves_no_successor_behind() {
    let upstream = Upstream::ok("api");
    let mut proxy = Site::new().linked().start(&plain(&upstream)).await;
    let hangs = proxy.site().path().join("hangs");
    let number = proxy.site().path().join("number");
    let text = format!(
        "#!/bin/sh\necho $$ > {}\nexec sleep 600\n",
        number.display()
    );
    script(&hangs, &text);
    relink(proxy.site(), &hangs);
    proxy.signal("USR2");
    let mut started = String::new();
    eventually("a successor is started", async || {
        started = fs::read_to_string(&number).unwrap_or_default();
        started.ends_with('\n')
    })
    .await;
    // Whoever knocks first is meant.
    let mut released = Stranger::knock(proxy.site()).await;
    released.ask().await;
    released.be_released().await;
    proxy.signal("TERM");
    let told = released.hear().await;
    assert_eq!(told["say"], "refused", "{told}");
    assert_eq!(proxy.ended().await.code(), Some(0));
    let process = Path::new("/proc").join(started.trim());
    assert!(!process.exists(), "what was started has ended");
    relink(proxy.site(), env!("CARGO_BIN_EXE_cutover"));
    let proxy = proxy.kill().start(&plain(&upstream)).await;
    assert!(proxy.status().await.store_healthy);
}

#[tokio::test]
async fn a_successor_that_is_refused_at_the_last_moment_has_decided_nothing() {
    let (legacy, new) = (Upstream::ok("legacy"), Upstream::ok("new"));
    let configuration = |settings: &str| {
        migration(
            legacy.address(),
            new.address(),
            &format!("share: 50%, {settings}"),
        )
    };
    let before = "rollback: off, rollout: {id: first}";
    let proxy = Site::new().start(&configuration(before)).await;
    let rolled_back = proxy.cutover(&["rollback", "api", "--reason", "r"]).await;
    assert!(rolled_back.status.success(), "{rolled_back:?}");
    let decided = proxy.split("api").await.revision;
    let site = proxy.kill();
    site.configure(&configuration("rollback: off, rollout: {id: second}"));
    let path = site.path().join("state/handover.sock");
    fs::remove_file(&path).expect("a killed process leaves it behind");
    let socket = UnixListener::bind(path).expect("it is writable");
    let refusing = tokio::spawn(async move {
        let (stream, _) = socket.accept().await.expect("somebody asks");
        let mut asking = Stranger(stream);
        asking.hear().await;
        asking.say(r#"{"say": "sockets", "sockets": []}"#).await;
        assert_eq!(asking.hear().await["say"], "ready");
        asking.say(r#"{"say": "released"}"#).await;
        assert_eq!(asking.hear().await["say"], "serving");
        let no = r#"{"say": "refused", "because": "it is too late"}"#;
        asking.say(no).await;
        socket
    });
    let refused = site.refusal(&["--take-over"]).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("it is too late"), "{said}");
    refusing.await.expect("the test's side does not panic");
    let proxy = site.start(&configuration(before)).await;
    assert_eq!(proxy.split("api").await.revision, decided);
}

#[tokio::test]
async fn a_successor_whose_predecessor_dies_on_the_way_starts_all_the_same() {
    let upstream = Upstream::ok("api");
    for point in ["asked", "gave its sockets", "released"] {
        let (site, socket) = worked_at(&plain(&upstream));
        let dying = tokio::spawn(async move {
            let (stream, _) = socket.accept().await.expect("somebody asks");
            let mut asking = Stranger(stream);
            asking.hear().await;
            if point == "asked" {
                // It closes with the process.
                return drop(socket);
            }
            asking.say(r#"{"say": "sockets", "sockets": []}"#).await;
            assert_eq!(asking.hear().await["say"], "ready");
            if point == "released" {
                asking.say(r#"{"say": "released"}"#).await;
                assert_eq!(asking.hear().await["say"], "serving");
            }
            drop(socket);
        });
        let proxy = site.launch(&["--take-over"]).await;
        dying.await.expect("the test's side does not panic");
        assert_eq!(
            proxy.client().await.get("/", "").await.status,
            200,
            "{point}"
        );
    }
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_is_said_and_costs_only_the_upgrade() {
    let upstream = Upstream::ok("api");
    let deep = "d".repeat(120);
    let beginning = format!(
        "listeners: [{{address: 127.0.0.1:0}}]\nadmin: {{address: 127.0.0.1:0}}\nstate: \
         {{directory: {deep}}}\n"
    );
    let site = Site::new().beginning(&beginning);
    let proxy = site.start(&plain(&upstream)).await;
    proxy.says(1, "no socket for a successor").await;
    let refused = proxy.cutover(&["upgrade"]).await;
    assert_eq!(refused.status.code(), Some(5));
    assert_eq!(proxy.client().await.get("/", "").await.status, 200);
}

#[tokio::test]
async fn a_process_that_takes_over_from_nobody_starts_as_usual() {
    let upstream = Upstream::ok("api");
    let site = Site::new();
    site.configure(&plain(&upstream));
    let proxy = site.launch(&["--take-over"]).await;
    // A killed process leaves its socket behind.
    let proxy = proxy.kill().launch(&["--take-over"]).await;
    assert_eq!(proxy.client().await.get("/", "").await.status, 200);
    let heir = {
        proxy.signal("USR2");
        Heir::of(&proxy, proxy.process()).await
    };
    drop(heir);
}

#[tokio::test]
async fn a_successor_that_cannot_listen_says_why_to_whoever_upgrades() {
    let upstream = Upstream::ok("api");
    let proxy = Site::new().linked().start(&plain(&upstream)).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("there are ports");
    let taken = taken.local_addr().expect("it is bound").to_string();
    let file = proxy.site().configuration_path();
    let written = fs::read_to_string(&file).expect("it is there");
    let moved = written.replacen("127.0.0.1:0", &taken, 1);
    assert_ne!(written, moved);
    fs::write(&file, moved).expect("it is writable");
    let refused = proxy.cutover(&["upgrade"]).await;
    assert_eq!(refused.status.code(), Some(5));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("does not take over: "), "{said}");
    assert!(said.contains(&taken), "{said}");
    assert!(said.contains("Address already in use"), "{said}");
    assert_eq!(proxy.client().await.get("/still", "").await.status, 200);
}

#[tokio::test]
async fn what_protects_takes_a_handover_back_that_takes_too_long() {
    let (legacy, new) = (Upstream::ok("legacy"), Upstream::ok("new"));
    let settings = "share: 50%, rollback: off";
    let proxy = Site::new()
        .start(&migration(legacy.address(), new.address(), settings))
        .await;
    let key = keyed("50%", cutover::policy::arm::Arm::New);
    let mut slow = Stranger::knock(proxy.site()).await;
    slow.ask().await;
    slow.be_released().await;
    let raised = proxy
        .change(
            "/api/v1/splits/api/share",
            r#"{"share": "60%", "override": true}"#,
        )
        .await;
    assert_eq!(raised.status, 503, "a raise can wait");
    let order = proxy
        .change(
            "/api/v1/splits/api/share",
            r#"{"share": "0%", "override": true}"#,
        )
        .await;
    assert_eq!(order.status, 200, "{:?}", order.body);
    let refused = slow.hear().await;
    assert_eq!(refused["say"], "refused");
    let answer = proxy.client().await.get("/", &key).await;
    assert_eq!(answer.served_by(), Some("legacy"));
    assert!(proxy.status().await.store_healthy);
    proxy
        .counts(1.0, "cutover_handovers_total", &[("result", "failed")])
        .await;
}

#[tokio::test]
async fn releases_that_do_not_understand_each_other_say_so_and_the_old_one_goes_on() {
    let upstream = Upstream::ok("api");
    let proxy = Site::new().start(&plain(&upstream)).await;
    let mut older = Stranger::knock(proxy.site()).await;
    older.0.write_all(&[1]).await.expect("it listens");
    let refused = older.hear().await.to_string();
    assert!(
        refused.contains("speaks version 1 of the handover, and this one 2: stop it"),
        "{refused}"
    );
    assert_eq!(proxy.client().await.get("/still", "").await.status, 200);

    let (site, socket) = worked_at(&plain(&upstream));
    let older = tokio::spawn(async move {
        let (mut stream, _) = socket.accept().await.expect("somebody asks");
        stream.read_u8().await.expect("it asks");
        stream.write_all(&[1]).await.expect("it listens");
        (socket, stream)
    });
    let refused = site.refusal(&["--take-over"]).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains("speaks version 1 of the handover, and this one 2: stop it"),
        "{said}"
    );
    older.await.expect("the test's side does not panic");
}

#[tokio::test]
async fn an_old_process_that_hangs_up_and_lives_on_is_not_said_to_obey() {
    let upstream = Upstream::ok("api");
    let (site, socket) = worked_at(&plain(&upstream));
    let hanging_up = tokio::spawn(async move {
        let (stream, _) = socket.accept().await.expect("somebody asks");
        let mut asking = Stranger(stream);
        asking.hear().await;
        asking.leave_to_it().await;
        assert_eq!(asking.hear().await["say"], "obey");
    });
    let proxy = site.launch(&["--take-over"]).await;
    hanging_up.await.expect("the test's side does not panic");
    let denied = proxy
        .cutover(&["deny", "192.0.2.1", "--reason", "a flood"])
        .await;
    assert!(denied.status.success(), "{denied:?}");
    let said = String::from_utf8_lossy(&denied.stdout).into_owned();
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    // This process is the one that it has relieved.
    let unconfirmed = format!("but the old process {}", std::process::id());
    assert!(said.contains(&unconfirmed), "{said}");
}

#[tokio::test]
async fn an_old_process_that_does_not_understand_says_so_and_does_not_seem_to_have_ended() {
    let gate = Gate::new();
    let waiting = gate.clone();
    let upstream = Upstream::start("api", move |_| {
        Script::of([Step::Wait(waiting.clone()), Step::Answer(Reply::new(200))])
    });
    let mut proxy = Site::new().start(&plain(&upstream)).await;
    let mut kept = proxy.client().await;
    let kept = tokio::spawn(async move { kept.get("/slow", "").await.status });
    upstream.has_received("/slow").await;
    let mut heir = Stranger::knock(proxy.site()).await;
    heir.ask().await;
    heir.be_released().await;
    heir.say(r#"{"say": "serving"}"#).await;
    assert_eq!(heir.hear().await["say"], "yours");
    heir.say(r#"{"say": "obey", "ceilings": "none"}"#).await;
    proxy.says(1, "the successor is obeyed no more").await;
    let closed = heir.0.try_read(&mut [0]);
    let still_open = closed.expect_err("nothing is said, and nothing closed");
    assert_eq!(still_open.kind(), std::io::ErrorKind::WouldBlock);
    gate.open();
    assert_eq!(kept.await.expect("the client does not panic"), 200);
    assert_eq!(proxy.ended().await.code(), Some(0));
}

#[tokio::test]
async fn the_old_process_judges_on_before_the_new_one_has_said_its_last_words() {
    let upstream = Upstream::ok("api");
    for _ in 0..ATTEMPTS {
        let proxy = Site::new().linked().start(&plain(&upstream)).await;
        let hangs = proxy.site().path().join("hangs");
        script(&hangs, "#!/bin/sh\nexec sleep 600\n");
        relink(proxy.site(), &hangs);
        proxy.signal("USR2");
        proxy.says(1, "a successor is started").await;
        // Whoever knocks first is meant.
        let mut released = Stranger::knock(proxy.site()).await;
        released.ask().await;
        released.be_released().await;
        drop(released);
        eventually("it decides again", async || {
            let order = proxy.change("/api/v1/reload", "{}").await;
            order.status == 200
        })
        .await;
        // What it has started is still given time to say why.
        if !proxy.log().contains("not replaced") {
            return;
        }
    }
    panic!("it decides only when the new process has ended");
}

//! What becomes of lines that nobody waits for.

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn settings(path: &Path, buffer: usize) -> model::AccessLog {
    model::AccessLog {
        destination: LogDestination::File(path.to_owned()),
        format: LogFormat::Combined,
        buffer,
    }
}

fn write(scribe: &Scribe, target: &str, count: usize) {
    let target = target.parse().expect("a target");
    for _ in 0..count {
        scribe.write(LogFormat::Combined, &Line::bare(&target));
    }
}

fn lines(path: &Path) -> usize {
    let text = std::fs::read_to_string(path).expect("a file");
    text.lines().count()
}

#[test]
fn every_line_is_written_and_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("access.log");
    let log = AccessLog::start().expect("a thread");
    log.output(Some(
        Output::open(&settings(&path, 1 << 20)).expect("opened"),
    ));
    let scribe = log.scribe();
    write(&scribe, "/a", 1000);
    scribe.hand_on();
    log.flush(PATIENCE);
    assert_eq!(lines(&path), 1000);
    let expected = LogReading {
        written: 1000,
        dropped: 0,
    };
    assert_eq!(log.reading(), expected);
}

#[test]
fn what_does_not_fit_is_dropped_and_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("access.log");
    let log = AccessLog::start().expect("a thread");
    log.output(Some(Output::open(&settings(&path, 10)).expect("opened")));
    let scribe = log.scribe();
    write(&scribe, "/a", 7);
    scribe.hand_on();
    log.flush(PATIENCE);
    assert_eq!(lines(&path), 0);
    assert_eq!(log.reading().dropped, 7);
}

#[test]
fn a_disk_that_refuses_costs_lines_and_nothing_else() {
    let log = AccessLog::start().expect("a thread");
    let full = settings(Path::new("/dev/full"), 1 << 20);
    log.output(Some(Output::open(&full).expect("opened")));
    let scribe = log.scribe();
    write(&scribe, "/a", 3);
    scribe.hand_on();
    log.flush(PATIENCE);
    assert_eq!(log.reading().dropped, 3);
}

#[test]
fn after_a_rotation_lines_go_to_the_new_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("access.log");
    let rotated = directory.path().join("access.log.1");
    let log = AccessLog::start().expect("a thread");
    log.output(Some(
        Output::open(&settings(&path, 1 << 20)).expect("opened"),
    ));
    let scribe = log.scribe();
    write(&scribe, "/a", 2);
    scribe.hand_on();
    log.flush(PATIENCE);
    std::fs::rename(&path, &rotated).expect("renamed");
    log.reopen();
    write(&scribe, "/b", 3);
    drop(scribe);
    log.flush(PATIENCE);
    assert_eq!((lines(&rotated), lines(&path)), (2, 3));
}

#[test]
fn a_pipe_that_nobody_reads_keeps_nobody() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.expect("mkfifo is there").success());
    let refused = Output::open(&settings(&path, 1 << 20)).expect_err("nobody reads");
    assert!(refused.contains("nothing answers"), "{refused}");
}

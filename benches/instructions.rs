//! How many instructions each piece takes, and whether they are more than they were.
//!
//! Clocks differ from minute to minute on a machine that is shared; instructions hardly differ at
//! all. They say nothing about caches, branches or the kernel, so time is measured beside them
//! (`time.rs`); but they show a change of a few percent that no clock shows, and in which function.
//!
//! `cargo bench --bench instructions` compares with benches/instructions.txt and fails where a piece
//! takes more than it may; with `-- --accept` it writes that file anew. Needs valgrind.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use self::pieces::{Payer, Piece};

mod pieces;

/// What a piece may take more than the stored figure. Figures of one build differ by less than a
/// tenth of this, those of two builds of the same code by what the compiler lays out differently.
const TOLERANCE: f64 = 0.03;
/// Parts of a piece: their names, and the functions that stand for them in its profile.
const PARTS: [(&str, &str, &str); 4] = [
    (
        "GET of 1 KiB",
        "read the request's head",
        "cutover::server::http1::head::parse",
    ),
    (
        "GET of 1 KiB",
        "write the request's head",
        "cutover::proxy::headers::write_request",
    ),
    (
        "GET of 1 KiB",
        "read the answer's head",
        "cutover::upstream::http1::response::parse",
    ),
    (
        "GET of 1 KiB",
        "write the answer's head",
        "cutover::server::http1::answer::write_head",
    ),
];
/// Runs before those that are counted: buffers have grown, connections are open.
const FIRST: u32 = 100;
/// Runs that are counted.
const COUNTED: u32 = 100;

fn main() -> ExitCode {
    // Cargo adds this one.
    let arguments = env::args().skip(1).filter(|argument| argument != "--bench");
    let arguments: Vec<String> = arguments.collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--run", name] => run(name),
        ["--accept"] => accept(),
        [] => compare(),
        _ => Err("nothing, or --accept, may stand behind `--`".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// The pieces that are counted.
fn counted_pieces() -> impl Iterator<Item = Piece> {
    pieces::ALL
        .into_iter()
        .filter(|piece| piece.payer == Payer::Request)
}

/// Runs a piece, for valgrind to look at.
fn run(name: &str) -> Result<(), String> {
    let piece = counted_pieces().find(|piece| piece.name == name);
    let piece = piece.ok_or_else(|| format!("there is no piece `{name}`"))?;
    let mut prepared = (piece.prepare)();
    for _ in 0..FIRST {
        prepared();
    }
    counted(&mut prepared);
    Ok(())
}

/// What valgrind counts, found by its name.
#[inline(never)]
fn counted(piece: &mut dyn FnMut()) {
    for _ in 0..COUNTED {
        piece();
    }
}

/// Instructions of one run of a piece, and of its parts.
fn count(piece: Piece) -> Result<Vec<(String, u64)>, String> {
    let profile = profile(piece)?;
    let total = profile
        .lines()
        .find_map(|line| line.strip_prefix("totals:"));
    let total = total.and_then(|total| total.trim().parse().ok());
    let mut figures = vec![(piece.name.to_owned(), total.unwrap_or(0))];
    for (_, part, function) in PARTS.iter().filter(|(whole, ..)| *whole == piece.name) {
        let name = format!("{}: {part}", piece.name);
        figures.push((name, within(&profile, function)));
    }
    for (name, figure) in &mut figures {
        if *figure == 0 {
            return Err(format!(
                "{name}: nothing was counted; has a function another name, or none?"
            ));
        }
        *figure /= u64::from(COUNTED);
    }
    Ok(figures)
}

/// Which functions the instructions of a piece belong to, as valgrind tells it.
fn profile(piece: Piece) -> Result<String, String> {
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let path = path_of_profile(piece);
    let counting = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no"])
        .arg("--toggle-collect=instructions::counted*")
        .arg(format!("--callgrind-out-file={}", path.display()))
        .arg(program)
        .args(["--run", piece.name])
        .stdin(Stdio::null())
        .output();
    let counting = counting.map_err(|error| {
        format!("valgrind cannot be run ({error}); on Debian: apt-get install valgrind")
    })?;
    if !counting.status.success() {
        let said = String::from_utf8_lossy(&counting.stderr);
        return Err(format!("{}: {said}", piece.name));
    }
    fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Instructions of a function and of all that it calls.
///
/// A name is written out where it stands first, behind a number in brackets that stands for it from
/// then on. What a call costs stands in the line behind it.
fn within(profile: &str, function: &str) -> u64 {
    let mut number = None;
    let mut is_called = false;
    let mut instructions = 0;
    let mut lines = profile.lines();
    while let Some(line) = lines.next() {
        if let Some((kind @ ("fn" | "cfn"), who)) = line.split_once('=') {
            let (this, name) = who.split_once(' ').unwrap_or((who, ""));
            if name == function {
                number = Some(this);
            }
            is_called = kind == "cfn" && number == Some(this);
        } else if line.starts_with("calls=") {
            let cost = lines.next().and_then(|line| line.split(' ').next_back());
            if is_called {
                instructions += cost.and_then(|cost| cost.parse::<u64>().ok()).unwrap_or(0);
            }
        }
    }
    instructions
}

/// Where the profile of a piece lies.
fn path_of_profile(piece: Piece) -> PathBuf {
    let name = piece.name.replace([' ', ','], "-");
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("callgrind.{name}"))
}

/// What was accepted, and what it was counted with.
struct Baseline {
    tools: String,
    figures: BTreeMap<String, u64>,
}

impl Baseline {
    fn path() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.txt")
    }

    fn read() -> Result<Self, String> {
        let path = Self::path();
        let text = fs::read_to_string(&path);
        let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
        let mut lines = text.lines();
        let tools = lines.next().unwrap_or_default().to_owned();
        let figures = lines.map(|line| {
            let (figure, name) = line.trim().split_once(' ')?;
            Some((name.to_owned(), figure.parse().ok()?))
        });
        let figures = figures.collect::<Option<_>>();
        let figures = figures.ok_or_else(|| format!("{}: cannot be read", path.display()))?;
        Ok(Self { tools, figures })
    }
}

/// What the figures depend on besides the code.
fn tools() -> Result<String, String> {
    let said = |program: &str| {
        let output = Command::new(program).arg("--version").output();
        let output = output.map_err(|error| format!("{program} cannot be run: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok::<_, String>(text.trim().to_owned())
    };
    let architecture = env::consts::ARCH;
    Ok(format!(
        "{}, {}, {architecture}",
        said("rustc")?,
        said("valgrind")?
    ))
}

fn accept() -> Result<(), String> {
    let mut text = format!("{}\n", tools()?);
    for piece in counted_pieces() {
        for (name, figure) in count(piece)? {
            println!("{figure:>9} {name}");
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{figure:>9} {name}");
        }
    }
    fs::write(Baseline::path(), text).map_err(|error| error.to_string())
}

fn compare() -> Result<(), String> {
    let baseline = Baseline::read()?;
    let tools = tools()?;
    if tools != baseline.tools {
        return Err(format!(
            "the stored figures were counted with other tools, and cannot be compared:\n\
             stored: {}\n  here: {tools}\n\
             have the older commit counted with these tools first: -- --accept",
            baseline.tools
        ));
    }
    let mut more = Vec::new();
    println!("   before       now  change");
    for piece in counted_pieces() {
        for (name, now) in count(piece)? {
            let Some(&before) = baseline.figures.get(&name) else {
                println!("        - {now:>9}         {name}");
                more.push(name);
                continue;
            };
            let change = now as f64 / before as f64 - 1.0;
            println!("{before:>9} {now:>9} {:>+6.1}% {name}", change * 100.0);
            if change > TOLERANCE {
                more.push(name);
            }
        }
    }
    if more.is_empty() {
        return Ok(());
    }
    Err(format!(
        "more than benches/instructions.txt has, by over {:.0} %: {}\n\
         callgrind_annotate tells where: {}/callgrind.*\n\
         if it is worth it: cargo bench --bench instructions -- --accept",
        TOLERANCE * 100.0,
        more.join(", "),
        env!("CARGO_TARGET_TMPDIR")
    ))
}

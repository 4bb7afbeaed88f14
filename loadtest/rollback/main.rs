//! How long a dead `new` is asked: from the first failed attempt to the first answer that shows
//! share 0, many times over, with the real program between real sockets.
//!
//! The promise is 300 ms at 100 requests/s to `new`. Both ends of the span are taken where it looks
//! worst: it begins when the first request that failed on `new` was *sent* by its client, and ends
//! when the first answer that shows share 0 has *arrived*. So it holds the time of two requests and
//! the pause between them as well.
//!
//! `cargo build --release && cargo run --release --example rollback -- --runs 50`

mod arm;
mod callers;
mod proxy;
mod run;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use self::arm::Death;
use self::proxy::Proxy;
use self::run::Run;

/// Whatever keeps a measurement from being made. Nothing here is caught to be acted upon.
type Impossible = Box<dyn std::error::Error + Send + Sync>;

/// Measures how long a dead `new` is asked, at 100 requests/s to it.
#[derive(Parser)]
struct Arguments {
    /// How often `new` dies, for each way to die
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,

    /// Seconds of healthy traffic before the size of what is kept is looked at; 0 skips it
    #[arg(long, default_value_t = 60)]
    state_after: u64,

    /// Write every run to loadtest/results as JSON
    #[arg(long)]
    output: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let measured = runtime
        .map_err(Impossible::from)
        .and_then(|runtime| runtime.block_on(measure(&arguments)));
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rollback: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(arguments: &Arguments) -> Result<(), Impossible> {
    let machine = table::Machine::look()?;
    println!("{machine}\n");
    let mut runs = Vec::new();
    for death in Death::ALL {
        for number in 0..arguments.runs {
            let run = Run::make(death, number).await?;
            eprintln!("{} {}: {run}", death.as_str(), number + 1);
            runs.push(run);
        }
    }
    print!("{}", table::of_runs(&runs));
    let kept = match arguments.state_after {
        0 => None,
        seconds => Some(run::kept_after(Duration::from_secs(seconds)).await?),
    };
    if let Some(kept) = &kept {
        println!("\n{kept}");
    }
    if arguments.output {
        println!(
            "\n{}",
            table::write(&machine, &runs, kept.as_ref())?.display()
        );
    }
    Ok(())
}

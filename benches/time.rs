//! How long each piece takes.
//!
//! `cargo bench --bench time`, or with a part of a piece's name behind `--`.

use criterion::Criterion;

mod pieces;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for piece in pieces::ALL {
        let group = match piece.payer {
            pieces::Payer::Request => "a request's",
            pieces::Payer::Control => "the control plane's",
        };
        // Not before it is known that it is asked for, and once for all samples.
        let mut prepared = None;
        criterion.bench_function(&format!("{group}/{}", piece.name), |bencher| {
            bencher.iter(prepared.get_or_insert_with(piece.prepare));
        });
    }
    criterion.final_summary();
}

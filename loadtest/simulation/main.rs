//! The long run: every promise of the judge, in a table.
//!
//! `cargo run --release --example simulation` takes minutes and prints Markdown; `-- cost` prints
//! only what one judgement costs. Seeds are fixed, so two runs of one build print the same table,
//! costs apart.

mod cost;
mod model;
mod table;

fn main() {
    if std::env::args().nth(1).as_deref() != Some("cost") {
        table::print();
    }
    cost::print();
}

//! What is measured, piece by piece.
//!
//! Time and instructions are taken of the same pieces, so that a figure of one kind can be explained
//! by the other. A piece is prepared once and then run again and again: whatever a process does only
//! once (reading a configuration, opening connections, growing buffers) belongs to no figure.

mod control;
mod decisions;
mod exchange;
mod heads;

use self::exchange::Stand;

/// Something that is done again and again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    /// What is done.
    pub(crate) name: &'static str,
    /// Who pays for it.
    pub(crate) payer: Payer,
    /// Makes everything ready. What it returns does the piece once.
    pub(crate) prepare: fn() -> Box<dyn FnMut()>,
}

/// Who pays for a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payer {
    /// Each request.
    Request,
    /// The control plane.
    Control,
}

/// All pieces.
pub(crate) const ALL: [Piece; 14] = [
    Piece {
        name: "assign",
        payer: Payer::Request,
        prepare: decisions::assign,
    },
    Piece {
        name: "route among 10",
        payer: Payer::Request,
        prepare: || decisions::route(10),
    },
    Piece {
        name: "route among 10,000",
        payer: Payer::Request,
        prepare: || decisions::route(10_000),
    },
    Piece {
        name: "record",
        payer: Payer::Request,
        prepare: decisions::record,
    },
    Piece {
        name: "rewrite a head",
        payer: Payer::Request,
        prepare: heads::rewrite,
    },
    Piece {
        name: "read an answer's head",
        payer: Payer::Request,
        prepare: heads::read_answer,
    },
    Piece {
        name: "GET without cutover",
        payer: Payer::Request,
        prepare: || asking(Stand::direct(exchange::get())),
    },
    Piece {
        name: "GET of 1 KiB",
        payer: Payer::Request,
        prepare: || asking(Stand::proxied(exchange::get())),
    },
    Piece {
        name: "POST of 4 KiB",
        payer: Payer::Request,
        prepare: || asking(Stand::proxied(exchange::post())),
    },
    Piece {
        name: "judge a window",
        payer: Payer::Control,
        prepare: control::judge,
    },
    Piece {
        name: "tick of 1,000 silent splits",
        payer: Payer::Control,
        prepare: control::tick_over_silence,
    },
    Piece {
        name: "tick of 1,000 splits to judge",
        payer: Payer::Control,
        prepare: control::tick_with_verdicts,
    },
    Piece {
        name: "reload of production.yaml",
        payer: Payer::Control,
        prepare: control::reload_of_production,
    },
    Piece {
        name: "reload of 1,000 splits",
        payer: Payer::Control,
        prepare: control::reload_of_many_splits,
    },
];

fn asking(mut stand: Stand) -> Box<dyn FnMut()> {
    Box::new(move || stand.ask())
}

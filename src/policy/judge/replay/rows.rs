//! Rows of a trace, and the windows that they stand for.
//!
//! A column that nobody reads would silently change what is judged, so unknown ones are refused.

use serde::Deserialize;
use serde_json::Value;

use super::config::Setting;
use crate::policy::arm::PerArm;
use crate::policy::judge::Mark;
use crate::policy::judge::window::{ArmCounts, Clustered, Pair, StreakReading, Window};
use crate::policy::key::Cluster;
use crate::policy::time::Timestamp;

/// What one row says.
pub(super) struct Row {
    /// When the window ended, where that is written down.
    pub(super) at: Option<Timestamp>,
    /// What was done to the judge before the window.
    pub(super) marks: Vec<Mark>,
    /// Whether the window was judged, or only learnt from.
    pub(super) is_judged: bool,
    pub(super) window: Window,
}

/// Reads the rows of one trace.
pub(super) struct Reader<'a> {
    columns: Vec<Column>,
    setting: &'a Setting,
}

/// What a cell holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    At,
    Marks,
    Judged,
    /// A whole window.
    Window,
    Seconds,
    Requests(Side),
    Errors(Side),
    ClientErrors(Side),
    /// Slower than the limit that rolls back.
    SlowForRollback(Side),
    /// Slower than the limit of the advance.
    SlowForAdvance(Side),
    /// Slower than legacy's quantile, in hundredths.
    Slower(Side, u8),
    ErrorClusters,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Legacy,
    New,
}

impl Column {
    fn named(name: &str) -> Option<Column> {
        Some(match name {
            "at" => Column::At,
            "marks" => Column::Marks,
            "judged" => Column::Judged,
            "window" => Column::Window,
            "seconds" => Column::Seconds,
            "n_new" => Column::Requests(Side::New),
            "n_legacy" => Column::Requests(Side::Legacy),
            "err_new" => Column::Errors(Side::New),
            "err_legacy" => Column::Errors(Side::Legacy),
            "client_err_new" => Column::ClientErrors(Side::New),
            "client_err_legacy" => Column::ClientErrors(Side::Legacy),
            "slow_new_rollback" => Column::SlowForRollback(Side::New),
            "slow_legacy_rollback" => Column::SlowForRollback(Side::Legacy),
            "slow_new_advance" => Column::SlowForAdvance(Side::New),
            "slow_legacy_advance" => Column::SlowForAdvance(Side::Legacy),
            "new_error_clusters" => Column::ErrorClusters,
            _ => {
                let (side, quantile) = match name.strip_prefix("slow_new_q") {
                    Some(quantile) => (Side::New, quantile),
                    None => (Side::Legacy, name.strip_prefix("slow_legacy_q")?),
                };
                Column::Slower(side, quantile.parse().ok()?)
            }
        })
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(names: &[String], setting: &'a Setting) -> Result<Self, String> {
        let columns = names
            .iter()
            .map(|name| Column::named(name).ok_or_else(|| format!("no column is called `{name}`")));
        let columns: Vec<Column> = columns.collect::<Result<_, _>>()?;
        if !columns.contains(&Column::Window) && !columns.contains(&Column::Requests(Side::New)) {
            return Err("neither `window` nor `n_new` is among the columns".to_owned());
        }
        Ok(Self { columns, setting })
    }

    pub(super) fn read(&self, cells: &[Value]) -> Result<Row, String> {
        if cells.len() != self.columns.len() {
            let (cells, columns) = (cells.len(), self.columns.len());
            return Err(format!("{cells} cells for {columns} columns"));
        }
        let (mut at, mut marks, mut is_judged) = (None, Vec::new(), true);
        let mut whole = None;
        let mut counts = Flat::default();
        for (column, cell) in self.columns.iter().zip(cells) {
            match column {
                Column::At => at = Some(parsed(cell)?),
                Column::Marks => marks = parsed(cell)?,
                Column::Judged => is_judged = parsed(cell)?,
                Column::Window => whole = Some(parsed(cell)?),
                _ => counts.take(*column, cell)?,
            }
        }
        Ok(Row {
            at,
            marks,
            is_judged,
            window: match whole {
                Some(window) => window,
                None => counts.window(self.setting)?,
            },
        })
    }
}

fn parsed<T: for<'de> Deserialize<'de>>(cell: &Value) -> Result<T, String> {
    T::deserialize(cell).map_err(|error| error.to_string())
}

/// The counts of a row of numbers.
#[derive(Default)]
struct Flat {
    seconds: Option<f64>,
    new: FlatArm,
    legacy: FlatArm,
    error_clusters: Vec<usize>,
}

#[derive(Default)]
struct FlatArm {
    requests: u64,
    errors: u64,
    client_errors: u64,
    slow_for_rollback: Option<u64>,
    slow_for_advance: Option<u64>,
    slower: Vec<(u8, u64)>,
}

impl Flat {
    fn take(&mut self, column: Column, cell: &Value) -> Result<(), String> {
        match column {
            Column::At | Column::Marks | Column::Judged | Column::Window => {}
            Column::Seconds => {
                let seconds: f64 = parsed(cell)?;
                if !(seconds > 0.0 && seconds.is_finite()) {
                    return Err(format!("a window cannot last {seconds} s"));
                }
                self.seconds = Some(seconds);
            }
            Column::Requests(side) => self.arm(side).requests = parsed(cell)?,
            Column::Errors(side) => self.arm(side).errors = parsed(cell)?,
            Column::ClientErrors(side) => self.arm(side).client_errors = parsed(cell)?,
            Column::SlowForRollback(side) => {
                self.arm(side).slow_for_rollback = Some(parsed(cell)?);
            }
            Column::SlowForAdvance(side) => self.arm(side).slow_for_advance = Some(parsed(cell)?),
            Column::Slower(side, quantile) => {
                let slower = (quantile, parsed(cell)?);
                self.arm(side).slower.push(slower);
            }
            Column::ErrorClusters => {
                self.error_clusters = parsed(cell)?;
                if self.error_clusters.iter().any(|c| *c >= Cluster::COUNT) {
                    return Err(format!("a cluster is below {}", Cluster::COUNT));
                }
            }
        }
        Ok(())
    }

    fn arm(&mut self, side: Side) -> &mut FlatArm {
        match side {
            Side::Legacy => &mut self.legacy,
            Side::New => &mut self.new,
        }
    }

    fn window(self, setting: &Setting) -> Result<Window, String> {
        let mut new = self.new.counts(setting)?;
        // The rows list the groups of the errors, and not who else sent requests: everybody, then.
        if self.new.requests > 0 {
            for pair in &mut new.errors.clusters {
                pair.n = 1;
            }
        }
        for cluster in self.error_clusters {
            new.errors.clusters[cluster].e = 1;
        }
        let slower = setting.quantiles.iter().map(|quantile| {
            Some(PerArm {
                legacy: self.legacy.slower_than(*quantile)?,
                new: self.new.slower_than(*quantile)?,
            })
        });
        Ok(Window {
            seconds: self.seconds.unwrap_or(1.0),
            slower: Some(slower.collect()),
            legacy: self.legacy.counts(setting)?,
            new,
            streak: StreakReading::default(),
            legacy_available: true,
            new_available: true,
        })
    }
}

impl FlatArm {
    fn counts(&self, setting: &Setting) -> Result<ArmCounts, String> {
        let latency = setting.latency.iter().map(|is_for_rollback| {
            let slow = if *is_for_rollback {
                self.slow_for_rollback
            } else {
                self.slow_for_advance
            };
            // Where nothing was counted, no request was decided.
            slow.map_or(Ok(Clustered::default()), |slow| self.clustered(slow))
        });
        Ok(ArmCounts {
            errors: self.clustered(self.errors)?,
            client_errors: self.clustered(self.client_errors)?,
            latency: latency.collect::<Result<_, String>>()?,
            ..ArmCounts::default()
        })
    }

    fn slower_than(&self, quantile: u8) -> Option<Pair> {
        let mut slower = self.slower.iter().filter(|slower| slower.0 == quantile);
        slower.next().map(|(_, slower)| Pair {
            n: self.requests,
            e: *slower,
        })
    }

    fn clustered(&self, events: u64) -> Result<Clustered, String> {
        if events > self.requests {
            return Err(format!("{events} events of {} requests", self.requests));
        }
        let total = Pair {
            n: self.requests,
            e: events,
        };
        Ok(Clustered {
            total,
            ..Clustered::default()
        })
    }
}

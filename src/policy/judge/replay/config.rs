//! The `config` of a trace: flat names, or a live rollout's criteria.
//!
//! A misspelt name would leave the default in force and the answer wrong, so unknown names are
//! refused, and so are other values of what cannot be set.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::policy::criteria::{
    self, Criteria, Criterion, Expert, Metric, Overdispersion, Requirement, WhenLegacyToo,
};

/// What a trace is judged by.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) criteria: Criteria,
    /// Names of the criteria that act, in their order.
    pub(super) conditions: Vec<String>,
    /// Names of the requirements of an advance, in their order.
    pub(super) gates: Vec<String>,
    /// For each latency limit that windows count: whether it is that of the rollback.
    pub(super) latency: Vec<bool>,
    /// Quantiles, in hundredths, at which latency is compared, in the criteria's order.
    pub(super) quantiles: Vec<u8>,
}

/// Traces count what is slow and do not say how slow that is, so any two limits do.
const ROLLBACK_LIMIT_SECONDS: f64 = 0.5;
const ADVANCE_LIMIT_SECONDS: f64 = 0.2;

impl Setting {
    pub(super) fn of(
        defaults: &Map<String, Value>,
        config: &Map<String, Value>,
        columns: &[String],
    ) -> Result<Self, String> {
        if config.contains_key("criteria") {
            return parsed::<Live>(config.clone()).map(|live| Self::live(live.criteria));
        }
        let mut merged = defaults.clone();
        merged.extend(config.clone());
        parsed::<Flat>(merged)?.setting(columns)
    }
}

fn parsed<T: for<'de> Deserialize<'de>>(config: Map<String, Value>) -> Result<T, String> {
    T::deserialize(Value::Object(config)).map_err(|error| format!("config: {error}"))
}

/// A live rollout.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Live {
    criteria: Criteria,
}

impl Setting {
    /// Criteria under their own names.
    pub(super) fn live(criteria: Criteria) -> Self {
        let conditions = criteria.rollback.iter().map(Criterion::to_string);
        let gates = criteria.advance.iter().map(Requirement::to_string);
        Setting {
            conditions: conditions.collect(),
            gates: gates.collect(),
            // Its windows come whole.
            latency: Vec::new(),
            quantiles: Vec::new(),
            criteria,
        }
    }
}

/// The flat names, with the defaults of the analysis specification.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Flat {
    alpha: f64,
    alpha_horizon_s: f64,
    alpha_advance: f64,
    advance_horizon_s: f64,
    start_weight: f64,
    gate_start_weight: f64,
    evidence_cap: f64,
    error_rate_rollback: f64,
    latency_rollback_tail: f64,
    error_rate_advance: f64,
    latency_advance_tail: f64,
    error_ratio_margin: f64,
    error_min_effect: f64,
    error_ni_margin: f64,
    client_error_ratio_margin: f64,
    client_error_min_effect: f64,
    client_error_ni_margin: f64,
    latency_tails: Vec<f64>,
    min_events: u64,
    min_bad_clusters: u32,
    max_cluster_share: f64,
    min_samples: u64,
    min_step_duration_s: f64,
    min_breach_windows: u32,
    min_latency_samples: u64,
    phi_error: Phi,
    phi_latency: Phi,
    when_legacy_too: WhenLegacyToo,
    conditions: Vec<String>,
    gates: Vec<String>,
    qhat_prior_events: f64,
    qhat_prior_requests: f64,
    qhat_half_life_s: f64,
    baseline_min: u64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Phi {
    Fixed(f64),
    Auto(Auto),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Auto {
    Auto,
}

impl Default for Flat {
    fn default() -> Self {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            alpha: 0.01,
            alpha_horizon_s: 86_400.0,
            alpha_advance: 0.05,
            advance_horizon_s: 3_600.0,
            start_weight: 0.5,
            gate_start_weight: 0.9,
            evidence_cap: 1e6,
            error_rate_rollback: 0.05,
            latency_rollback_tail: 0.05,
            error_rate_advance: 0.01,
            latency_advance_tail: 0.05,
            error_ratio_margin: 1.25,
            error_min_effect: 0.0005,
            error_ni_margin: 0.005,
            client_error_ratio_margin: 1.25,
            client_error_min_effect: 0.005,
            client_error_ni_margin: 0.005,
            latency_tails: vec![0.5, 0.05],
            min_events: 3,
            min_bad_clusters: 3,
            // Rows list the groups of the errors without counts, so none has a share.
            max_cluster_share: 1.0,
            min_samples: 100,
            min_step_duration_s: 60.0,
            min_breach_windows: 1,
            min_latency_samples: 20,
            phi_error: Phi::Fixed(1.0),
            phi_latency: Phi::Fixed(1.0),
            when_legacy_too: WhenLegacyToo::Hold,
            conditions: names(&[
                "error_rate",
                "latency",
                "error_vs_legacy",
                "latency_vs_legacy",
            ]),
            gates: names(&["error_rate", "latency", "error_vs_legacy"]),
            qhat_prior_events: 0.5,
            qhat_prior_requests: 500.0,
            qhat_half_life_s: 600.0,
            baseline_min: 1,
        }
    }
}

impl Flat {
    fn setting(self, columns: &[String]) -> Result<Setting, String> {
        self.check()?;
        let rollback_quantile = quantile(self.latency_rollback_tail)?;
        let advance_quantile = quantile(self.latency_advance_tail)?;
        let quantiles = self.latency_tails.iter().map(|tail| quantile(*tail));
        let latency_quantiles: Vec<u8> = quantiles.collect::<Result<_, _>>()?;
        let rollback = self.conditions.iter().map(|name| match name.as_str() {
            "error_rate" => Ok(Criterion::beyond(
                Metric::ErrorRate,
                self.error_rate_rollback,
            )),
            "latency" => Ok(Criterion::beyond(
                Metric::Latency(rollback_quantile),
                ROLLBACK_LIMIT_SECONDS,
            )),
            "error_vs_legacy" => Ok(Criterion::worse_than_legacy(
                Metric::ErrorRate,
                self.error_ratio_margin - 1.0,
            )),
            "client_error_vs_legacy" => Ok(Criterion::worse_than_legacy(
                Metric::ClientErrorRate,
                self.client_error_ratio_margin - 1.0,
            )),
            // The margin lies in what was counted as slower.
            "latency_vs_legacy" => Ok(Criterion::worse_than_legacy(Metric::LatencyProfile, 0.0)),
            _ => Err(format!("config: no condition is called `{name}`")),
        });
        let advance = self.gates.iter().map(|name| match name.as_str() {
            "error_rate" => Ok(Requirement::within(
                Metric::ErrorRate,
                self.error_rate_advance,
            )),
            "latency" => Ok(Requirement::within(
                Metric::Latency(advance_quantile),
                ADVANCE_LIMIT_SECONDS,
            )),
            "error_vs_legacy" => Ok(Requirement::not_worse_than_legacy(
                Metric::ErrorRate,
                self.error_ni_margin,
            )),
            "client_error_vs_legacy" => Ok(Requirement::not_worse_than_legacy(
                Metric::ClientErrorRate,
                self.client_error_ni_margin,
            )),
            _ => Err(format!("config: no gate is called `{name}`")),
        });
        let criteria = Criteria {
            rollback: rollback.collect::<Result<_, String>>()?,
            advance: advance.collect::<Result<_, String>>()?,
            alpha: self.alpha,
            alpha_advance: self.alpha_advance,
            alpha_promote: self.alpha_advance,
            observe: seconds(self.min_step_duration_s)?,
            min_requests: self.min_samples,
            error_min_effect: self.error_min_effect,
            client_error_min_effect: self.client_error_min_effect,
            latency_quantiles: latency_quantiles.clone(),
            min_events: self.min_events,
            min_bad_clusters: self.min_bad_clusters,
            max_cluster_share: self.max_cluster_share,
            min_breach_windows: self.min_breach_windows,
            min_latency_samples: self.min_latency_samples,
            overdispersion: self.phi_error.into(),
            latency_overdispersion: self.phi_latency.into(),
            when_legacy_too: self.when_legacy_too,
            expert: Expert {
                start_weight: self.start_weight,
                alpha_horizon: seconds(self.alpha_horizon_s)?,
                evidence_cap: self.evidence_cap,
                gate_start_weight: self.gate_start_weight,
                advance_horizon: seconds(self.advance_horizon_s)?,
            },
            ..Criteria::default()
        };
        let compares = |name: &String| name == "latency_vs_legacy";
        let quantiles = if self.conditions.iter().any(compares) {
            latency_quantiles
        } else {
            Vec::new()
        };
        for arm in ["new", "legacy"] {
            let names = quantiles.iter().map(|q| format!("slow_{arm}_q{q}"));
            if let Some(missing) = names.into_iter().find(|name| !columns.contains(name)) {
                return Err(format!(
                    "`latency_vs_legacy` needs the column `{missing}`; add it, or leave the \
                     condition out of `conditions`"
                ));
            }
        }
        let limits = criteria.latency_limits().first_byte.into_iter();
        Ok(Setting {
            latency: limits
                .map(|limit| limit == ROLLBACK_LIMIT_SECONDS)
                .collect(),
            criteria,
            conditions: self.conditions,
            gates: self.gates,
            quantiles,
        })
    }

    fn check(&self) -> Result<(), String> {
        let is_share = |value: f64| value > 0.0 && value < 1.0;
        for (name, value) in [
            ("alpha", self.alpha),
            ("alpha_advance", self.alpha_advance),
            ("start_weight", self.start_weight),
            ("gate_start_weight", self.gate_start_weight),
            ("error_rate_rollback", self.error_rate_rollback),
            ("error_rate_advance", self.error_rate_advance),
            ("error_ni_margin", self.error_ni_margin),
            ("client_error_ni_margin", self.client_error_ni_margin),
        ] {
            if !is_share(value) {
                return Err(format!("config: `{name}` is {value}, not between 0 and 1"));
            }
        }
        for (name, value) in [
            ("error_ratio_margin", self.error_ratio_margin),
            ("client_error_ratio_margin", self.client_error_ratio_margin),
        ] {
            if !(value >= 1.0 && value.is_finite()) {
                return Err(format!("config: `{name}` is {value}, not at least 1"));
            }
        }
        for (name, value, fixed) in [
            ("qhat_prior_events", self.qhat_prior_events, 0.5),
            ("qhat_prior_requests", self.qhat_prior_requests, 500.0),
            ("qhat_half_life_s", self.qhat_half_life_s, 600.0),
            ("baseline_min", self.baseline_min as f64, 1.0),
        ] {
            if value != fixed {
                return Err(format!("config: `{name}` is {fixed} and cannot be set"));
            }
        }
        Ok(())
    }
}

impl From<Phi> for Overdispersion {
    fn from(phi: Phi) -> Self {
        match phi {
            Phi::Fixed(phi) => Overdispersion::Fixed(phi),
            Phi::Auto(Auto::Auto) => Overdispersion::Auto,
        }
    }
}

/// The quantile beyond which `tail` of the requests lie.
fn quantile(tail: f64) -> Result<u8, String> {
    let mut quantiles = 1..100_u8;
    let found = quantiles.find(|quantile| (criteria::tail(*quantile) - tail).abs() < 1e-9);
    found.ok_or_else(|| format!("config: the tail {tail} is no whole number of percent"))
}

fn seconds(seconds: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| format!("config: nothing can last {seconds} s"))
}

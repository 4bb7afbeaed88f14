//! Single calls of the statistics' functions, for comparison with other implementations.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::policy::judge::detector::{Detector, Prior, Step};
use crate::policy::judge::interval::confidence_sequence;
use crate::policy::judge::kernels::{self, ALTERNATIVES, BreachKernel, Contrast, GoodKernel};
use crate::policy::judge::overdispersion;
use crate::policy::judge::window::Pair;
use crate::policy::time::Timestamp;

/// One call. Names are those of the specification.
#[derive(Deserialize)]
#[serde(tag = "fn", rename_all = "snake_case")]
enum Call {
    KernelBreach(Limit),
    KernelGood(Limit),
    KernelCompare {
        rho: f64,
        qhat: f64,
        #[serde(flatten)]
        counts: Both,
    },
    KernelNoninferior {
        delta: f64,
        qhat: f64,
        #[serde(flatten)]
        counts: Both,
    },
    ConfSeq {
        n: u64,
        e: u64,
        alpha: f64,
        phi: f64,
    },
    Dispersion {
        n_b: Vec<f64>,
        e_b: Vec<f64>,
    },
    DetectorBreach {
        theta: f64,
        gamma: f64,
        phi: f64,
        start_weight: f64,
        cap: f64,
        steps: Vec<Counted>,
    },
}

#[derive(Deserialize)]
struct Limit {
    theta: f64,
    n: u64,
    e: u64,
}

#[derive(Deserialize)]
struct Counted {
    n: u64,
    e: u64,
}

#[derive(Deserialize)]
struct Both {
    #[serde(rename = "nN")]
    new: u64,
    #[serde(rename = "eN")]
    new_events: u64,
    #[serde(rename = "nL")]
    legacy: u64,
    #[serde(rename = "eL")]
    legacy_events: u64,
}

impl Both {
    fn contrast(&self) -> Result<Contrast, String> {
        if self.new == 0 || self.legacy == 0 {
            return Err("a comparison needs a request on either arm".to_owned());
        }
        Ok(Contrast {
            new: pair(self.new, self.new_events)?,
            legacy: pair(self.legacy, self.legacy_events)?,
        })
    }
}

/// Calls a function: one number per alternative; the ends of an interval; raw and shrunk
/// dispersion; or a detector's evidence after each step.
pub(super) fn call(call: &Map<String, Value>) -> Result<Vec<f64>, String> {
    let call = Call::deserialize(Value::Object(call.clone())).map_err(|error| error.to_string())?;
    Ok(match call {
        Call::KernelBreach(Limit { theta, n, e }) => {
            BreachKernel::harm(theta).log_factors(pair(n, e)?).to_vec()
        }
        Call::KernelGood(Limit { theta, n, e }) => {
            GoodKernel::health(theta).log_factors(pair(n, e)?).to_vec()
        }
        Call::KernelCompare { rho, qhat, counts } => {
            kernels::worse(rho, qhat, counts.contrast()?).to_vec()
        }
        Call::KernelNoninferior {
            delta,
            qhat,
            counts,
        } => kernels::not_worse(delta, qhat, counts.contrast()?).to_vec(),
        Call::ConfSeq { n, e, alpha, phi } => {
            let (low, high) = confidence_sequence(pair(n, e)?, alpha, phi)
                .ok_or("without requests every rate is possible")?;
            vec![low, high]
        }
        Call::Dispersion { n_b, e_b } => {
            let (raw, _) = overdispersion::raw_dispersion(&n_b, &e_b, &n_b)
                .ok_or("these counts tell nothing of dispersion")?;
            vec![raw, overdispersion::estimate(&n_b, &e_b, &n_b)]
        }
        Call::DetectorBreach {
            theta,
            gamma,
            phi,
            start_weight,
            cap,
            steps,
        } => {
            let prior = Prior::given(start_weight, gamma, cap);
            let kernel = BreachKernel::harm(theta);
            let mut detector = Detector::new(ALTERNATIVES, prior, Timestamp::default());
            let evidence = steps.iter().map(|counted| {
                let factors = kernel.log_factors(pair(counted.n, counted.e)?);
                let step = Step {
                    prior,
                    phi,
                    clip: f64::INFINITY,
                    seconds: 1.0,
                    begin: Timestamp::default(),
                };
                detector.step(&factors, step);
                Ok(detector.evidence())
            });
            evidence.collect::<Result<_, String>>()?
        }
    })
}

fn pair(n: u64, e: u64) -> Result<Pair, String> {
    if e > n {
        return Err(format!("{e} events of {n} requests"));
    }
    Ok(Pair { n, e })
}

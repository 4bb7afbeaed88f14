//! Whoever changes things all the while: shares, rollbacks, emergencies and the file, by API and by
//! command.

use std::sync::Arc;

use cutover::policy::arm::Arm;

use super::population::Shared;
use super::storm::{Storm, lock};
use crate::harness::chance::Chance;
use crate::harness::proxy::Proxy;

const REASON: &str = "chaos";

/// The file, in one of its variants: what does not decide about arms changes.
pub(super) fn configuration(storm: &Storm, variant: u64) -> String {
    let [legacy, new] = [Arm::Legacy, Arm::New].map(|arm| storm.endpoints(arm));
    // One of the servers of new comes and goes.
    let new = match variant & 1 {
        0 => new.join(", "),
        _ => new[0].clone(),
    };
    let legacy = legacy.join(", ");
    let balance = ["least_pending", "round_robin"][(variant >> 1 & 1) as usize];
    let breaker =
        ["false", "{consecutive_failures: 5, open_for: 200ms}"][(variant >> 2 & 1) as usize];
    let ejection =
        ["", "ejection: {consecutive_failures: 3, duration: 200ms}"][(variant >> 3 & 1) as usize];
    let more = match variant >> 4 & 1 {
        0 => "",
        _ => "  - {path_prefix: /more, backend: legacy}\n",
    };
    format!(
        "backends:
  legacy:
    endpoints: [{legacy}]
    timeouts: {{connect: 20s, first_byte: 20s, body_idle: 20s}}
    pool: {{idle_timeout: 500ms}}
  new:
    endpoints: [{new}]
    balance: {balance}
    {ejection}
    timeouts: {{connect: 1s, first_byte: 300ms, body_idle: 300ms}}
    pool: {{idle_timeout: 500ms}}
splits:
  api:
    legacy: legacy
    new: new
    key: [{{cookie: session}}]
    keyless: legacy
    response_headers: true
    rollback: off
    analysis: {{hard_fail: 1000000}}
    fallback: {{budget: 100%, budget_floor: 1000000, breaker: {breaker}}}
routes:
{more}  - {{split: api}}
"
    )
}

/// Does one thing, and tells the clients what to expect after it.
pub(super) async fn operate(
    proxy: &Proxy,
    shared: &Arc<Shared>,
    chance: &mut Chance,
    configuration: impl Fn(u64) -> String,
) {
    let what = chance.below(10);
    if what < 3 {
        // No change of a share.
        return proxy.reconfigure(&configuration(chance.below(32))).await;
    }
    {
        let mut view = lock(&shared.view);
        view.change += 1;
        view.share = None;
    }
    let share = format!("{}%", chance.below(101));
    let api = "/api/v1/splits/api";
    match what {
        3..=5 => {
            // Refused while a rollback or an emergency holds, which the status tells.
            let body = format!("{{\"share\": \"{share}\", \"reason\": \"{REASON}\"}}");
            proxy.change(&format!("{api}/share"), &body).await;
        }
        6 => {
            proxy
                .cutover(&["set", "api", &share, "--reason", REASON])
                .await;
        }
        7 => {
            proxy
                .cutover(&["rollback", "api", "--reason", REASON])
                .await;
            proxy.cutover(&["resume", "api", "--reason", REASON]).await;
        }
        8 => {
            let body = format!("{{\"reason\": \"{REASON}\"}}");
            proxy.change(&format!("{api}/rollback"), &body).await;
            proxy.change(&format!("{api}/resume"), &body).await;
        }
        _ => {
            for clear in [false, true] {
                let body = format!("{{\"clear\": {clear}, \"reason\": \"{REASON}\"}}");
                proxy.change("/api/v1/emergency", &body).await;
            }
        }
    }
    let split = proxy.split("api").await;
    let mut view = lock(&shared.view);
    view.change += 1;
    view.share = Some(match split.emergency {
        true => "0%".to_owned(),
        false => split.share,
    });
}

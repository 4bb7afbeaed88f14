//! What is said of routes that limit their requests.

use super::RouteScene;
use super::exporter::Exporter;

/// Writes one route's figures; what it does not limit it does not count.
pub(super) fn route(exporter: &Exporter, route: &RouteScene<'_>) {
    let labels = [("route", route.name)];
    let refused = exporter.counter(
        "cutover_route_refused_total",
        "Requests that a limit of their route turned away, by reason.",
    );
    let gauge = |name, help, value| exporter.gauge(name, help).set(&labels, value);
    if route.limits_requests {
        gauge(
            "cutover_route_requests_in_flight",
            "Requests being answered on a route that limits them.",
            route.in_flight as f64,
        );
        let labels = [("route", route.name), ("reason", "overloaded")];
        refused.set(&labels, route.overloaded);
    }
    if route.limits_rate {
        gauge(
            "cutover_route_rate_limit_keys",
            "Keys that the rate limit of a route remembers.",
            route.keys as f64,
        );
        exporter
            .counter(
                "cutover_route_rate_limit_common_allowance_total",
                "Requests whose key the rate limit of their route could not remember, because too many others were.",
            )
            .set(&labels, route.on_common_allowance);
        let labels = [("route", route.name), ("reason", "rate_limited")];
        refused.set(&labels, route.rate_limited);
    }
}

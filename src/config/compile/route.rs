//! Routes: which requests go where.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::{Compiler, Names, is_name};
use crate::config::model::{
    BackendId, KeyedLimit, Limit, LimitKey, Matches, PathMatch, Route, Split, SplitId, Target,
};
use crate::config::notation::Written;
use crate::config::raw::{self, List};
use crate::message::Name;
use crate::policy::arm::Arm;
use crate::policy::rate::Rate;

impl Compiler<'_, '_> {
    pub(super) fn routes(
        &mut self,
        routes: Option<List<raw::Route>>,
        backends: &Names,
        splits: &Names,
        max_body: Option<usize>,
    ) -> Vec<Route> {
        let mut compiled: Vec<Route> = Vec::new();
        let mut numbers: Vec<usize> = Vec::new();
        for (index, mut route) in routes.into_iter().flat_map(List::numbered) {
            let path = format!("routes[{index}]");
            let target = self.target(&path, &route, backends, splits);
            let fallback = route.fallback;
            let name = self.route_name(&path, route.name.take(), &compiled);
            let max_requests = route.max_requests;
            let own_max_body = route.max_body.take().map(|Written(size)| size.0);
            let rate_limit = route.rate_limit.take();
            let rate_limit = rate_limit.map(|limit| self.keyed_limit(&path, limit));
            let matches = self.matches(&path, route);
            if let Some(first) = compiled.iter().position(|other| other.matches == matches) {
                self.problem(
                    &path,
                    format!(
                        "no request gets here: routes[{}] matches the same",
                        numbers[first]
                    ),
                    "remove one of the two, or let it ask for something else",
                );
            }
            numbers.push(index);
            compiled.push(Route {
                name,
                matches,
                target,
                fallback,
                max_requests,
                max_body: own_max_body.or(max_body),
                rate_limit,
            });
        }
        compiled
    }

    fn route_name(&mut self, path: &str, name: Option<String>, others: &[Route]) -> String {
        let Some(name) = name else {
            return path.to_owned();
        };
        let key = format!("{path}.name");
        if !is_name(&name) {
            self.problem(
                &key,
                "this is no name for a route: it becomes a label",
                "use at most 63 letters, digits, `-`, `_` and `.`",
            );
        }
        if others.iter().any(|other| other.name == name) {
            let message = format!("another route has the name `{name}`");
            let remedy = "give each route its own name: metrics tell them apart by it";
            self.problem(&key, message, remedy);
        }
        name
    }

    fn keyed_limit(&mut self, route: &str, limit: raw::KeyedLimit) -> KeyedLimit {
        let path = format!("{route}.rate_limit");
        let (span, times) = match (limit.requests_per_second, limit.requests_per_minute) {
            (Some(times), None) => (1, times),
            (None, Some(times)) => (60, times),
            (both, _) => {
                let is_damaged = ["requests_per_second", "requests_per_minute"]
                    .iter()
                    .any(|key| self.is_damaged(&path, key));
                let message = match both {
                    Some(_) => "this limit has a rate per second and one per minute",
                    None => "this limit has no rate",
                };
                if !is_damaged {
                    let remedy = "write either `requests_per_second` or `requests_per_minute`";
                    self.problem(&path, message, remedy);
                }
                (1, 1)
            }
        };
        let burst = limit.burst.unwrap_or(times);
        KeyedLimit {
            key: match limit.key {
                raw::LimitKey::ClientIp => LimitKey::ClientIp,
                raw::LimitKey::Cookie(Written(name)) => LimitKey::Cookie(name.0),
                raw::LimitKey::Header(Written(name)) => LimitKey::Header(Name::from(&name)),
                raw::LimitKey::Query(name) => LimitKey::Query(name.0),
            },
            limit: Limit {
                rate: Rate::within(Duration::from_secs(span), times, burst),
                max_keys: limit.max_keys,
            },
        }
    }

    fn target(
        &mut self,
        path: &str,
        route: &raw::Route,
        backends: &Names,
        splits: &Names,
    ) -> Target {
        let nowhere = Target::Backend(BackendId(0));
        match (&route.split, &route.backend) {
            (Some(split), None) => self
                .lookup(&format!("{path}.split"), split, splits)
                .map_or(nowhere, |index| Target::Split(SplitId(index))),
            (None, Some(backend)) => self
                .lookup(&format!("{path}.backend"), backend, backends)
                .map_or(nowhere, |index| Target::Backend(BackendId(index))),
            (Some(_), Some(_)) => {
                let remedy = "keep one of the two";
                self.problem(path, "this route names a split and a backend", remedy);
                nowhere
            }
            (None, None) => {
                // A target that was reported as damaged is not missing.
                if !["split", "backend"]
                    .iter()
                    .any(|key| self.is_damaged(path, key))
                {
                    let remedy = "add `split: NAME` or `backend: NAME`";
                    self.problem(path, "this route leads nowhere", remedy);
                }
                nowhere
            }
        }
    }

    fn matches(&mut self, path: &str, route: raw::Route) -> Matches {
        let exact = route.path.map(|Written(path)| PathMatch::Exact(path.0));
        let prefix = route.path_prefix.and_then(|Written(prefix)| {
            // Whole segments are compared, so a slash at the end would ask for an empty one, and
            // the bare slash asks for nothing.
            let prefix = prefix.0.trim_end_matches('/').to_owned();
            (!prefix.is_empty()).then_some(PathMatch::Prefix(prefix))
        });
        if exact.is_some() && prefix.is_some() {
            let remedy = "keep one: `path` for one path, `path_prefix` for all below it";
            self.problem(path, "this route has a `path` and a `path_prefix`", remedy);
        }
        let mut methods: Vec<_> = route.methods.sound().map(|Written(m)| m).collect();
        methods.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        methods.dedup();
        let mut headers = Vec::new();
        for (name, value) in route.headers {
            let key = format!("{path}.headers.{name}");
            let Ok(header) = name.parse::<HeaderName>() else {
                let message = format!("`{name}` is no header name");
                self.problem(&key, message, "use letters, digits and hyphens");
                continue;
            };
            if headers.iter().any(|(other, _)| *other == header) {
                let remedy = "keep one of the two; names differ in capitals only";
                self.problem(&key, format!("`{header}` is asked for twice"), remedy);
            }
            if HeaderValue::from_str(&value).is_err() {
                let remedy = "write a value without line breaks and control characters";
                self.problem(&key, "no header can have this value", remedy);
            }
            headers.push((header, (value != "*").then_some(value)));
        }
        headers.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
        Matches {
            host: route.host.map(|Written(host)| host.0),
            path: exact.or(prefix),
            methods,
            headers,
        }
    }

    /// Says which backends and splits no request can reach.
    pub(super) fn warn_of_unused(&mut self, routes: &[Route], splits: &[Split], names: &Names) {
        for (index, split) in splits.iter().enumerate() {
            let is_it = |route: &Route| matches!(route.target, Target::Split(SplitId(id)) if usize::from(id) == index);
            if !routes.iter().any(is_it) {
                let key = format!("splits.{}", split.name);
                let remedy = "add a route with this `split`, or remove it";
                self.warning(&key, "no route leads to this split", remedy);
            }
        }
        for (index, name) in names.names.iter().enumerate() {
            let is_it = |id: BackendId| usize::from(id.0) == index;
            let in_split = |split: &Split| Arm::ALL.iter().any(|arm| is_it(split.arms[*arm]));
            let in_route = |route: &Route| matches!(route.target, Target::Backend(id) if is_it(id));
            if !splits.iter().any(in_split) && !routes.iter().any(in_route) {
                let key = format!("backends.{name}");
                let remedy = "name it in a split or a route, or remove it";
                self.warning(&key, "nothing uses this backend", remedy);
            }
        }
    }
}

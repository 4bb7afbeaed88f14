//! Routes: which requests go where.

use http::{HeaderName, HeaderValue};

use super::{Compiler, Names};
use crate::config::model::{BackendId, Matches, PathMatch, Route, Split, SplitId, Target};
use crate::config::notation::Written;
use crate::config::raw::{self, List};
use crate::policy::arm::Arm;

impl Compiler<'_, '_> {
    pub(super) fn routes(
        &mut self,
        routes: Option<List<raw::Route>>,
        backends: &Names,
        splits: &Names,
    ) -> Vec<Route> {
        let mut compiled: Vec<Route> = Vec::new();
        let mut numbers: Vec<usize> = Vec::new();
        for (index, route) in routes.into_iter().flat_map(List::numbered) {
            let path = format!("routes[{index}]");
            let target = self.target(&path, &route, backends, splits);
            let fallback = route.fallback;
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
                matches,
                target,
                fallback,
            });
        }
        compiled
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

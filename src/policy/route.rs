//! Which route a request takes.
//!
//! The mistake to avoid is work that grows with the number of routes: a table of ten thousand
//! tenants must cost what a table of ten does. So a request never walks the routes. It looks up its
//! host, then its path, in maps built at reload, from the most specific to the least, and walks only
//! the routes that share both and differ in method or headers. What a hostile request can make this
//! cost is bounded by the configuration: a path is cut only at lengths that some prefix really has,
//! and a host longer than DNS allows is not looked up at all.
//!
//! The best match wins: exact host, then the longest wildcard, then any host; exact path, then the
//! longest prefix, then any path; then the most header conditions; then methods given; then the
//! file's order.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use http::{HeaderName, Method};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::message::{Fields, Name};

/// What a request must look like; an empty field matches anything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matches {
    /// Lower case, without port; `*.example.com` matches any subdomain, at any depth.
    pub host: Option<String>,
    /// The path, compared byte for byte.
    pub path: Option<PathMatch>,
    /// Any of these.
    pub methods: Vec<Method>,
    /// All of these: present, with this value if one is given. Of a repeated header, any one.
    pub headers: Vec<(HeaderName, Option<String>)>,
}

/// How a path is matched.
#[derive(Clone, Debug, PartialEq)]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// Whole segments: `/api` and `/api/` match `/api` and `/api/x`, not `/apix`.
    Prefix(String),
}

/// Position of a route in the list that its [`Router`] was built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteIndex(pub usize);

/// All routes of a configuration, arranged for lookup.
#[derive(Debug, Default)]
pub struct Router {
    exact_hosts: Table<Paths>,
    /// Keyed by what follows the `*`, with its leading dot.
    wildcard_hosts: Table<Paths>,
    any_host: Paths,
}

impl Router {
    /// Arranges routes for lookup; a route's [`RouteIndex`] is its position in `routes`.
    pub fn new<'a>(routes: impl IntoIterator<Item = &'a Matches>) -> Self {
        let mut router = Router::default();
        for (index, matches) in routes.into_iter().enumerate() {
            let paths = match &matches.host {
                None => &mut router.any_host,
                Some(host) => {
                    let host = bare_host(host).to_ascii_lowercase();
                    match host.strip_prefix('*') {
                        Some(suffix) => router.wildcard_hosts.entry(suffix.as_bytes().into()),
                        None => router.exact_hosts.entry(host.as_bytes().into()),
                    }
                    .or_default()
                }
            };
            paths.add(RouteIndex(index), matches);
        }
        router.any_host.arrange();
        let hosts = router.exact_hosts.values_mut();
        for paths in hosts.chain(router.wildcard_hosts.values_mut()) {
            paths.arrange();
        }
        router
    }

    /// The route that matches best, if any does.
    ///
    /// `host` is the `Host` header or the `:authority`, as received: letter case, a port and a
    /// trailing dot make no difference.
    pub fn find(
        &self,
        host: Option<&str>,
        path: &str,
        method: &Method,
        fields: &Fields,
    ) -> Option<RouteIndex> {
        let request = Head {
            path: path.as_bytes(),
            method,
            fields,
        };
        host.and_then(|host| self.find_by_host(host, &request))
            .or_else(|| self.any_host.find(&request))
    }

    fn find_by_host(&self, host: &str, request: &Head<'_>) -> Option<RouteIndex> {
        if self.exact_hosts.is_empty() && self.wildcard_hosts.is_empty() {
            return None;
        }
        let host = bare_host(host).as_bytes();
        let mut lowered = [0; LONGEST_HOST];
        let lowered = lowered.get_mut(..host.len())?;
        lowered.copy_from_slice(host);
        lowered.make_ascii_lowercase();
        let host: &[u8] = lowered;

        let exact = self.exact_hosts.get(host);
        if let Some(route) = exact.and_then(|paths| paths.find(request)) {
            return Some(route);
        }
        if self.wildcard_hosts.is_empty() {
            return None;
        }
        // From the left, so that the longest suffix comes first. The star stands for at least one
        // character, hence never at the first.
        (1..host.len())
            .filter(|&at| host[at] == b'.')
            .filter_map(|dot| self.wildcard_hosts.get(&host[dot..]))
            .find_map(|paths| paths.find(request))
    }
}

/// Longer than any name in DNS (253) and any address in brackets.
const LONGEST_HOST: usize = 256;

/// The host without its port and without the dot of a fully qualified name.
fn bare_host(host: &str) -> &str {
    let end = match host.strip_prefix('[').and_then(|rest| rest.find(']')) {
        // The bracket found in `rest` is one further in `host`, and it belongs to the address.
        Some(bracket) => bracket + 2,
        None => host.find(':').unwrap_or(host.len()),
    };
    let name = &host[..end];
    name.strip_suffix('.').unwrap_or(name)
}

/// What a route looks at, the host apart.
struct Head<'r> {
    path: &'r [u8],
    method: &'r Method,
    fields: &'r Fields,
}

/// The routes of one host.
#[derive(Debug, Default)]
struct Paths {
    exact: Table<Vec<Candidate>>,
    /// Keyed without trailing slashes, so `/` is the empty key.
    prefixes: Table<Vec<Candidate>>,
    /// Lengths that occur among the keys of `prefixes`, longest first.
    prefix_lengths: Vec<usize>,
    any: Vec<Candidate>,
}

impl Paths {
    fn add(&mut self, index: RouteIndex, matches: &Matches) {
        let candidates = match &matches.path {
            None => &mut self.any,
            Some(PathMatch::Exact(path)) => self.exact.entry(path.as_bytes().into()).or_default(),
            Some(PathMatch::Prefix(prefix)) => {
                let prefix = prefix.trim_end_matches('/').as_bytes();
                self.prefixes.entry(prefix.into()).or_default()
            }
        };
        candidates.push(Candidate {
            index,
            methods: matches.methods.clone(),
            headers: matches
                .headers
                .iter()
                .map(|(name, value)| (Name::from(name), value.clone()))
                .collect(),
        });
    }

    fn arrange(&mut self) {
        let tables = self.exact.values_mut().chain(self.prefixes.values_mut());
        for candidates in tables.chain([&mut self.any]) {
            candidates.sort_by_key(Candidate::rank);
        }
        self.prefix_lengths = self.prefixes.keys().map(|prefix| prefix.len()).collect();
        self.prefix_lengths
            .sort_unstable_by_key(|&length| Reverse(length));
        self.prefix_lengths.dedup();
    }

    fn find(&self, request: &Head<'_>) -> Option<RouteIndex> {
        let first = |candidates: &Vec<Candidate>| {
            let found = candidates.iter().find(|route| route.accepts(request))?;
            Some(found.index)
        };
        let path = request.path;
        let exact = self.exact.get(path).and_then(first);
        let prefixes = || {
            let lengths = self.prefix_lengths.iter();
            lengths
                .filter(|&&length| match path.get(length) {
                    Some(&next) => next == b'/',
                    None => length == path.len(),
                })
                .filter_map(|&length| self.prefixes.get(&path[..length]))
                .find_map(first)
        };
        exact.or_else(prefixes).or_else(|| first(&self.any))
    }
}

/// A route whose host and path have matched.
#[derive(Debug)]
struct Candidate {
    index: RouteIndex,
    methods: Vec<Method>,
    headers: Vec<(Name, Option<String>)>,
}

impl Candidate {
    /// Sorts the better match first.
    fn rank(&self) -> (Reverse<usize>, bool, RouteIndex) {
        let conditions = Reverse(self.headers.len());
        (conditions, self.methods.is_empty(), self.index)
    }

    fn accepts(&self, request: &Head<'_>) -> bool {
        let has_method = self.methods.is_empty() || self.methods.contains(request.method);
        has_method
            && self.headers.iter().all(|(name, wanted)| match wanted {
                None => request.fields.contains(name),
                Some(wanted) => {
                    let mut values = request.fields.get_all(name);
                    values.any(|value| value == wanted.as_bytes())
                }
            })
    }
}

/// A map that is filled from the configuration and only read afterwards.
type Table<T> = HashMap<Box<[u8]>, T, BuildHasherDefault<OneSlice>>;

/// Hashes one byte slice.
///
/// The standard hasher protects a map that strangers fill. Strangers only read these, so the
/// quicker hash of the session keys does, with a constant seed to keep lookups reproducible.
#[derive(Default)]
struct OneSlice(u64);

impl Hasher for OneSlice {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    /// The length that precedes a slice's bytes: with a single slice it tells nothing new.
    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests;

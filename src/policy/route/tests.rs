use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use super::*;

/// A route written as in a configuration file.
fn route(host: &str, path: &str) -> Matches {
    Matches {
        host: (!host.is_empty()).then(|| host.to_owned()),
        path: match path.strip_prefix('=') {
            _ if path.is_empty() => None,
            Some(exact) => Some(PathMatch::Exact(exact.to_owned())),
            None => Some(PathMatch::Prefix(path.to_owned())),
        },
        ..Matches::default()
    }
}

fn find(routes: &[Matches], host: &str, path: &str) -> Option<usize> {
    let router = Router::new(routes);
    let found = router.find(Some(host), path, &Method::GET, &Fields::default());
    found.map(|index| index.0)
}

#[test]
fn an_exact_host_beats_a_wildcard_and_a_wildcard_beats_any_host() {
    let routes = [
        route("", ""),
        route("*.example.com", ""),
        route("api.example.com", ""),
        route("*.eu.example.com", ""),
    ];
    assert_eq!(find(&routes, "api.example.com", "/"), Some(2));
    assert_eq!(find(&routes, "www.example.com", "/"), Some(1));
    assert_eq!(find(&routes, "a.b.eu.example.com", "/"), Some(3));
    assert_eq!(find(&routes, "example.com", "/"), Some(0));
    assert_eq!(find(&routes, ".example.com", "/"), Some(0));
}

#[test]
fn a_host_is_compared_without_case_port_and_trailing_dot() {
    let routes = [
        route("api.example.com", ""),
        route("[2001:db8::1]", ""),
        route("*.Shop.example", ""),
    ];
    for (host, expected) in [
        ("API.Example.COM", Some(0)),
        ("api.example.com:8443", Some(0)),
        ("api.example.com.", Some(0)),
        ("api.example.com.:80", Some(0)),
        ("[2001:DB8::1]:443", Some(1)),
        ("[2001:db8::1]", Some(1)),
        ("A.SHOP.example:1", Some(2)),
        ("api.example.com.evil", None),
        ("", None),
        (":80", None),
        ("[", None),
        ("[]", None),
    ] {
        assert_eq!(find(&routes, host, "/"), expected, "{host}");
    }
}

#[test]
fn a_host_longer_than_dns_allows_takes_the_route_of_any_host() {
    let routes = [route("*.example.com", ""), route("", "")];
    let host = format!("{}.example.com", "a".repeat(5_000));
    assert_eq!(find(&routes, &host, "/"), Some(1));
}

#[test]
fn a_prefix_matches_whole_segments_and_the_longest_wins() {
    let routes = [
        route("", "/"),
        route("", "/api"),
        route("", "/api/v2/"),
        route("", "=/api/v2/users"),
    ];
    for (path, expected) in [
        ("/api", 1),
        ("/api/", 1),
        ("/api/v1", 1),
        ("/apix", 0),
        ("/api/v2", 2),
        ("/api/v2/", 2),
        ("/api/v2/users", 3),
        ("/api/v2/users/7", 2),
        ("/api/v22", 1),
        ("/API", 0),
    ] {
        assert_eq!(find(&routes, "any", path), Some(expected), "{path}");
    }
}

#[test]
fn the_root_prefix_is_more_than_no_path_and_leaves_the_asterisk_alone() {
    let routes = [route("", ""), route("", "/")];
    assert_eq!(find(&routes, "any", "/x"), Some(1));
    assert_eq!(find(&routes, "any", "*"), Some(0));
}

#[test]
fn a_better_host_without_a_matching_path_does_not_hide_a_worse_one() {
    let routes = [
        route("api.example.com", "/orders"),
        route("*.example.com", "/users"),
        route("", "/health"),
    ];
    assert_eq!(find(&routes, "api.example.com", "/orders/1"), Some(0));
    assert_eq!(find(&routes, "api.example.com", "/users"), Some(1));
    assert_eq!(find(&routes, "api.example.com", "/health"), Some(2));
    assert_eq!(find(&routes, "api.example.com", "/other"), None);
}

#[test]
fn more_header_conditions_win_then_methods_then_the_files_order() {
    let tenant = HeaderName::from_static("x-tenant");
    let beta = HeaderName::from_static("x-beta");
    let routes = [
        route("", "/api"),
        Matches {
            methods: vec![Method::GET, Method::HEAD],
            ..route("", "/api")
        },
        Matches {
            headers: vec![(beta.clone(), None)],
            ..route("", "/api")
        },
        Matches {
            headers: vec![(beta.clone(), None), (tenant.clone(), Some("acme".into()))],
            ..route("", "/api")
        },
        route("", "/api/"),
    ];
    let router = Router::new(&routes);
    let find = |method: Method, pairs: &[(&HeaderName, &'static str)]| {
        let mut headers = HeaderMap::new();
        for &(name, value) in pairs {
            headers.append(name, HeaderValue::from_static(value));
        }
        let found = router.find(None, "/api", &method, &Fields::from(&headers));
        found.map(|index| index.0)
    };
    assert_eq!(find(Method::POST, &[]), Some(0));
    assert_eq!(find(Method::GET, &[]), Some(1));
    assert_eq!(find(Method::GET, &[(&beta, "")]), Some(2));
    assert_eq!(
        find(Method::POST, &[(&beta, "1"), (&tenant, "acme")]),
        Some(3)
    );
    let repeated = [(&beta, "1"), (&tenant, "other"), (&tenant, "acme")];
    assert_eq!(find(Method::GET, &repeated), Some(3));
    assert_eq!(
        find(Method::GET, &[(&beta, "1"), (&tenant, "ACME")]),
        Some(2)
    );
}

#[test]
fn each_of_ten_thousand_routes_is_found() {
    let routes: Vec<_> = (0..10_000)
        .map(|n| match n % 3 {
            0 => route(&format!("tenant-{n}.example.com"), "/api"),
            1 => route("", &format!("/tenants/{n}")),
            _ => route("*.example.com", &format!("=/exact/{n}")),
        })
        .collect();
    let router = Router::new(&routes);
    for n in 0..routes.len() {
        let (host, path) = match n % 3 {
            0 => (format!("tenant-{n}.example.com"), "/api/x".to_owned()),
            1 => ("tenant-1.example.com".to_owned(), format!("/tenants/{n}/x")),
            _ => ("tenant-2.example.com".to_owned(), format!("/exact/{n}")),
        };
        let found = router.find(Some(&host), &path, &Method::GET, &Fields::default());
        assert_eq!(found, Some(RouteIndex(n)));
    }
}

/// The definition of "best match", applied to every route in turn.
fn reference(
    routes: &[Matches],
    host: &str,
    path: &str,
    method: &Method,
    headers: &HeaderMap,
) -> Option<RouteIndex> {
    let host = host.to_lowercase();
    let host = host.split(':').next().unwrap_or_default();
    let host = host.strip_suffix('.').unwrap_or(host);
    let rank = |matches: &Matches| {
        let host_rank = match matches.host.as_deref().map(|h| (h, h.strip_prefix('*'))) {
            None => (0, 0),
            Some((_, Some(suffix))) if host.ends_with(suffix) && host.len() > suffix.len() => {
                (1, suffix.len())
            }
            Some((exact, None)) if exact == host => (2, 0),
            Some(_) => return None,
        };
        let path_rank = match &matches.path {
            None => (0, 0),
            Some(PathMatch::Exact(exact)) if exact == path => (2, 0),
            Some(PathMatch::Exact(_)) => return None,
            Some(PathMatch::Prefix(prefix)) => {
                let prefix = prefix.trim_end_matches('/');
                let rest = path.strip_prefix(prefix)?;
                if !rest.is_empty() && !rest.starts_with('/') {
                    return None;
                }
                (1, prefix.len() + 1)
            }
        };
        let method_fits = matches.methods.is_empty() || matches.methods.contains(method);
        let headers_fit = matches.headers.iter().all(|(name, wanted)| {
            let value = headers.get(name).map(HeaderValue::as_bytes);
            value.is_some_and(|value| wanted.as_ref().is_none_or(|w| w.as_bytes() == value))
        });
        (method_fits && headers_fit).then_some((
            host_rank,
            path_rank,
            matches.headers.len(),
            !matches.methods.is_empty(),
        ))
    };
    let ranked = routes.iter().enumerate();
    let ranked = ranked.filter_map(|(index, route)| Some((rank(route)?, Reverse(index))));
    ranked.max().map(|(_, Reverse(index))| RouteIndex(index))
}

const NAMES: [&str; 3] = ["x-a", "x-b", "x-c"];

prop_compose! {
    fn any_route()(
        host in prop::option::of("(\\*\\.)?[ab](\\.[ab]){0,2}"),
        path in prop::option::of(("(/[xy]{1,2}){0,3}/?", any::<bool>())),
        methods in prop::sample::subsequence(vec![Method::GET, Method::POST], 0..=2),
        headers in prop::sample::subsequence(NAMES.to_vec(), 0..=2),
        value in prop::option::of("[12]"),
    ) -> Matches {
        Matches {
            host,
            path: path.map(|(path, exact)| if exact {
                PathMatch::Exact(path)
            } else {
                PathMatch::Prefix(path)
            }),
            methods,
            headers: headers
                .into_iter()
                .map(|name| (HeaderName::from_static(name), value.clone()))
                .collect(),
        }
    }
}

proptest! {
    #[test]
    fn finds_what_a_walk_over_all_routes_finds(
        routes in prop::collection::vec(any_route(), 0..24),
        host in "[abAB](\\.[abAB]){0,3}\\.?(:80)?",
        path in "(/[xy]{1,2}){0,4}/?",
        post in any::<bool>(),
        headers in prop::collection::hash_map(prop::sample::select(NAMES.to_vec()), "[12]", 0..3),
    ) {
        let method = if post { Method::POST } else { Method::GET };
        let headers: HeaderMap = headers
            .into_iter()
            .map(|(name, value)| {
                let value = HeaderValue::from_str(&value).expect("a digit");
                (HeaderName::from_static(name), value)
            })
            .collect();
        let found = Router::new(&routes).find(Some(&host), &path, &method, &Fields::from(&headers));
        prop_assert_eq!(found, reference(&routes, &host, &path, &method, &headers));
    }

    #[test]
    fn no_host_and_no_path_makes_it_panic(
        routes in prop::collection::vec(any_route(), 0..8),
        host in ".{0,300}",
        path in ".{0,64}",
    ) {
        let _ = Router::new(&routes).find(Some(&host), &path, &Method::GET, &Fields::default());
    }
}

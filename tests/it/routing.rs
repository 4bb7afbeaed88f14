//! Which requests go where: routes, and within a split the session's arm.

mod pins;
mod sessions;

use std::collections::HashMap;

use bytes::Bytes;
use cutover::policy::arm::Arm;
use http::Request;
use http_body_util::Full;

use crate::harness::client::{Client, Raw, get, request};
use crate::harness::keys::Population;
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::Upstream;

/// A server for each name, which says it in its answers.
struct Servers(Vec<(&'static str, Upstream)>);

impl Servers {
    fn start(names: &[&'static str]) -> Self {
        Self(
            names
                .iter()
                .map(|name| (*name, Upstream::ok(name)))
                .collect(),
        )
    }

    /// A backend for each server, of its name.
    fn backends(&self) -> String {
        let backends = self.0.iter().map(|(name, server)| {
            let address = server.address();
            format!("  {name}: {{endpoints: ['{address}']}}\n")
        });
        format!("backends:\n{}", backends.collect::<String>())
    }

    /// Everything that any of them received.
    fn received(&self) -> usize {
        self.0
            .iter()
            .map(|(_, server)| server.received().len())
            .sum()
    }
}

/// A legacy and a `new`, and these splits and routes.
async fn start(site: Site, splits: &str, routes: &str) -> (Proxy, Servers) {
    let servers = Servers::start(&["legacy", "new"]);
    let configuration = configuration(&servers, splits, routes);
    (site.start(&configuration).await, servers)
}

fn configuration(servers: &Servers, splits: &str, routes: &str) -> String {
    let backends = servers.backends();
    format!("{backends}splits:\n{splits}\nroutes:\n{routes}\n")
}

/// A request for `target` with these fields.
fn with_fields(target: &str, fields: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let request = fields
        .iter()
        .fold(Request::get(target), |request, (name, value)| {
            request.header(*name, value.as_bytes())
        });
    request
        .body(Full::new(Bytes::new()))
        .expect("tests write valid requests")
}

/// The arm that answers this request.
async fn arm_of(client: &mut Client, request: Request<Full<Bytes>>) -> Arm {
    let answer = client.send(request).await;
    assert_eq!(answer.status, 200);
    let server = answer.served_by().expect("one of them answered");
    server.parse().expect("they bear the arms' names")
}

#[tokio::test]
async fn the_best_match_wins_whatever_the_order_of_the_routes() {
    let servers = Servers::start(&[
        "host",
        "host_path",
        "wildcard",
        "longer",
        "path",
        "prefix",
        "deeper",
        "method",
        "present",
        "value",
        "first",
        "second",
    ]);
    // From the least specific to the most, so that taking the first that matches would fail.
    let routes = "
  - {path_prefix: /tie, headers: {X-A: '*'}, backend: first}
  - {path_prefix: /tie, headers: {X-B: '*'}, backend: second}
  - {path_prefix: /api, backend: prefix}
  - {path_prefix: /api, methods: [POST, PUT], backend: method}
  - {path_prefix: /api, headers: {X-Beta: '*'}, backend: present}
  - {path_prefix: /api, headers: {X-Beta: blue, X-More: '*'}, backend: value}
  - {path_prefix: /api/v2/, backend: deeper}
  - {path: /api/v2/exact, backend: path}
  - {host: '*.example', backend: wildcard}
  - {host: '*.deep.example', backend: longer}
  - {host: a.example, backend: host}
  - {host: a.example, path: /only, backend: host_path}
  - {host: b.other, path: /only, backend: host_path}
";
    let configuration = format!("{}routes:{routes}", servers.backends());
    let proxy = Site::new().start(&configuration).await;
    let mut client = proxy.client().await;
    let mut unmatched = 0;
    for (method, host, target, fields, expected) in [
        ("GET", "a.example", "/", &[][..], Some("host")),
        ("GET", "A.Example:8080", "/x", &[], Some("host")),
        ("GET", "a.example.", "/x", &[], Some("host")),
        ("GET", "a.example", "/only", &[], Some("host_path")),
        ("GET", "a.example", "/only/not", &[], Some("host")),
        ("GET", "a.example", "/api", &[], Some("host")),
        ("GET", "b.example", "/", &[], Some("wildcard")),
        ("GET", "x.y.example", "/", &[], Some("wildcard")),
        ("GET", "x.deep.example", "/", &[], Some("longer")),
        ("GET", "deep.example", "/", &[], Some("wildcard")),
        ("GET", "example", "/", &[], None),
        ("GET", ".example", "/", &[], None),
        ("GET", "b.other", "/only", &[], Some("host_path")),
        ("GET", "b.other", "/api", &[], Some("prefix")),
        ("GET", "b.other", "/other", &[], None),
        ("GET", "c", "/api", &[], Some("prefix")),
        ("GET", "c", "/api/", &[], Some("prefix")),
        ("GET", "c", "/api?query=/api/v2", &[], Some("prefix")),
        ("GET", "c", "/apix", &[], None),
        ("GET", "c", "/API", &[], None),
        ("GET", "c", "/api/v2", &[], Some("deeper")),
        ("GET", "c", "/api/v20", &[], Some("prefix")),
        ("GET", "c", "/api/v2/exact", &[], Some("path")),
        ("GET", "c", "/api/v2/exact?x", &[], Some("path")),
        ("GET", "c", "/api/v2/exact/", &[], Some("deeper")),
        ("POST", "c", "/api", &[], Some("method")),
        ("PUT", "c", "/api/x", &[], Some("method")),
        ("DELETE", "c", "/api", &[], Some("prefix")),
        ("POST", "c", "/api/v2", &[], Some("deeper")),
        ("GET", "c", "/api", &[("x-beta", "red")], Some("present")),
        ("GET", "c", "/api", &[("x-beta", "")], Some("present")),
        ("POST", "c", "/api", &[("x-beta", "red")], Some("present")),
        ("GET", "c", "/api", &[("x-beta", "blue")], Some("present")),
        (
            "GET",
            "c",
            "/api",
            &[("x-beta", "blue"), ("x-more", "1")],
            Some("value"),
        ),
        (
            "GET",
            "c",
            "/api",
            &[("x-beta", "red"), ("x-beta", "blue"), ("x-more", "")],
            Some("value"),
        ),
        (
            "GET",
            "c",
            "/api",
            &[("x-beta", "Blue"), ("x-more", "1")],
            Some("present"),
        ),
        (
            "GET",
            "c",
            "/tie",
            &[("x-b", "1"), ("x-a", "1")],
            Some("first"),
        ),
        ("GET", "c", "/tie", &[("x-b", "1")], Some("second")),
        ("GET", "c", "/tie", &[], None),
    ] {
        let mut asked = with_fields(target, fields);
        *asked.method_mut() = method.parse().expect("it is a method");
        let name = host.parse().expect("it is a value");
        asked.headers_mut().insert("host", name);
        let answer = client.send(asked).await;
        let found = (answer.status, answer.served_by());
        let status = if expected.is_some() { 200 } else { 404 };
        assert_eq!(
            found,
            (status, expected),
            "{method} {host}{target} {fields:?}"
        );
        unmatched += usize::from(expected.is_none());
    }
    proxy.refused("no_route", unmatched as f64).await;
    let labels = [("result", "success")];
    let attempts = proxy.metrics().await.sum("cutover_attempts_total", &labels);
    assert_eq!(attempts, servers.received() as f64);
}

#[tokio::test]
async fn http2_is_routed_by_its_authority() {
    let servers = Servers::start(&["host", "any"]);
    let routes = "routes: [{host: a.example, backend: host}, {path: /, backend: any}]";
    let configuration = format!("{}{routes}", servers.backends());
    let proxy = Site::new().start(&configuration).await;
    let mut client = Client::http2(proxy.address()).await;
    for (target, server) in [
        ("http://a.example:81/x", "host"),
        ("http://b.example/", "any"),
    ] {
        assert_eq!(
            client.get(target, "").await.served_by(),
            Some(server),
            "{target}"
        );
    }
    assert_eq!(client.get("http://b.example/x", "").await.status, 404);
}

#[tokio::test]
async fn connect_is_refused_and_tunnels_nothing() {
    let (proxy, servers) = start(
        Site::new(),
        "  api: {legacy: legacy, new: new}",
        "  - {split: api}",
    )
    .await;
    let inside = servers.0[0].1.address();
    let mut client = Raw::connect(proxy.address()).await;
    client
        .write(format!(
            "CONNECT {inside} HTTP/1.1\r\nHost: {inside}\r\n\r\n"
        ))
        .await;
    let answer = client.read_head().await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    proxy.refused("connect", 1.0).await;
    assert_eq!(servers.received(), 0);
}

#[tokio::test]
async fn splits_side_by_side_look_each_at_its_own_key() {
    let splits = "  shop: {legacy: legacy, new: new, share: 50%, key: [{cookie: sid}]}
  search: {legacy: legacy, new: new, share: 30%, key: [{header: X-User}]}
  admin: {legacy: legacy, new: new, share: 70%, key: [{query: tenant}]}";
    let routes = "  - {host: shop.example, split: shop}
  - {path_prefix: /search, split: search}
  - {path_prefix: /find, split: search}
  - {path_prefix: /admin, split: admin}";
    let (proxy, _servers) = start(Site::new(), splits, routes).await;
    let mut client = proxy.client().await;
    let mut assigned: HashMap<(&str, Arm), f64> = HashMap::new();
    for number in 0..40 {
        let cookie = format!("sid=cookie-{number}");
        let (user, tenant) = (format!("user-{number}"), format!("tenant-{number}"));
        for (split, share, host, path, key) in [
            ("shop", "50%", "shop.example", "/", &cookie[4..]),
            ("search", "30%", "any.example", "/search/x", &user),
            ("search", "30%", "any.example", "/find", &user),
            ("admin", "70%", "any.example", "/admin", &tenant),
        ] {
            let target = format!("{path}?tenant={tenant}");
            let fields = [("host", host), ("cookie", &cookie), ("x-user", &user)];
            let arm = arm_of(&mut client, with_fields(&target, &fields)).await;
            assert_eq!(arm, Population::new(split, share).arm(key), "{split} {key}");
            *assigned.entry((split, arm)).or_default() += 1.0;
        }
    }
    for ((split, arm), count) in assigned {
        let labels = [
            ("split", split),
            ("arm", arm.as_str()),
            ("evidence", "true"),
        ];
        proxy.counts(count, "cutover_requests_total", &labels).await;
    }
}

#[tokio::test]
async fn a_reload_moves_a_route_for_the_next_request_of_a_connection() {
    let servers = Servers::start(&["one", "other"]);
    let to = |backend| format!("{}routes: [{{backend: {backend}}}]\n", servers.backends());
    let proxy = Site::new().start(&to("one")).await;
    let mut client = proxy.client().await;
    for backend in ["one", "other", "one"] {
        proxy.reconfigure(&to(backend)).await;
        let answer = client.send(request("POST", "/", "", "a write")).await;
        assert_eq!(answer.served_by(), Some(backend));
        assert_eq!(client.send(get("/", "")).await.served_by(), Some(backend));
    }
}

//! The examples in `config/`: what an operator copies must load, and mean what its comments say.

use super::*;
use crate::config::model::LimitKey;
use crate::policy::plan::{Course, Plan};
use crate::policy::rate::Rate;

/// Every file of `config/` that configures cutover, with its name.
fn examples() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let entries = std::fs::read_dir(folder).expect("the folder of examples");
    let mut examples = Vec::new();
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let text = std::fs::read_to_string(&path).expect("text");
            let name = path.file_stem().expect("a name");
            examples.push((name.to_string_lossy().into_owned(), text));
        }
    }
    // Alert rules and the like are YAML too.
    examples.retain(|(_, text)| text.contains("\nlisteners:"));
    examples.sort();
    examples
}

pub(super) fn example(name: &str) -> Config {
    let (_, text) = examples()
        .into_iter()
        .find(|(other, _)| other == name)
        .expect("an example");
    let environment = |name: &str| match name {
        "LEGACY" | "NEW" => Some("127.0.0.1:9001".to_owned()),
        "CUTOVER_TOKEN" => Some("an operator's token".to_owned()),
        other => environment(other),
    };
    let directory = production_directory();
    let config = load_text(&text, directory.path(), &environment);
    config.unwrap_or_else(|all| panic!("{name}: {all}"))
}

fn plan(config: &Config) -> &Plan {
    match &config.splits[0].course {
        Course::Planned(plan) => plan,
        Course::ByHand { .. } => panic!("no plan"),
    }
}

fn shares(config: &Config) -> Vec<String> {
    let shares = plan(config).shares();
    shares.map(|share| share.to_string()).collect()
}

#[test]
fn every_example_loads_and_all_but_the_longest_without_a_warning() {
    let names: Vec<String> = examples().into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        [
            "blue-green",
            "conservative",
            "container",
            "day-by-day",
            "manual",
            "production",
            "quickstart",
            "six-stage",
        ]
    );
    for name in names.iter().filter(|name| *name != "production") {
        assert_eq!(example(name).warnings, [], "{name}");
    }
    assert!(!example("production").splits.is_empty());
}

#[test]
fn each_plan_among_the_examples_means_what_its_name_says() {
    let six = example("six-stage");
    assert_eq!(shares(&six), ["0%", "10%", "30%", "50%", "80%", "100%"]);
    assert_eq!(plan(&six).stages()[1].criteria.advance.len(), 4);

    let conservative = example("conservative");
    assert_eq!(shares(&conservative), ["10%", "50%", "100%"]);
    let day = Duration::from_secs(86_400);
    let stages = plan(&conservative).stages().iter();
    assert!(
        stages
            .into_iter()
            .all(|stage| stage.criteria.observe >= day)
    );

    let daily = example("day-by-day");
    let stages = plan(&daily).stages().iter();
    assert!(stages.into_iter().all(|stage| stage.calendar.is_some()));

    let blue_green = example("blue-green");
    assert_eq!(shares(&blue_green), ["0%", "100%"]);
    assert!(plan(&blue_green).stages()[0].approval);

    let manual = example("manual");
    let mut stages = plan(&manual).stages().iter();
    assert!(stages.all(|stage| stage.approval));
    assert!(manual.splits[1].rules.advise);
}

#[test]
fn the_quickstart_means_what_it_says() {
    let config = load_minimal("").expect("valid");
    assert_eq!(config.warnings, []);
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.backends[1].name, "new-api");
    assert_eq!(config.backends[1].endpoints, ["127.0.0.1:9002"]);
    let split = &config.splits[0];
    assert_eq!(split.arms[Arm::New], BackendId(1));
    assert_eq!(
        split.course.file_share(),
        Share::from_basis_points(1_000).ok()
    );
    let expected = Criteria {
        advance: Vec::new(),
        ..Criteria::default()
    };
    assert_eq!(*split.course.criteria(None), expected);
    assert_eq!(split.salt, "api");
    assert_eq!(split.rollout_id, "1");
    assert_eq!(config.routes[0].target, Target::Split(SplitId(0)));
    assert_eq!(config.process.admin.address.to_string(), "127.0.0.1:9900");
}

#[test]
fn every_option_in_production_yaml_loads_and_lands_in_its_place() {
    let directory = production_directory();
    let config = load_text(PRODUCTION, directory.path(), &environment).expect("valid");
    assert_eq!(config.process.workers, 4);
    assert_eq!(
        config.process.state_directory,
        Path::new("/var/lib/cutover")
    );
    assert_eq!(config.process.admin.tokens[0].secret, SECRETS[0]);
    assert_eq!(config.process.admin.tokens[1].secret, SECRETS[1]);
    assert_eq!(config.process.admin.tokens[1].role, Role::Operate);
    assert!(config.listeners[1].tls.is_some());
    assert_eq!(config.edge.max_connections_per_address, Some(500));
    assert_eq!(config.edge.max_requests_per_connection, Some(100_000));
    let limit = config.edge.rate_limit.as_ref().expect("written");
    assert_eq!(limit.rate, Rate::new(100, 200));
    assert_eq!(config.edge.deny.len() + config.edge.allow.len(), 4);
    let new = &config.backends[1];
    assert_eq!(new.timeouts.total, Some(Duration::from_secs(120)));
    assert_eq!(new.pool.warm, 2);
    let split = &config.splits[0];
    assert_eq!(split.key.len(), 4);
    assert!(matches!(&split.key[0], KeySource::Jwt(jwt) if jwt.claim == "sub"));
    assert_eq!(split.pins["alice@example.com"], Arm::New);
    assert_eq!(split.pins["old customer"], Arm::Legacy);
    assert_eq!(split.fallback.body_limit, 65_536);
    let rollback: Vec<String> = split
        .course
        .criteria(None)
        .rollback
        .iter()
        .map(Criterion::to_string)
        .collect();
    assert_eq!(
        rollback,
        [
            "error_rate > 2%",
            "p95 > 400ms",
            "p99 > 1500ms",
            "p95 worse than legacy by 50% for 30s then hold",
            "error_rate worse than legacy by 25%",
            "client_error_rate worse than legacy by 25%",
        ]
    );
    assert_eq!(
        split.course.criteria(None).overdispersion,
        Overdispersion::Auto
    );
    assert_eq!(config.splits[1].fallback.breaker, None);
    let route = &config.routes[0].matches;
    assert_eq!(route.path, Some(PathMatch::Prefix("/checkout".to_owned())));
    assert_eq!(
        route.headers[0],
        (http::HeaderName::from_static("x-beta"), None)
    );
    assert!(!config.routes[5].fallback);
    let login = &config.routes[3];
    assert_eq!(
        (login.name.as_str(), login.max_requests),
        ("login", Some(50))
    );
    assert_eq!(login.max_body, Some(64 * 1024));
    let limit = login.rate_limit.as_ref().expect("written");
    assert_eq!(limit.key, LimitKey::ClientIp);
    let rate = Rate::within(Duration::from_secs(60), 10, 5);
    assert_eq!(limit.limit.rate, rate);
    assert_eq!(config.routes[4].name, "routes[4]");
    assert_eq!(
        config.routes[4].max_body,
        Some(100 * 1024 * 1024),
        "the edge's"
    );
    let own = &config.splits[2].course.plan().expect("a plan").stages()[1];
    assert!(own.approval);
    assert_eq!(own.criteria.min_requests, 2_000);
    assert_eq!(config.splits[2].rules.cool_down, Duration::from_secs(300));
    let signals = &config.splits[2].signals;
    let names = signals.iter().map(|signal| signal.terms.name.as_str());
    assert_eq!(
        names.collect::<Vec<_>>(),
        ["memory", "data_lag", "complaints"]
    );
    let memory = signals[0].poll.as_ref().expect("it is asked for");
    assert_eq!(memory.bearer, Some(Secret(SECRETS[0].into())));
    let of_signals = own.criteria.signal_rollback.iter().map(ToString::to_string);
    assert_eq!(
        of_signals.collect::<Vec<_>>(),
        [
            "data_lag > 10",
            "memory worse than legacy by 50% for 10m",
            "memory > 2GiB for 2m",
            "complaints > 20 then hold",
        ]
    );
}

/// Removes every line of production.yaml whose value is said to be the default: the meaning must
/// not change. So the comments, the schema and the program state the same defaults.
#[test]
fn the_defaults_that_the_example_states_are_those_in_force() {
    let directory = production_directory();
    let full = load_text(PRODUCTION, directory.path(), &environment).expect("valid");
    let is_default = |line: &&str| {
        let comment = line
            .split_once('#')
            .map_or("", |(_, comment)| comment.trim());
        comment == "default" || comment.starts_with("default;") || comment.starts_with("default.")
    };
    let (removed, kept): (Vec<&str>, Vec<&str>) = PRODUCTION
        .lines()
        .filter(|line| !line.trim_start().starts_with('#') && !line.is_empty())
        .partition(is_default);
    assert!(removed.len() > 35, "only {} lines say so", removed.len());
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut text = String::new();
    for (index, line) in kept.iter().enumerate() {
        // A mapping of which every key was removed is an empty one.
        let code = line.split('#').next().unwrap_or_default().trim_end();
        let next = kept.get(index + 1).map_or(0, |next| indent(next));
        let empty = if code.ends_with(':') && next <= indent(line) {
            " {}"
        } else {
            ""
        };
        writeln!(text, "{code}{empty}").expect("a string takes everything");
    }
    let short = load_text(&text, directory.path(), &environment);
    let short = short.unwrap_or_else(|all| panic!("{all}"));
    // Warnings carry line numbers.
    let without_warnings = |config| Config {
        warnings: Vec::new(),
        ..config
    };
    assert_eq!(without_warnings(short), without_warnings(full));
}

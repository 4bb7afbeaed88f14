//! Signals in the file.

use super::*;
use crate::policy::signal::{Absence, SignalTerms};

fn signals(written: &str) -> Vec<Signal> {
    let text = QUICKSTART.replace("    share: 10%\n", &format!("    signals:\n{written}"));
    let config = load_text(&text, Path::new("."), &environment);
    let config = config.unwrap_or_else(|problems| panic!("{problems}"));
    config.splits[0].signals.clone()
}

#[test]
fn a_signal_comes_from_prometheus_a_document_or_a_person() {
    let signals = signals(
        "      memory: {prometheus: 'https://metrics.internal/root/', query: 'rss{job=\"new\"} > 0',
               legacy_query: 'rss', interval: 5s, absent: harm, bearer: '${SECRET}'}
      lag: {http: 'http://127.0.0.1:8000/health.json?deep=1', pointer: /lag/seconds}
      complaints: {pushed: true}
      tickets: {pushed: true, fresh_for: 1d, absent: healthy}
",
    );
    let terms = |name: &str, seconds, absent, has_legacy| SignalTerms {
        name: name.to_owned(),
        fresh_for: Duration::from_secs(seconds),
        absent,
        has_legacy,
        source: String::new(),
    };
    let found = signals.iter().map(|signal| SignalTerms {
        source: String::new(),
        ..signal.terms.clone()
    });
    let found: Vec<_> = found.collect();
    let expected = [
        terms("memory", 20, Absence::Harm, true),
        terms("lag", 60, Absence::Inconclusive, false),
        terms("complaints", 3_600, Absence::Inconclusive, true),
        terms("tickets", 86_400, Absence::Healthy, true),
    ];
    assert_eq!(found, expected);
    let memory = signals[0].poll.as_ref().expect("it is asked for");
    assert_eq!(
        memory.new,
        HttpTarget {
            is_secure: true,
            endpoint: "metrics.internal:443".to_owned(),
            host: "metrics.internal".to_owned(),
            path: "/root/api/v1/query?query=rss%7Bjob%3D%22new%22%7D%20%3E%200".to_owned(),
        }
    );
    assert!(memory.legacy.is_some());
    assert_eq!(memory.timeout, Duration::from_secs(5));
    assert!(!format!("{memory:?}").contains(SECRETS[0]));
    let lag = signals[1].poll.as_ref().expect("it is asked for");
    assert_eq!(lag.new.path, "/health.json?deep=1");
    assert_eq!(lag.new.host, "127.0.0.1:8000");
    let pointer = "/lag/seconds".to_owned();
    assert_eq!(lag.answer, SignalAnswer::Json { pointer });
    assert_eq!(signals[2].poll, None);
}

#[test]
fn a_source_is_another_where_something_else_is_asked_or_somebody_else() {
    let source = |written: &str| {
        let signals = signals(&format!("      memory: {{{written}}}\n"));
        signals[0].terms.source.clone()
    };
    let asked = [
        "prometheus: 'http://127.0.0.1:9090', query: rss",
        "prometheus: 'http://127.0.0.1:9090', query: rss / 1e6",
        "prometheus: 'http://127.0.0.1:9091', query: rss",
        "prometheus: 'http://127.0.0.1:9090', query: rss, legacy_query: rss",
        "http: 'http://127.0.0.1:9090', pointer: /rss",
        "http: 'http://127.0.0.1:9090', pointer: /mib",
        "pushed: true",
    ];
    let sources: std::collections::BTreeSet<_> = asked.into_iter().map(source).collect();
    assert_eq!(sources.len(), asked.len());
    let rarely = format!("{}, interval: 30s, bearer: '${{SECRET}}'", asked[0]);
    assert_eq!(source(&rarely), source(asked[0]), "how often is no matter");
}

#[test]
fn criteria_name_signals_beside_metrics_and_a_stage_has_its_own() {
    let text = QUICKSTART.replace(
        "    share: 10%\n",
        "    signals: {lag: {pushed: true}, memory: {pushed: true}}
    rollback: ['memory > 2GiB', 'lag > 5 for 1m then hold', 'error_rate > 2%']
    advance: ['lag < 3']
    stages: [5%, {share: 100%, rollback: ['lag > 4'], advance: off}]
",
    );
    let config = load_text(&text, Path::new("."), &environment);
    let config = config.unwrap_or_else(|problems| panic!("{problems}"));
    let course = &config.splits[0].course;
    let written = |stage: usize| {
        let criteria = course.criteria(Some(stage));
        let harm = criteria.signal_rollback.iter().map(ToString::to_string);
        let needed = criteria.signal_advance.iter().map(ToString::to_string);
        (harm.collect::<Vec<_>>(), needed.collect::<Vec<_>>())
    };
    let (harm, needed) = written(0);
    assert_eq!(harm, ["memory > 2GiB", "lag > 5 for 1m then hold"]);
    assert_eq!(needed, ["lag < 3"]);
    let (harm, needed) = written(1);
    assert_eq!(harm, ["lag > 4", "memory > 2GiB"]);
    assert_eq!(needed, Vec::<String>::new());
}

#[test]
fn a_criterion_names_a_metric_or_a_signal_of_its_split() {
    for (list, said) in [
        (
            "rollback: ['lagg > 5']",
            "there is no metric and no signal `lagg`",
        ),
        (
            "advance: ['errors < 5%']\n    stages: [0%, 10%]",
            "there is no metric and no signal `errors`",
        ),
        (
            "rollback: ['lag worse than legacy by 5%']",
            "`lag` has no value of legacy to compare with",
        ),
    ] {
        let signal = "signals: {lag: {http: 'http://a', pointer: /x}}";
        let problems = split_problems(&format!("{signal}\n    {list}\n"));
        assert_eq!(problems[0].message, said);
        assert!(problems[0].line > 0);
    }
}

#[test]
fn criteria_on_one_signal_neither_repeat_nor_contradict_each_other() {
    let said = |lists: &str| {
        let signals = "signals: {lag: {pushed: true}, load: {pushed: true}}";
        // Without stages there is nothing to advance.
        let stages = if lists.contains("stages") {
            ""
        } else {
            "    stages: [0%, 10%]\n"
        };
        let written = format!("    {signals}\n{stages}{lists}\n");
        let text = QUICKSTART.replace("    share: 10%\n", &written);
        let loaded = load_text(&text, Path::new("."), &environment);
        let problems = loaded
            .err()
            .map(|problems| problems.problems)
            .unwrap_or_default();
        assert!(
            problems
                .iter()
                .all(|one| one.line > 0 && !one.remedy.is_empty())
        );
        let messages = problems.into_iter().map(|one| one.message);
        messages.collect::<Vec<_>>()
    };
    for sound in [
        "    rollback: ['lag > 5', 'lag > 3 for 1m', 'lag > 3 then notify', 'lag < 0', 'load > 5']",
        "    rollback: ['lag > 5']\n    advance: ['lag < 5', 'load < 9']",
        "    rollback: ['lag > 5 then notify']\n    advance: ['lag < 9']",
        "    rollback: ['load > 5', 'load < 1']\n    advance: ['load > 1', 'load < 5']",
        "    rollback: ['lag worse than legacy by 20%']
    advance: ['lag not worse than legacy by 20%', 'lag < 9']",
        "    rollback: ['lag > 5']\n    stages: [5%, {share: 100%, rollback: ['lag > 9']}]",
    ] {
        assert_eq!(said(sound), Vec::<String>::new(), "{sound}");
    }
    for (lists, expected) in [
        (
            "    rollback: ['lag > 5', 'lag > 6']",
            "`lag > 5` limits the same already",
        ),
        (
            "    rollback: ['lag > 6 for 1m', 'lag > 5 for 30s']",
            "`lag > 6 for 1m` limits the same already",
        ),
        (
            "    advance: ['lag < 5', 'lag < 6']",
            "`lag < 5` limits the same already",
        ),
        (
            "    rollback: ['lag > 5']\n    advance: ['lag < 6']",
            "`lag < 6` of `advance` contradicts `lag > 5` of `rollback`: what is proven could be \
             harm",
        ),
        (
            "    rollback: ['lag < 5 then hold']\n    advance: ['lag > 4']",
            "`lag > 4` of `advance` contradicts `lag < 5 then hold` of `rollback`: what is proven \
             could be harm",
        ),
        (
            "    rollback: ['lag > 5']\n    advance: ['lag > 5']",
            "`lag > 5` of `advance` contradicts `lag > 5` of `rollback`: what is proven could be \
             harm",
        ),
        (
            "    rollback: ['lag worse than legacy by 10%']
    advance: ['lag not worse than legacy by 20%']",
            "`lag not worse than legacy by 20%` of `advance` contradicts `lag worse than legacy by \
             10%` of `rollback`: what is proven could be harm",
        ),
        (
            "    rollback: ['lag > 9']\n    advance: ['lag < 8']
    stages: [5%, {share: 50%, rollback: ['lag > 7']}, {share: 100%, rollback: ['lag > 7']}]",
            "`lag < 8` of `advance` contradicts `lag > 7` of `rollback`: what is proven could be \
             harm",
        ),
    ] {
        let messages = said(lists);
        assert_eq!(messages[0], expected, "{lists}");
    }
}

#[test]
fn a_signal_that_cannot_work_is_refused_with_a_remedy() {
    for (written, said) in [
        ("x: {}", "this signal comes from nowhere"),
        ("x: {pushed: false}", "this signal comes from nowhere"),
        (
            "x: {pushed: true, http: 'http://a', pointer: /x}",
            "a signal comes from one place",
        ),
        ("x: {prometheus: 'http://a'}", "`prometheus` needs `query`"),
        ("x: {http: 'http://a'}", "`http` needs `pointer`"),
        (
            "x: {http: 'http://a', pointer: /x, query: up}",
            "a signal from a JSON document has no use for this",
        ),
        (
            "x: {prometheus: 'http://a', query: up, pointer: /x}",
            "a signal from Prometheus has no use for this",
        ),
        (
            "x: {pushed: true, interval: 5s}",
            "nobody is asked for a signal that is pushed",
        ),
        (
            "x: {http: 'http://a', pointer: /x, interval: 30s, fresh_for: 20s}",
            "a value would be stale before the next one is asked for",
        ),
        (
            "x: {http: 'http://a', pointer: /x, tls: {}}",
            "the source is not asked over TLS",
        ),
        (
            "x: {http: 'http://a', pointer: /x, bearer: \"a\\nb\"}",
            "this token cannot stand in a header",
        ),
        ("p95: {pushed: true}", "a signal cannot be called `p95`"),
        (
            "Memory: {pushed: true}",
            "a signal cannot be called `Memory`",
        ),
        ("x: {http: 'a:80', pointer: /x}", "`a:80` is no web address"),
        (
            "x: {http: 'http://a', pointer: x}",
            "`x` is no JSON pointer",
        ),
        ("x: {pushed: true, freshness: 5s}", "unknown key"),
        (
            "x: {pushed: true, fresh_for: 0s}",
            "`0s` is no positive length of time",
        ),
    ] {
        let problems = split_problems(&format!("signals:\n      {written}\n"));
        let [problem] = &problems[..] else {
            panic!("{written}: {problems:?}");
        };
        assert_eq!(problem.message, said, "{written}");
        assert!(!problem.remedy.is_empty() && problem.line > 0, "{written}");
    }
    let many: String = (0..33).fold(String::new(), |mut many, number| {
        writeln!(many, "      s{number}: {{pushed: true}}").expect("a string takes everything");
        many
    });
    let problems = split_problems(&format!("signals:\n{many}"));
    assert_eq!(problems[0].message, "33 signals");
}

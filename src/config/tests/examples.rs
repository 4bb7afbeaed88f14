//! The examples in `config/`: what an operator copies must load, and mean what its comments say.

use super::*;
use crate::policy::plan::{Course, Plan};

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

fn example(name: &str) -> Config {
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

use std::path::Path;

use super::*;
use crate::config::load_text;
use crate::policy::arm::Arm;
use crate::policy::class::Class;
use crate::telemetry::WorkerId;

#[test]
fn a_plan_that_the_traffic_of_late_cannot_prove_is_doubted_when_it_is_loaded() {
    let text = include_str!("../../../config/quickstart.yaml");
    let config = |shares: &str| {
        let text = text.replace("share: 10%", shares);
        load_text(&text, Path::new("."), &|_| None).expect("a valid file")
    };
    let made = World::new(Clock::start(), config("share: 10%"), Saved::default());
    let (mut world, _) = made.expect("it can be put in force");
    let doubts = |world: &World| {
        let planned = world.plan(config("stages: [0%, 1%, 100%]"));
        planned.expect("it can be put in force").doubts()
    };
    assert_eq!(doubts(&world), [""; 0], "nothing is known yet");
    let minute = Duration::from_secs(60);
    world.splits[0].traffic.observe(60, minute);
    let said = doubts(&world);
    assert!(said[0].starts_with("api: stage 2 (1%) needs "), "{said:?}");
    world.splits[0].traffic.observe(6_000_000, minute);
    assert_eq!(doubts(&world), [""; 0]);
}

#[test]
fn a_split_is_saved_every_time_only_if_something_happens_or_ripens_there() {
    let text = include_str!("../../../config/quickstart.yaml");
    let ripening =
        "  ripening: {legacy: legacy-api, new: new-api, stages: [0%, 10%, 100%]}\n\nroutes:";
    let text = text.replace("\nroutes:", ripening);
    let config = load_text(&text, Path::new("."), &|_| None).expect("a valid file");
    let made = World::new(Clock::start(), config, Saved::default());
    let (mut world, _) = made.expect("it can be put in force");
    let named = |world: &mut World| {
        world.observe();
        let memory = world.memory_of_stirred([]);
        let rollouts = memory.rollouts.into_iter();
        rollouts.map(|(split, _)| split).collect::<Vec<_>>()
    };
    assert_eq!(named(&mut world), ["api", "ripening"], "both are new");
    assert_eq!(named(&mut world), ["ripening"]);
    let tally = Arc::clone(&world.splits[0].tally);
    tally
        .arm(WorkerId(0), Arm::Legacy)
        .book(Class::Success, None);
    assert_eq!(named(&mut world), ["api", "ripening"]);
    assert_eq!(named(&mut world), ["ripening"]);
}

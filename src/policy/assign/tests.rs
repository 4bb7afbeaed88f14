use proptest::prelude::*;

use super::*;
use crate::policy::address_key::{Addresses, TypedKey};

fn share(basis_points: u16) -> Share {
    Share::from_basis_points(basis_points).expect("at most 10 000")
}

fn by_hash(salt: Salt, key: &[u8], share: Share) -> Arm {
    let assignment = assign(Circumstances {
        emergency: false,
        pinned: None,
        token: None,
        hash: Some(salt.hash(key)),
        share,
    });
    assert_eq!(assignment.cause, Cause::Hash);
    assignment.arm
}

#[test]
fn an_emergency_beats_a_pin_beats_a_token_beats_the_hash() {
    let everything = Circumstances {
        emergency: true,
        pinned: Some(Arm::New),
        token: Some(Arm::Legacy),
        hash: Some(Salt::new("s").hash(b"alice")),
        share: Share::ALL,
    };
    let decided = |circumstances| {
        let assignment = assign(circumstances);
        (assignment.cause, assignment.arm, assignment.is_evidence())
    };
    let calm = Circumstances {
        emergency: false,
        ..everything
    };
    let unpinned = Circumstances {
        pinned: None,
        ..calm
    };
    let plain = Circumstances {
        token: None,
        ..unpinned
    };
    let keyless = Circumstances {
        hash: None,
        ..plain
    };
    assert_eq!(decided(everything), (Cause::Emergency, Arm::Legacy, false));
    assert_eq!(decided(calm), (Cause::Pin, Arm::New, false));
    assert_eq!(decided(unpinned), (Cause::Token, Arm::Legacy, false));
    assert_eq!(decided(plain), (Cause::Hash, Arm::New, true));
    assert_eq!(decided(keyless), (Cause::Keyless, Arm::Legacy, false));
}

#[test]
fn a_pin_to_new_holds_at_share_zero() {
    let pinned = assign(Circumstances {
        emergency: false,
        pinned: Some(Arm::New),
        token: None,
        hash: Some(Salt::new("s").hash(b"alice")),
        share: Share::ZERO,
    });
    assert_eq!((pinned.arm, pinned.cause), (Arm::New, Cause::Pin));
    assert!(pinned.bucket.is_some() && pinned.cluster.is_some());
}

proptest! {
    #[test]
    fn raising_the_share_only_moves_keys_to_new_and_lowering_only_back(
        salt in ".{0,12}",
        key in prop::collection::vec(any::<u8>(), 0..300),
        one in 0..=Bucket::COUNT,
        other in 0..=Bucket::COUNT,
    ) {
        let salt = Salt::new(&salt);
        let low = by_hash(salt, &key, share(one.min(other)));
        let high = by_hash(salt, &key, share(one.max(other)));
        prop_assert!(
            low == high || (low, high) == (Arm::Legacy, Arm::New),
            "{low} at the lower share, {high} at the higher"
        );
    }

    #[test]
    fn nobody_is_on_new_at_zero_and_everybody_at_a_hundred_percent(
        key in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        prop_assert_eq!(by_hash(Salt::new("s"), &key, Share::ZERO), Arm::Legacy);
        prop_assert_eq!(by_hash(Salt::new("s"), &key, Share::ALL), Arm::New);
    }

    #[test]
    fn the_share_at_which_a_key_moves_is_the_one_that_is_told(key in ".{0,40}") {
        let salt = Salt::new("s");
        let first = salt.hash(key.as_bytes()).bucket().first_share();
        prop_assert_eq!(by_hash(salt, key.as_bytes(), first), Arm::New);
        let below = share(first.basis_points() - 1);
        prop_assert_eq!(by_hash(salt, key.as_bytes(), below), Arm::Legacy);
    }
}

/// Session keys as they occur: counters, padded counters and identifiers in hex.
fn keys() -> impl Iterator<Item = String> {
    (0..100_000_u64).map(|n| match n % 3 {
        0 => format!("{n}"),
        1 => format!("user-{n:08}"),
        _ => format!("{:032x}", u128::from(n) << 64 | 0xcafe),
    })
}

/// Of 100,000 keys, the number on `new` is binomial. Four and a half standard deviations leave room
/// for chance (once in 150,000 draws) and none for a bias of a tenth of the share at 1 %.
#[test]
fn the_share_of_keys_on_new_is_the_share_asked_for() {
    for basis_points in [100, 1_000, 5_000] {
        for name in ["checkout", "search", "2026-11"] {
            let (salt, share) = (Salt::new(name), share(basis_points));
            let on_new = keys().filter(|key| by_hash(salt, key.as_bytes(), share) == Arm::New);
            let (found, p) = (on_new.count() as f64, share.ratio());
            let (mean, deviation) = (100_000.0 * p, (100_000.0 * p * (1.0 - p)).sqrt());
            assert!(
                (found - mean).abs() < 4.5 * deviation,
                "{name} at {share}: {found} keys, expected {mean} ± {deviation}"
            );
        }
    }
}

/// Pearson's statistic of the table that counts keys by their tenth of the key space under one salt
/// and under another: 81 degrees of freedom, so about 81 if the two are independent.
fn dependence(one: Salt, other: Salt) -> f64 {
    let mut table = [[0_u32; 10]; 10];
    for key in keys() {
        let tenth = |salt: Salt| usize::from(salt.hash(key.as_bytes()).bucket().index() / 1_000);
        table[tenth(one)][tenth(other)] += 1;
    }
    let total = 100_000.0;
    let row = |i: usize| f64::from(table[i].iter().sum::<u32>());
    let column = |j: usize| f64::from(table.iter().map(|row| row[j]).sum::<u32>());
    let cells = (0..10).flat_map(|i| (0..10).map(move |j| (i, j)));
    cells
        .map(|(i, j)| {
            let expected = row(i) * column(j) / total;
            (f64::from(table[i][j]) - expected).powi(2) / expected
        })
        .sum()
}

/// Two splits must not pick the same people, else whoever suffers from one experiment suffers from
/// all. A hash that ignored the salt would give 900,000 here; the same salt given twice does so on
/// purpose. 140 is exceeded by chance once in about 20,000 pairs.
#[test]
fn splits_with_different_salts_assign_independently_and_with_the_same_salt_alike() {
    let checkout = Salt::new("checkout");
    for other in ["search", "checkouu", "Checkout", "checkout ", ""] {
        let statistic = dependence(checkout, Salt::new(other));
        assert!(statistic < 140.0, "{other:?}: {statistic}");
    }
    assert!(dependence(checkout, Salt::new("checkout")) > 800_000.0);
}

/// The cluster comes from the low bits and the arm from the high ones, so that each cluster holds
/// its part of `new`.
#[test]
fn every_cluster_has_its_part_of_new() {
    let salt = Salt::new("checkout");
    let mut counts = [(0_u32, 0_u32); Cluster::COUNT];
    for key in keys() {
        let hash = salt.hash(key.as_bytes());
        let (all, new) = &mut counts[hash.cluster().index()];
        *all += 1;
        *new += u32::from(share(1_000).contains(hash.bucket()));
    }
    for (all, new) in counts {
        let (mean, found) = (f64::from(all) * 0.1, f64::from(new));
        assert!(
            (found - mean).abs() < 4.5 * (mean * 0.9).sqrt(),
            "{new} of {all}"
        );
    }
}

#[test]
fn an_explanation_says_where_a_key_goes_and_what_would_move_it() {
    let question = Question {
        split: "checkout",
        salt: Salt::new("checkout"),
        key: TypedKey::new("alice", Addresses::Never),
        pinned: None,
        share: share(1_000),
        emergency: false,
    };
    let explanation = explain(question);
    assert_eq!((explanation.bucket, explanation.cluster), (7457, 39));
    assert_eq!(
        (explanation.arm, explanation.cause),
        (Arm::Legacy, Cause::Hash)
    );
    assert_eq!(
        explanation.sentence,
        "On split checkout, key \"alice\" goes to legacy: its bucket 7457 is not below 1000, the \
         share of 10%; it moves to new when the share reaches 74.58%."
    );
    let at_eighty = explain(Question {
        share: share(8_000),
        ..question
    });
    assert_eq!(
        at_eighty.sentence,
        "On split checkout, key \"alice\" goes to new: its bucket 7457 is below 8000, the share of \
         80%."
    );
    let pinned = explain(Question {
        pinned: Some(Arm::New),
        ..question
    });
    assert_eq!((pinned.arm, pinned.cause), (Arm::New, Cause::Pin));
    let emergency = explain(Question {
        pinned: Some(Arm::New),
        emergency: true,
        ..question
    });
    assert_eq!(
        (emergency.arm, emergency.cause),
        (Arm::Legacy, Cause::Emergency)
    );
}

#[test]
fn an_address_is_explained_by_the_key_that_its_requests_have() {
    let asked = |typed: &'static str, addresses| {
        explain(Question {
            split: "shop",
            salt: Salt::new("shop"),
            key: TypedKey::new(typed, addresses),
            pinned: None,
            share: Share::ALL,
            emergency: false,
        })
    };
    let network = asked("2001:db8:0:1::", Addresses::Always);
    for addresses in [Addresses::Always, Addresses::Sometimes] {
        let address = asked("2001:db8:0:1:a::5", addresses);
        assert_eq!(
            (&address.key, address.bucket),
            (&network.key, network.bucket)
        );
        let (about, doubt) = address
            .sentence
            .split_once(" goes to new")
            .expect("it does");
        assert_eq!(
            about,
            "On split shop, key \"2001:db8:0:1::\", which is that of a client at \
             2001:db8:0:1:a::5,"
        );
        let is_doubtful = doubt.contains("would be hashed as it is");
        assert_eq!(is_doubtful, addresses == Addresses::Sometimes, "{doubt}");
    }
    let session = asked("2001:db8:0:1:a::5", Addresses::Never);
    assert_eq!(session.key, "2001:db8:0:1:a::5");
    assert_ne!(session.bucket, network.bucket);
}

#[test]
fn an_explanation_reads_back_as_it_was_written() {
    let explanation = explain(Question {
        split: "s",
        salt: Salt::new("s"),
        key: TypedKey::new("a \"quoted\" \u{1b} key", Addresses::Always),
        pinned: None,
        share: Share::ALL,
        emergency: false,
    });
    assert!(!explanation.sentence.contains('\u{1b}'));
    let json = serde_json::to_string(&explanation).expect("plain data");
    assert!(json.contains("\"cause\":\"hash\"") && json.contains("\"arm\":\"new\""));
    let read: Explanation = serde_json::from_str(&json).expect("its own form");
    assert_eq!(read, explanation);
}

//! Backups: what they hold, what is refused, and what an import may never do.

use serde_json::json;

use super::*;
use crate::state::tests::rollout_at;

fn filled(directory: &Path) -> Store {
    let store = Store::open(directory).unwrap();
    let (first, first_decision) = rollout_at(100);
    let (second, second_decision) = rollout_at(2_500);
    let records = [("shop", first.record()), ("search", second.record())];
    let records = records.iter().map(|(split, record)| (*split, record));
    let denial = Denial {
        since: Timestamp::default(),
        until: None,
        actor: "alice".to_owned(),
        reason: "a flood".to_owned(),
    };
    let network = "192.0.2.0/24".parse().unwrap();
    let denials = [(network, denial)].into_iter().collect();
    let changes = Changes {
        emergency: Some(true),
        denials: Some(&denials),
    };
    store
        .commit(records, changes, [&first_decision, &second_decision])
        .unwrap();
    store
}

fn document_of(store: &Store) -> Document {
    let reading = store.reading().unwrap();
    reading.document(Timestamp::default()).unwrap()
}

/// A document as it was written, for tests that change something in it.
fn written() -> Value {
    let directory = tempfile::tempdir().unwrap();
    serde_json::to_value(document_of(&filled(directory.path()))).unwrap()
}

fn import(
    document: &Document,
    directory: &Path,
    replacing: Replacing,
) -> Result<Option<PathBuf>, ImportError> {
    document.import(directory, replacing, Timestamp::default())
}

#[test]
fn a_backup_brings_back_everything() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (directory.path().join("old"), directory.path().join("new"));
    let store = filled(&old);
    let document = document_of(&store);
    let text = store.reading().unwrap().export(Timestamp::default());
    let read = Document::parse(&text.unwrap()).unwrap();
    assert_eq!(read, document);
    assert_eq!(import(&read, &new, Replacing::Never).unwrap(), None);
    let found = Store::open(&new).unwrap();
    assert!(!found.is_new());
    assert_eq!(found.load().unwrap(), store.load().unwrap());
    assert_eq!(found.history(10).unwrap(), store.history(10).unwrap());
    assert_eq!(found.history(10).unwrap().len(), 2);
}

#[test]
fn damage_is_refused_with_the_name_of_its_place() {
    for (pointer, value, place) in [
        ("/format", json!("one"), "`format`"),
        ("/format", json!(0), "`format`"),
        ("/version", json!(1), "`version`"),
        ("/emergency", json!("yes"), "`emergency`"),
        ("/rollouts", json!([]), "`rollouts`"),
        ("/rollouts/shop", json!({}), "`rollouts.shop`"),
        ("/rollouts/shop/state", json!("moon"), "`rollouts.shop`"),
        ("/rollouts/shop/version", json!(0), "`rollouts.shop`"),
        ("/audit/1", json!(3), "`audit[1]`"),
        ("/audit/1/to", json!(10_001), "`audit[1]`"),
    ] {
        let mut written = written();
        *written.pointer_mut(pointer).unwrap() = value.clone();
        let error = Document::parse(&written.to_string()).expect_err(pointer);
        assert!(matches!(error, Unreadable::Damaged { .. }), "{error:?}");
        assert!(
            error.to_string().starts_with(place),
            "{value} at {pointer}: {error}"
        );
    }
    for name in ["format", "version", "at", "emergency", "rollouts", "audit"] {
        let mut written = written();
        written.as_object_mut().unwrap().remove(name);
        let message = Document::parse(&written.to_string())
            .expect_err(name)
            .to_string();
        assert_eq!(message, format!("`{name}` is damaged: it is missing"));
    }
    let mut more = written();
    more["moon"] = json!("full");
    let message = Document::parse(&more.to_string())
        .expect_err("moon")
        .to_string();
    assert!(message.starts_with("`moon`"), "{message}");
    let whole = written().to_string();
    for part in ["", "[]", &whole[..whole.len() / 2]] {
        let message = Document::parse(part).expect_err(part).to_string();
        assert!(message.starts_with("the document"), "{message}");
    }
}

#[test]
fn a_record_with_a_field_that_is_missing_or_unknown_at_any_depth_is_refused() {
    let refused = |written: &Value| {
        let read = Document::parse(&written.to_string()).map(|_| "read");
        read.expect_err("it is not what was written").to_string()
    };
    let mut misspelt = written();
    let state = &mut misspelt["rollouts"]["shop"]["state"];
    let latch = state.as_object_mut().unwrap().remove("latch").unwrap();
    state["ltach"] = latch;
    let message = refused(&misspelt);
    assert!(message.starts_with("`rollouts.shop`"), "{message}");
    assert!(message.contains("`state.ltach`"), "{message}");
    for part in ["", "/state", "/state/times", "/state/board", "/evidence"] {
        let pointer = format!("/rollouts/shop{part}");
        let whole = written();
        let names = whole.pointer(&pointer).unwrap().as_object().unwrap().keys();
        for name in names {
            let mut less = whole.clone();
            let fields = less.pointer_mut(&pointer).unwrap();
            fields.as_object_mut().unwrap().remove(name).unwrap();
            assert!(refused(&less).contains(name), "{name} of {part}");
        }
        let mut more = whole.clone();
        more.pointer_mut(&pointer).unwrap()["moon"] = json!("full");
        assert!(
            refused(&more).contains("moon`, which nobody wrote"),
            "{part}"
        );
    }
}

#[test]
fn a_document_that_another_tool_has_formatted_and_one_of_an_older_decision_are_read() {
    let mut other = written();
    let whole = Document::parse(&other.to_string()).unwrap();
    let state = &mut other["rollouts"]["shop"]["state"];
    assert_eq!(state["times"]["stage"], json!(0.0));
    state["times"]["stage"] = json!(0);
    assert_eq!(Document::parse(&other.to_string()).unwrap(), whole);
    let state = &mut other["rollouts"]["shop"]["state"];
    let decision = state["last_decision"].as_object_mut().unwrap();
    decision.remove("needs").unwrap();
    Document::parse(&other.to_string()).unwrap();
}

#[test]
fn an_import_leaves_what_is_not_its_own_alone_and_nothing_of_its_own_behind() {
    let directory = tempfile::tempdir().unwrap();
    let theirs = directory.path().join("import");
    fs::create_dir(&theirs).unwrap();
    fs::write(theirs.join("notes"), "mine").unwrap();
    let document = Document::parse(&written().to_string()).unwrap();
    import(&document, directory.path(), Replacing::Never).unwrap();
    assert_eq!(fs::read(theirs.join("notes")).unwrap(), b"mine");
    let mut names: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, [Store::FILE_NAME, "import"]);
}

#[test]
fn a_newer_document_or_record_is_refused() {
    for (pointer, place) in [
        ("/format", "`format`"),
        ("/rollouts/shop/version", "`rollouts.shop`"),
    ] {
        let mut written = written();
        *written.pointer_mut(pointer).unwrap() = json!(99);
        // The rest need not be understood.
        written["rollouts"]["shop"]["state"] = json!("moon");
        let error = Document::parse(&written.to_string()).expect_err(pointer);
        assert!(
            matches!(error, Unreadable::Newer { found: 99, .. }),
            "{error:?}"
        );
        assert!(error.to_string().starts_with(place), "{error}");
    }
}

#[test]
fn a_store_that_holds_something_is_replaced_only_on_request_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    drop(filled(directory.path()));
    let mut document = Document::parse(&written().to_string()).unwrap();
    document.emergency = false;
    document.audit.pop();
    let error = import(&document, directory.path(), Replacing::Never).expect_err("it is full");
    assert!(
        matches!(
            error,
            ImportError::NotEmpty {
                rollouts: 2,
                decisions: 2,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(
        Store::open(directory.path())
            .unwrap()
            .load()
            .unwrap()
            .emergency
    );

    let aside = import(&document, directory.path(), Replacing::SetAside).unwrap();
    let store = Store::open(directory.path()).unwrap();
    assert!(!store.load().unwrap().emergency);
    assert_eq!(store.history(10).unwrap().len(), 1);
    let old = Store::reopen(&aside.expect("it is kept")).unwrap();
    assert!(old.load().unwrap().emergency);
    assert_eq!(old.history(10).unwrap().len(), 2);
}

#[test]
fn a_damaged_store_is_replaced_only_on_request_and_kept_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(Store::FILE_NAME);
    fs::write(&file, "damage").unwrap();
    let document = Document::parse(&written().to_string()).unwrap();
    let error = import(&document, directory.path(), Replacing::Never).expect_err("damaged");
    assert!(
        matches!(error, ImportError::Open(OpenError::Damaged { .. })),
        "{error:?}"
    );
    assert_eq!(fs::read(&file).unwrap(), b"damage");
    let aside = import(&document, directory.path(), Replacing::SetAside).unwrap();
    assert_eq!(fs::read(aside.expect("it is kept")).unwrap(), b"damage");
    assert!(
        Store::open(directory.path())
            .unwrap()
            .load()
            .unwrap()
            .emergency
    );
}

#[test]
fn a_store_in_use_is_never_replaced_and_one_that_holds_nothing_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let document = Document::parse(&written().to_string()).unwrap();
    let running = Store::open(directory.path()).unwrap();
    for replacing in [Replacing::Never, Replacing::SetAside] {
        let error = import(&document, directory.path(), replacing).expect_err("in use");
        assert!(
            matches!(error, ImportError::Open(OpenError::Locked { .. })),
            "{error:?}"
        );
    }
    assert!(running.load().unwrap().rollouts.is_empty());
    drop(running);
    import(&document, directory.path(), Replacing::Never).unwrap();
    assert_eq!(
        Store::open(directory.path())
            .unwrap()
            .load()
            .unwrap()
            .rollouts
            .len(),
        2
    );
}

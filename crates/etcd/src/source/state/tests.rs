use tower_sd_core::Instance;

use super::*;
use crate::{Codec, NamingJson, RawAddress, key::service_range, source::instances::Instances};

const AT_100: Position = Position { cluster: 1, revision: 100, term: 0 };

fn state(list: impl IntoIterator<Item = Change>) -> State<Instances> {
    let range = service_range("p", "s").expect("good names");
    let codecs: Vec<Arc<dyn Codec>> = vec![Arc::new(NamingJson), Arc::new(RawAddress)];
    State::new(Arc::new(Instances::new(range, codecs)), AT_100, list)
}

fn put(id: &str, revision: i64, value: &str) -> Change {
    Change {
        key: format!("p/s/{id}").into_bytes(),
        mod_revision: revision,
        value: Some(value.as_bytes().to_vec()),
        lease: 7,
    }
}

fn deleted(id: &str, revision: i64) -> Change {
    Change { value: None, ..put(id, revision, "") }
}

/// The ids and ports; `!` where an entry is malformed.
fn seen(state: &State<Instances>) -> Vec<String> {
    let one = |entry: &Result<Instance>| match entry {
        Ok(instance) => format!("{}:{}", instance.id(), instance.port()),
        Err(error) => format!("!{}", error.instance().expect("it has a name")),
    };
    state.reading().entries().expect("a set").iter().map(one).collect()
}

#[test]
fn older_and_repeated_changes_are_ignored() {
    let mut state = state([put("a", 50, "h:1"), put("b", 60, "h:1")]);
    assert!(!state.apply(vec![put("a", 50, "h:9")]), "the list has it");
    assert!(!state.apply(vec![put("c", 99, "h:9"), deleted("b", 70)]), "older than the list");
    assert_eq!(seen(&state), ["a:1", "b:1"]);
    assert!(state.apply(vec![put("a", 101, "h:2"), deleted("b", 102)]));
    assert!(!state.apply(vec![put("a", 101, "h:2")]), "once is enough");
    assert!(!state.apply(vec![put("b", 101, "h:9")]), "it does not come back from the past");
    assert_eq!(seen(&state), ["a:2"]);
    assert!(!state.apply(vec![deleted("b", 102)]), "it is gone already");
    assert!(state.apply(vec![put("b", 103, "h:3")]));
    assert_eq!(seen(&state), ["a:2", "b:3"]);
}

#[test]
fn one_transaction_changes_several_keys_at_one_revision() {
    let mut state = state([put("a", 50, "h:1")]);
    assert!(state.apply(vec![deleted("a", 101), put("b", 101, "h:1"), put("c", 101, "h:1")]));
    assert_eq!(seen(&state), ["b:1", "c:1"]);
}

/// One bad value costs one entry; several codecs read during a migration.
#[test]
fn malformed_value_is_one_entry_and_every_codec_is_tried() {
    let mut state = state([put("a", 50, "{"), put("b", 51, r#"{"Addr":"h:2"}"#)]);
    assert!(state.apply(vec![put("c", 101, "http://h:3")]));
    assert_eq!(seen(&state), ["!a", "b:2", "c:3"]);
    assert!(state.apply(vec![put("a", 102, "h:1")]));
    assert_eq!(seen(&state), ["a:1", "b:2", "c:3"]);
}

#[test]
fn state_is_current_only_with_the_same_keys_and_newest_one() {
    let mut state = state([put("a", 50, "h:1"), put("b", 60, "h:1")]);
    let at = |revision| Position { revision, ..AT_100 };
    let newest = |id, revision| Some(put(id, revision, ""));
    assert!(state.is_at(at(100), 2, newest("b", 60).as_ref()));
    assert!(state.is_at(at(500), 2, newest("b", 60).as_ref()), "others have changed");
    for (now, n_keys, newest) in [
        (at(99), 2, newest("b", 60)),
        (Position { cluster: 2, ..AT_100 }, 2, newest("b", 60)),
        (at(101), 1, newest("b", 60)),
        (at(101), 3, newest("b", 60)),
        (at(101), 2, newest("b", 101)),
        (at(101), 2, newest("c", 101)),
        (at(101), 0, None),
    ] {
        assert!(!state.is_at(now, n_keys, newest.as_ref()), "{now:?} {n_keys} {newest:?}");
    }
    assert!(state.apply(vec![deleted("a", 101), deleted("b", 102)]));
    assert!(state.is_at(at(102), 0, None));
}

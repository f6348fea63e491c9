use tower_sd_core::Instance;

use super::*;
use crate::{Codec, NamingJson, RawAddress, instancer::Instances, key::service_range};

fn known(list: impl IntoIterator<Item = Change>) -> Known<Instances> {
    let range = service_range("p", "s").expect("good names");
    let codecs: Vec<Arc<dyn Codec>> = vec![Arc::new(NamingJson), Arc::new(RawAddress)];
    Known::new(Arc::new(Instances::new(range, codecs)), 100, list)
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
fn seen(known: &Known<Instances>) -> Vec<String> {
    let one = |entry: &Result<Instance>| match entry {
        Ok(instance) => format!("{}:{}", instance.id(), instance.port()),
        Err(error) => format!("!{}", error.instance().expect("it has a name")),
    };
    known.reading().entries().expect("a set").iter().map(one).collect()
}

/// T55.
#[test]
fn older_and_repeated_changes_are_ignored() {
    let mut known = known([put("a", 50, "h:1"), put("b", 60, "h:1")]);
    assert!(!known.apply(vec![put("a", 50, "h:9")]), "the list has it");
    assert!(!known.apply(vec![put("c", 99, "h:9"), deleted("b", 70)]), "older than the list");
    assert_eq!(seen(&known), ["a:1", "b:1"]);
    assert!(known.apply(vec![put("a", 101, "h:2"), deleted("b", 102)]));
    assert!(!known.apply(vec![put("a", 101, "h:2")]), "once is enough");
    assert!(!known.apply(vec![put("b", 101, "h:9")]), "it does not come back from the past");
    assert_eq!(seen(&known), ["a:2"]);
    assert!(!known.apply(vec![deleted("b", 102)]), "it is gone already");
    assert!(known.apply(vec![put("b", 103, "h:3")]));
    assert_eq!(seen(&known), ["a:2", "b:3"]);
}

#[test]
fn one_transaction_changes_several_keys_at_one_revision() {
    let mut known = known([put("a", 50, "h:1")]);
    assert!(known.apply(vec![deleted("a", 101), put("b", 101, "h:1"), put("c", 101, "h:1")]));
    assert_eq!(seen(&known), ["b:1", "c:1"]);
}

/// T06 and T56: one bad value costs one entry; several codecs read during a migration.
#[test]
fn malformed_value_is_one_entry_and_every_codec_is_tried() {
    let mut known = known([put("a", 50, "{"), put("b", 51, r#"{"Addr":"h:2"}"#)]);
    assert!(known.apply(vec![put("c", 101, "http://h:3")]));
    assert_eq!(seen(&known), ["!a", "b:2", "c:3"]);
    assert!(known.apply(vec![put("a", 102, "h:1")]));
    assert_eq!(seen(&known), ["a:1", "b:2", "c:3"]);
}

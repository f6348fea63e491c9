use super::*;
use crate::{ConsulConfig, client::reply::Meta};

fn source() -> ConsulSource {
    let client = ConsulClient::new(ConsulConfig::default()).expect("the default address is one");
    ConsulSource::new(client, Query::new("web"), Rng::with_seed(1))
}

fn answer(index: Option<u64>, entries: &[&str]) -> HealthAnswer {
    let raw = |text: &&str| RawValue::from_string((*text).to_owned()).expect("JSON");
    HealthAnswer {
        meta: Meta { index, ..Meta::default() },
        entries: entries.iter().map(raw).collect(),
        size: 0,
    }
}

const ENTRY: &str = r#"{"Service":{"ID":"web","Address":"10.0.0.1","Port":80}}"#;

#[tokio::test]
async fn index_is_waited_for_next() {
    let mut source = source();
    for (asked, index) in [(None, 7), (Some(7), 7), (Some(7), 9)] {
        let refresh_in = source.adopt(asked, &answer(Some(index), &[]));
        assert_eq!(refresh_in.expect("no error"), None);
        assert_eq!(source.index, Some(index));
    }
}

/// A cluster was restored or wiped: as go-kit's `TestInstancerWithInvalidIndex`.
#[tokio::test]
async fn index_that_went_back_is_a_resync() {
    let mut source = source();
    let result = source.take(Some(100), answer(Some(99), &[ENTRY])).await.expect("no error");
    assert!(result.entries().is_none(), "{result:?}");
    assert_eq!(source.index, None);
    let result = source.take(None, answer(Some(99), &[ENTRY])).await.expect("its data is good");
    assert_eq!(result.entries().map(<[_]>::len), Some(1));
    assert_eq!(source.index, Some(99));
}

#[tokio::test]
async fn without_a_usable_index_it_polls() {
    for (asked, index) in [(None, None), (Some(7), None), (None, Some(0))] {
        let mut source = source();
        let refresh_in = source.adopt(asked, &answer(index, &[ENTRY]));
        assert_eq!(refresh_in.expect("its data is good"), Some(POLL));
        assert_eq!(source.index, None);
    }
}

/// An agent that cannot reach its servers answers a blocking query with `200 []` and index 1.
#[tokio::test]
async fn index_one_is_an_error_and_no_empty_set() {
    for (asked, index) in [(Some(7), 1), (Some(7), 0), (None, 1)] {
        let error = source().adopt(asked, &answer(Some(index), &[])).expect_err("a false empty");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.is_transient());
    }
}

#[tokio::test]
async fn filtered_answer_is_a_denial() {
    let mut filtered = answer(Some(7), &[]);
    filtered.meta.filtered_by_acls = true;
    let error = source().adopt(None, &filtered).expect_err("not everything");
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("node:read"), "{error}");
}

/// The array of null entries of hashicorp/consul#1434.
#[tokio::test]
async fn malformed_entry_does_not_spoil_the_others() {
    let malformed = r#"{"Service":{"ID":7}}"#;
    let instances = source().instances(&answer(None, &[ENTRY, malformed, "null"]).entries);
    let good: Vec<_> = instances.iter().map(Result::is_ok).collect();
    assert_eq!(good, [true, false, false]);
}

#[tokio::test]
async fn health_decides_which_instances_are_wanted() {
    let entry = |status| {
        format!(
            r#"{{"Service":{{"ID":"web","Address":"10.0.0.1","Port":80}},"Checks":[{{"CheckID":"serfHealth","Status":"{status}"}}]}}"#
        )
    };
    let published = |query: Query| {
        let source = ConsulSource { query, ..source() };
        ["passing", "warning", "critical"].map(|status| {
            let answer = answer(None, &[&entry(status)]);
            let instances = source.instances(&answer.entries);
            let instance = instances[0].as_ref().expect("an instance, whatever its health");
            source.query.wants(instance.status())
        })
    };
    assert_eq!(published(Query::new("web")), [true, true, false]);
    assert_eq!(published(Query::new("web").passing()), [true, false, false]);
    assert_eq!(published(Query::new("web").any_health()), [true, true, true]);
}

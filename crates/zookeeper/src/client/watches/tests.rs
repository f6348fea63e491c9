use futures_util::FutureExt;

use super::*;

fn event(kind: EventKind, path: &str) -> Event {
    Event { kind, path: path.to_owned() }
}

fn changes(watch: &Watch) -> Option<Changes> {
    match watch.next().now_or_never() {
        Some(Update::Changes(changes)) => Some(changes),
        None => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn events_reach_the_watches_of_their_node_and_of_its_parent() {
    let watches = Arc::new(Watches::default());
    let [a, ab, other] = ["/a", "/a/b", "/ab"].map(|path| watches.watch(path));
    watches.report(event(EventKind::DataChanged, "/a/b"));
    let expected = Changes { node: false, children: ["b".to_owned()].into() };
    assert_eq!(changes(&a), Some(expected));
    assert_eq!(changes(&ab), Some(Changes { node: true, children: BTreeSet::new() }));
    assert_eq!((changes(&a), changes(&ab), changes(&other)), (None, None, None));
}

#[test]
fn changes_during_trouble_are_reported_after_it() {
    let watches = Arc::new(Watches::default());
    let watch = watches.watch("/a");
    watches.trouble(&ClientError::Closed);
    assert!(matches!(watch.next().now_or_never(), Some(Update::Trouble(ClientError::Closed))));
    watches.report(event(EventKind::ChildrenChanged, "/a"));
    assert!(watch.next().now_or_never().is_none(), "reads would fail");
    watches.restored();
    assert_eq!(changes(&watch), Some(Changes { node: true, children: BTreeSet::new() }));
    watches.trouble(&ClientError::Closed);
    assert!(watch.next().now_or_never().is_some());
    watches.restored();
    assert!(matches!(watch.next().now_or_never(), Some(Update::Alive)));
    assert!(watch.next().now_or_never().is_none());
}

#[test]
fn watches_to_set_again_are_those_that_have_not_fired() {
    let watches = Arc::new(Watches::default());
    let watch = watches.watch("/a");
    watches.armed(Arm::Children, "/a".to_owned());
    watches.armed(Arm::Data, "/a/b".to_owned());
    watches.armed(Arm::Data, "/a/c".to_owned());
    watches.armed(Arm::Data, "/other/c".to_owned());
    watches.report(event(EventKind::DataChanged, "/a/b"));
    let batches = watches.to_set();
    let [batch] = &batches[..] else { panic!("{batches:?}") };
    assert_eq!(
        (&batch.children[..], &batch.data[..]),
        (&["/a".to_owned()][..], &["/a/c".to_owned()][..])
    );
    drop(watch);
    assert!(watches.to_set().is_empty(), "a watch that has ended is none");
}

#[test]
fn many_watches_are_set_in_batches() {
    let watches = Arc::new(Watches::default());
    let _watch = watches.watch("/a");
    for n in 0..10_000 {
        watches.armed(Arm::Data, format!("/a/some-longer-name-of-an-instance-{n}"));
    }
    let batches = watches.to_set();
    assert!(batches.len() > 2 && batches.iter().all(|it| it.n_bytes < MAX_BATCH + 1000));
    assert_eq!(batches.iter().map(|it| it.data.len()).sum::<usize>(), 10_000);
}

/// Any client that may create nodes chooses their names.
#[test]
fn long_path_has_a_batch_of_its_own() {
    let watches = Arc::new(Watches::default());
    let _watch = watches.watch("/a");
    for n in 0..3000 {
        watches.armed(Arm::Data, format!("/a/some-longer-name-of-an-instance-{n}"));
    }
    watches.armed(Arm::Children, format!("/a/{}", "x".repeat(900 << 10)));
    let batches = watches.to_set();
    let last = batches.last().expect("there are some");
    assert_eq!((last.data.len(), last.children.len()), (0, 1));
    let (_long, others) = batches.split_last().expect("there are some");
    assert!(others.iter().all(|it| it.n_bytes <= MAX_BATCH), "{batches:?}");
}

#[test]
fn root_is_a_slash_for_servers_and_has_events() {
    let watches = Arc::new(Watches::default());
    let watch = watches.watch("");
    watches.armed(Arm::Children, String::new());
    let batches = watches.to_set();
    let [batch] = &batches[..] else { panic!("{batches:?}") };
    assert_eq!(batch.children, ["/"]);
    // The kind, the state of the session, and the path with its length.
    let body = [0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0, 1, b'/'];
    watches.report(wire::event(&body).expect("well formed"));
    assert_eq!(changes(&watch), Some(Changes { node: true, children: BTreeSet::new() }));
    watches.report(event(EventKind::DataChanged, "/a"));
    let expected = Changes { node: false, children: ["a".to_owned()].into() };
    assert_eq!(changes(&watch), Some(expected));
}

#[test]
fn session_that_ended_ends_its_watches() {
    let watches = Arc::new(Watches::default());
    let watch = watches.watch("/a");
    watches.armed(Arm::Absent, "/a".to_owned());
    watches.ended();
    assert!(matches!(watch.next().now_or_never(), Some(Update::Ended)));
    assert!(watches.to_set().is_empty());
    drop(watch);
}

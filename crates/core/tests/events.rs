//! The log has changes of state, once each, with the data in fields.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::sleep;
use tower_sd_core::{
    CheckResult, Entries, Error, ErrorKind, Instance, Instancer, MemoryRegistry, Publisher,
    Registration, RegistryConfig, Secret, Sink,
};
use tower_sd_testkit::log::Log;

/// go-kit's `TestRegister` and `TestDeregister`: who, where, and what happened.
#[tokio::test(start_paused = true)]
async fn registration_is_logged_when_made_lost_and_ended() {
    let (log, _guard) = Log::capture();
    let registry = MemoryRegistry::new();
    let instance = Instance::new("127.0.0.1", 80);
    let handle = registry.register(Registration::new("s", instance)).await.expect("registered");
    registry.expire("s", handle.id());
    sleep(Duration::from_secs(60)).await;
    handle.deregister().await.expect("withdrawn");
    let registered = log.found("INFO", "registered");
    assert_eq!(registered.len(), 2, "once at first and once after the loss, not at every renewal");
    assert_eq!(
        (&registered[0]["backend"], &registered[0]["service"], &registered[0]["instance"]),
        (&"memory".into(), &"s".into(), &"127.0.0.1:80".into())
    );
    assert_eq!(log.found("WARN", "registration lost").len(), 1);
    assert_eq!(log.found("INFO", "deregistered").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn follower_is_logged_when_it_changes_or_goes_stale() {
    let (log, _guard) = Log::capture();
    let registry = MemoryRegistry::new();
    let instance = Instance::new("127.0.0.1", 80);
    let _handle = registry.register(Registration::new("s", instance)).await.expect("registered");
    let mut subscription = registry.instancer("s").subscribe();
    subscription.ready(Duration::from_secs(1)).await.expect("read");
    registry.interrupt();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(log.found("WARN", "stale").len(), 1, "once, however many reads fail");
    registry.resume();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(log.found("INFO", "fresh again").len(), 1);
    assert_eq!(log.found("INFO", "instances changed")[0]["instances"], 1);
}

/// Once for each value of an instance, however often it is read.
#[tokio::test(start_paused = true)]
async fn value_that_makes_no_sense_is_ignored_and_logged_once() {
    let (log, _guard) = Log::capture();
    let mut publisher = Publisher::new("test", "s", RegistryConfig::default());
    let texts = ["abc", "-1", "1e99", "4294967296", ""];
    let read = |tag: &str| {
        let of = |port, name: &str, text: &str| {
            let plain = Instance::new("h", port).with_priority(3).with_weight(7).with_tags([tag]);
            plain.with_text(name, text)
        };
        let odd = texts.iter().zip(1..).map(|(text, port)| of(port, "weight", text));
        odd.chain([of(6, "priority", "-1"), of(7, "started_at_ms", "no"), of(8, "zone", "")])
            .chain([of(9, "weight", "5"), of(10, "started_at_ms", "4294967296")])
            .collect::<Entries<_>>()
    };
    ["a", "b", "b"].iter().for_each(|tag| publisher.set(read(tag)));
    let logged = log.found("WARN", "values ignored");
    let values: Vec<_> = logged.iter().map(|event| &event["values"]).collect();
    let weights = texts.map(|text| format!("weight={text:?}"));
    let others = [r#"priority="-1""#, r#"started_at_ms="no""#, r#"zone="""#];
    assert_eq!(values, [&weights.each_ref().map(String::as_str)[..], &others].concat());
    assert_eq!(logged[1]["instance"], "h:2");
    for instance in publisher.subscribe().snapshot().instances() {
        let (weight, priority) = (instance.weight(), instance.priority());
        assert_eq!((weight, priority), if instance.port() == 9 { (5, 3) } else { (7, 3) });
    }
    publisher.set(vec![Instance::new("h", 1).with_text("weight", "abd")].into());
    publisher.set(vec![Instance::new("h", 1).with_text("weight", "3")].into());
    assert_eq!(log.found("WARN", "values ignored").len(), logged.len() + 1, "another value");
}

#[tokio::test(start_paused = true)]
async fn lasting_fault_of_an_entry_is_logged_once() {
    let (log, _guard) = Log::capture();
    let mut publisher = Publisher::new("test", "s", RegistryConfig::default());
    for _ in 0..10 {
        let items = vec![Instance::new("10.0.0.1", 80), Instance::new("0.0.0.0", 80)];
        let errors = vec![Error::new(ErrorKind::Protocol, "test", "decode")];
        let mut entries = Entries::new(items);
        entries.errors = errors;
        publisher.set(entries);
    }
    assert_eq!(log.found("WARN", "malformed entries skipped").len(), 1);
    assert_eq!(log.found("WARN", "addresses refused").len(), 1);
    assert_eq!(publisher.stats().malformed, 10);
    let twins = || ["a", "b"].map(|id| Instance::new("10.0.0.1", 80).with_id(id)).to_vec();
    publisher.set(twins().into());
    publisher.set(twins().into());
    let duplicates = log.found("WARN", "duplicate entries dropped");
    assert_eq!((duplicates.len(), &duplicates[0]["n_duplicates"]), (1, &1.into()));
    publisher.resync("compacted");
    assert_eq!(log.found("DEBUG", "resync")[0]["reason"], "compacted");
}

#[tokio::test(start_paused = true)]
async fn held_loss_is_logged_with_its_size() {
    let (log, _guard) = Log::capture();
    let mut publisher = Publisher::new("test", "s", RegistryConfig::default());
    let all: Vec<_> = (1..=4).map(|port| Instance::new("10.0.0.1", port)).collect();
    publisher.set(all.into());
    publisher.set(vec![Instance::new("10.0.0.1", 1)].into());
    let _none = tokio::time::timeout(Duration::from_secs(1), publisher.due()).await;
    let held = log.found("WARN", "loss held");
    assert_eq!((held.len(), &held[0]["held"], &held[0]["left"]), (1, &3.into(), &1.into()));
}

/// What a backend does with its token must not show up anywhere; backends have tests of their own
/// wires.
#[test]
fn secret_shows_nowhere() {
    let (log, _guard) = Log::capture();
    let token = Secret::new("s3cr3t");
    tracing::warn!(?token, "denied");
    let error = Error::new(ErrorKind::Denied, "test", "follow").with_message(format!("{token:?}"));
    tracing::warn!(%error, ?error, "denied");
    let logged = format!("{:?} {error} {error:?} {token:?}", log.events());
    assert!(logged.contains("***") && !logged.contains("s3cr3t"), "{logged}");
}

/// A wrong address or token would otherwise be seen in the snapshot only.
#[tokio::test(start_paused = true)]
async fn registry_that_was_never_reached_is_logged_once() {
    let (log, _guard) = Log::capture();
    let registry = MemoryRegistry::new();
    registry.interrupt();
    let instancer = registry.instancer("s");
    let registration = Registration::new("s", Instance::new("127.0.0.1", 80));
    let handle = registry.register(registration.retry_in_background()).await.expect("in time");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(log.found("WARN", "not read yet").len(), 1);
    let unregistered = log.found("WARN", "not registered yet");
    assert_eq!(unregistered.len(), 1);
    assert_eq!(unregistered[0]["error"], "memory register: registry unavailable");
    drop((instancer, handle));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(log.found("INFO", "deregistered").len(), 0, "it never was registered");
}

#[tokio::test(start_paused = true)]
async fn lost_registration_reports_why_it_could_not_be_renewed() {
    let (log, _guard) = Log::capture();
    let registry = MemoryRegistry::new();
    let registration = Registration::new("s", Instance::new("127.0.0.1", 80));
    let handle = registry.register(registration).await.expect("registered");
    registry.interrupt();
    sleep(Duration::from_secs(60)).await;
    let lost = log.found("WARN", "registration lost");
    assert_eq!(lost.len(), 1);
    let error = lost[0]["error"].as_str().expect("a text");
    assert!(error.contains("registry unavailable"), "{error}");
    drop(handle);
}

#[tokio::test(start_paused = true)]
async fn critical_check_and_its_recovery_are_logged_once() {
    let (log, _guard) = Log::capture();
    let registry = MemoryRegistry::new();
    let health = Arc::new(Mutex::new(CheckResult::Critical("warming up".into())));
    let check = Arc::clone(&health);
    let registration = Registration::new("s", Instance::new("127.0.0.1", 80)).health(move || {
        let health = check.lock().unwrap_or_else(PoisonError::into_inner).clone();
        async move { health }
    });
    let _handle = registry.register(registration).await.expect("accepted");
    sleep(Duration::from_secs(60)).await;
    let critical = log.found("WARN", "health critical");
    assert_eq!(critical.len(), 1);
    assert_eq!(
        (&critical[0]["reason"], &critical[0]["instance"]),
        (&"warming up".into(), &"127.0.0.1:80".into())
    );
    assert_eq!(log.found("INFO", "health recovered").len(), 0);
    *health.lock().unwrap_or_else(PoisonError::into_inner) = CheckResult::Passing;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(log.found("INFO", "health recovered").len(), 1);
    assert_eq!(log.found("WARN", "health critical").len(), 1);
    assert_eq!(log.found("INFO", "registered").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn address_that_clients_refuse_by_default_is_logged() {
    const REFUSED: &str = "address refused by clients with the default address policy";
    let (log, _guard) = Log::capture();
    let registry = MemoryRegistry::new();
    let mut handles = Vec::new();
    for (host, n_logged) in [("10.0.0.1", 0), ("169.254.7.7", 1), ("fe80::1", 2), ("unix:/a", 3)] {
        let registration = Registration::new("s", Instance::new(host, 80));
        handles.push(registry.register(registration).await.expect("accepted"));
        let logged = log.found("WARN", REFUSED);
        assert_eq!(logged.len(), n_logged, "{host}: {logged:?}");
    }
    let logged = log.found("WARN", REFUSED);
    assert_eq!(
        (&logged[0]["instance"], &logged[0]["reason"]),
        (&"169.254.7.7:80".into(), &"in a denied network".into())
    );
}

#[tokio::test(start_paused = true)]
async fn takeover_is_logged_on_both_sides() {
    const TOOK_OVER: &str = "took over the entry of another registration";
    let (log, _guard) = Log::capture();
    let (registry, instance) = (MemoryRegistry::new(), Instance::new("127.0.0.1", 80));
    let register = || registry.register(Registration::new("s", instance.clone()));
    let _first = register().await.expect("registered");
    let _second = register().await.expect("takes over");
    sleep(Duration::from_secs(600)).await;
    let taken = log.found("WARN", "registration taken over");
    assert_eq!(taken.len(), 1);
    let by = taken[0]["by"].as_str().expect("a text");
    assert!(by.starts_with("127.0.0.1:80, incarnation "), "{by}");
    let took = log.found("WARN", TOOK_OVER);
    assert_eq!(took.len(), 1, "the other side, which may be on another host");
    let from = took[0]["from"].as_str().expect("a text");
    assert!(from.starts_with("127.0.0.1:80, incarnation ") && from != by, "{from}");
    assert_eq!(log.found("WARN", "registration lost").len(), 0);
}

#[tokio::test(start_paused = true)]
async fn refused_registration_is_not_logged_as_deregistered() {
    let (log, _guard) = Log::capture();
    let registry = MemoryRegistry::new();
    let large = Instance::new("127.0.0.1", 80).with_metadata("large", "x".repeat(2_000_000));
    let registration = Registration::new("s", large).retry_in_background();
    let mut handle = registry.register(registration).await.expect("accepted");
    let error = handle.first_answer(Duration::from_secs(1)).await.expect_err("refused");
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Config, "register"));
    handle.deregister().await.expect("nothing to remove");
    assert_eq!(log.found("INFO", "deregistered").len(), 0);
    assert_eq!(log.found("WARN", "not registered yet").len(), 1);
}

/// Each log line and error names the call that failed.
#[tokio::test(start_paused = true)]
async fn hanging_call_is_named() {
    let registry = MemoryRegistry::new();
    registry.delay(Duration::from_secs(3600));
    let registration = Registration::new("s", Instance::new("127.0.0.1", 80));
    let error = registry.register(registration.clone()).await.expect_err("hangs");
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Timeout, "register"));
    registry.resume();
    let handle = registry.register(registration).await.expect("registered");
    registry.delay(Duration::from_secs(3600));
    sleep(Duration::from_secs(14)).await;
    let error = handle.last_error().expect("a renewal hangs");
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Timeout, "renew"));
    let error = handle.deregister().await.expect_err("hangs");
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Timeout, "deregister"));
}

use serde_json::Value;
use tower_sd_core::{
    Announcement, Announcer, CheckResult, Instance, InstanceStatus, LossReason, Renewal,
};
use tower_sd_testkit::script::{Received, Reply, Script};

use super::*;
use crate::EurekaConfig;

async fn start(config: impl Fn(EurekaConfig) -> EurekaConfig) -> (Script, EurekaAnnouncer) {
    let script = Script::start().await.expect("loopback");
    let config = config(EurekaConfig::new(format!("{}/eureka", script.url())));
    let client = EurekaClient::new(config).expect("it can work");
    let registration = Registration::new("x", Instance::new("10.0.0.7", 1).with_id("a"));
    let announcer = announcer(&client, &RegistrationOptions::new(), &registration);
    (script, announcer.expect("a registration"))
}

fn announcement() -> Announcement {
    Announcement::new("x", Instance::new("10.0.0.7", 1).with_id("a"))
}

fn entry(timestamp: i64, incarnation: &str) -> Reply {
    entry_with(timestamp, incarnation, "UP", "")
}

/// With `mark` in its metadata.
fn entry_with(timestamp: i64, incarnation: &str, status: &str, mark: &str) -> Reply {
    Reply::new(200).body(format!(
        r#"{{"instance":{{"instanceId":"a","app":"X","lastDirtyTimestamp":"{timestamp}",
        "status":"{status}","metadata":{{{mark}"tower-sd-incarnation":"{incarnation}"}}}}}}"#
    ))
}

fn posted(request: &Received) -> Value {
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/eureka/apps/X"));
    serde_json::from_slice(&request.body).expect("JSON")
}

fn timestamp(request: &Received) -> i64 {
    let posted = posted(request);
    let timestamp = posted["instance"]["lastDirtyTimestamp"].as_str().expect("a text");
    timestamp.parse().expect("a number")
}

/// A server that has restarted, or has evicted the entry.
#[tokio::test]
async fn unknown_entry_is_registered_with_a_larger_timestamp() {
    let (script, mut announcer) = start(|config| config).await;
    let desired = announcement();
    // The clock of the last process was ahead of ours.
    let ahead = 9_000_000_000_000;
    for reply in [entry(ahead, "earlier"), Reply::new(204)] {
        script.reply(reply);
    }
    announcer.announce(&desired).await.expect("registered");
    let _read = script.next().await;
    let first = timestamp(&script.next().await);
    assert_eq!(first, ahead + 1);
    script.reply(entry(first, desired.incarnation()));
    script.reply(Reply::new(404));
    let lost = announcer.renew(&desired).await.expect("an answer");
    assert_eq!(lost, Renewal::Lost(LossReason::Gone));
    let (_read, renewed) = (script.next().await, script.next().await);
    assert_eq!(renewed.method, "PUT");
    let target = format!("/eureka/apps/X/a?status=UP&lastDirtyTimestamp={first}");
    assert_eq!(renewed.target, target);
    for reply in [Reply::new(404), Reply::new(204)] {
        script.reply(reply);
    }
    announcer.announce(&desired).await.expect("registered");
    let _read = script.next().await;
    let second = timestamp(&script.next().await);
    assert_eq!(second, first + 1);
    for reply in [entry(second, desired.incarnation()), Reply::new(200)] {
        script.reply(reply);
    }
    let renewed = announcer.renew(&desired).await.expect("an answer");
    assert!(matches!(renewed, Renewal::Renewed(_)), "{renewed:?}");
}

/// A server, or a proxy, that refuses writes must not end a lease that it renews.
#[tokio::test]
async fn update_that_cannot_be_written_stops_no_heartbeat() {
    let (script, mut announcer) = start(|config| config).await;
    let desired = announcement();
    for reply in [Reply::new(404), Reply::new(204)] {
        script.reply(reply);
    }
    announcer.announce(&desired).await.expect("registered");
    let first = {
        let _read = script.next().await;
        timestamp(&script.next().await)
    };
    let mut updated = desired.clone();
    updated.instance = updated.instance.with_metadata("shard", "3");
    for _ in 0..3 {
        for reply in [entry(first, desired.incarnation()), Reply::new(200), Reply::new(500)] {
            script.reply(reply);
        }
        let renewed = announcer.renew(&updated).await.expect("an answer");
        assert!(matches!(renewed, Renewal::Renewed(_)), "{renewed:?}");
        let methods = [script.next().await, script.next().await, script.next().await];
        assert_eq!(methods.map(|request| request.method), ["GET", "PUT", "POST"]);
    }
}

/// The server has taken what it did not answer, and the health has changed back meanwhile.
#[tokio::test]
async fn status_that_was_written_without_an_answer_is_written_again() {
    let warning = r#""tower-sd-status":"warning","#;
    for (health, status, mark) in [
        (CheckResult::Critical("no database".into()), "DOWN", ""),
        (CheckResult::Warning("slow".into()), "UP", warning),
    ] {
        let (script, mut announcer) = start(|config| config).await;
        let desired = announcement();
        for reply in [Reply::new(404), Reply::new(204)] {
            script.reply(reply);
        }
        announcer.announce(&desired).await.expect("registered");
        let mut unwell = desired.clone();
        unwell.health = health;
        for reply in [entry(1, desired.incarnation()), Reply::new(200), Reply::closed()] {
            script.reply(reply);
        }
        let _unanswered = announcer.renew(&unwell).await;
        let found = entry_with(2, desired.incarnation(), status, mark);
        for reply in [found, Reply::new(200), Reply::new(204)] {
            script.reply(reply);
        }
        announcer.renew(&desired).await.expect("renewed");
        let received = script.received();
        assert_eq!(received.len(), 8, "{status}");
        let posted = posted(&received[7]);
        assert_eq!(posted["instance"]["status"], "UP");
        assert_eq!(posted["instance"]["metadata"]["tower-sd-status"], Value::Null);
    }
}

/// Nothing was written: there is nothing to withdraw.
#[tokio::test]
async fn registration_without_a_server_has_no_effect() {
    let config = EurekaConfig::new("http://127.0.0.1:9/eureka");
    let client = EurekaClient::new(config).expect("it can work");
    let registration = Registration::new("x", Instance::new("10.0.0.7", 1).with_id("a"));
    let announcer = announcer(&client, &RegistrationOptions::new(), &registration);
    let error = announcer.expect("a registration").announce(&announcement()).await;
    assert!(error.expect_err("no server").is_without_effect());
}

#[tokio::test]
async fn entry_of_a_successor_is_left_alone() {
    let (script, mut announcer) = start(|config| config).await;
    let desired = announcement();
    for reply in [Reply::new(404), Reply::new(204)] {
        script.reply(reply);
    }
    announcer.announce(&desired).await.expect("registered");
    let mut accepted = desired;
    accepted.takes_over = false;
    script.reply(entry(1, "successor"));
    let lost = announcer.renew(&accepted).await.expect("an answer");
    assert!(matches!(lost, Renewal::Lost(LossReason::TakenOver { .. })), "{lost:?}");
    script.reply(entry(1, "successor"));
    let lost = announcer.announce(&accepted).await.expect("an answer");
    assert!(matches!(lost, Renewal::Lost(LossReason::TakenOver { .. })), "{lost:?}");
    script.reply(entry(1, "successor"));
    announcer.withdraw().await.expect("nothing to do");
    let writes = script.received().into_iter().filter(|request| request.method != "GET");
    assert_eq!(writes.count(), 1, "the first registration alone");
}

/// Of Spring's application under the same id, whose entry has no incarnation.
#[tokio::test]
async fn entry_without_an_owner_is_neither_renewed_nor_removed() {
    let (script, mut announcer) = start(|config| config).await;
    let desired = announcement();
    for reply in [Reply::new(404), Reply::new(204)] {
        script.reply(reply);
    }
    announcer.announce(&desired).await.expect("registered");
    let foreign = || {
        Reply::new(200).body(
            r#"{"instance":{"instanceId":"a","app":"X","hostName":"h","status":"UP",
            "lastDirtyTimestamp":"1","metadata":{"management.port":"8081"}}}"#,
        )
    };
    script.reply(foreign());
    let lost = announcer.renew(&desired).await.expect("an answer");
    assert_eq!(lost, Renewal::Lost(LossReason::Gone));
    script.reply(foreign());
    announcer.withdraw().await.expect("nothing to do");
    let writes = script.received().into_iter().filter(|request| request.method != "GET");
    assert_eq!(writes.count(), 1, "the first registration alone");
}

#[tokio::test]
async fn override_with_the_announced_status_is_none() {
    let (script, mut announcer) = start(|config| config).await;
    let desired = announcement();
    for reply in [Reply::new(404), Reply::new(204)] {
        script.reply(reply);
    }
    announcer.announce(&desired).await.expect("registered");
    for (status, is_override) in [("OUT_OF_SERVICE", true), ("UP", false), ("UNKNOWN", false)] {
        let incarnation = desired.incarnation();
        let found = Reply::new(200).body(format!(
            r#"{{"instance":{{"instanceId":"a","app":"X","status":"UP",
            "overriddenStatus":"{status}","lastDirtyTimestamp":"1",
            "metadata":{{"tower-sd-incarnation":"{incarnation}"}}}}}}"#
        ));
        for reply in [found, Reply::new(200)] {
            script.reply(reply);
        }
        let renewal = announcer.renew(&desired).await.expect("an answer");
        let is_overridden = matches!(renewal, Renewal::Overridden(..));
        assert_eq!(is_overridden, is_override, "{status}: {renewal:?}");
    }
}

#[tokio::test]
async fn zone_of_the_process_is_that_of_its_instances() {
    let (script, mut announcer) = start(|config| config.zone("eu-1a")).await;
    for reply in [Reply::new(404), Reply::new(204)] {
        script.reply(reply);
    }
    announcer.announce(&announcement()).await.expect("registered");
    let _read = script.next().await;
    let posted = posted(&script.next().await);
    assert_eq!(posted["instance"]["metadata"]["zone"], "eu-1a");
}

/// An operator's end is no draining's: it stays when the instance goes on.
#[tokio::test]
async fn draining_keeps_the_override_of_an_operator() {
    for (overridden, is_kept) in [("OUT_OF_SERVICE", true), ("DOWN", true), ("UP", false)] {
        let (script, mut announcer) = start(|config| config).await;
        let mut desired = announcement();
        for reply in [Reply::new(404), Reply::new(204)] {
            script.reply(reply);
        }
        announcer.announce(&desired).await.expect("registered");
        let passing = desired.instance.clone();
        let draining = passing.clone().with_status(InstanceStatus::Draining);
        // The second draining is a repetition after an answer that was lost.
        for (instance, mark) in [(&draining, ""), (&draining, MARK), (&passing, MARK)] {
            let found = Reply::new(200).body(format!(
                r#"{{"instance":{{"instanceId":"a","app":"X","status":"{overridden}",
                "overriddenStatus":"{overridden}","lastDirtyTimestamp":"1",
                "metadata":{{{mark}"tower-sd-incarnation":"{}"}}}}}}"#,
                desired.incarnation()
            ));
            for reply in [found, Reply::new(204)] {
                script.reply(reply);
            }
            if !is_kept {
                script.reply(Reply::new(200));
            }
            desired.instance = instance.clone();
            announcer.announce(&desired).await.expect("an answer");
        }
        let received = script.received();
        let overrides = received.iter().filter(|request| request.target.contains("/status"));
        assert_eq!(overrides.count(), if is_kept { 0 } else { 3 }, "{overridden}");
    }
}

/// For a successor only the mark makes it another than that of the draining.
#[tokio::test]
async fn draining_that_keeps_an_override_is_not_marked() {
    for (overridden, is_marked) in [("OUT_OF_SERVICE", false), ("UNKNOWN", true)] {
        let (script, mut announcer) = start(|config| config).await;
        let mut desired = announcement();
        let found = Reply::new(200).body(format!(
            r#"{{"instance":{{"instanceId":"a","app":"X","status":"UP",
            "overriddenStatus":"{overridden}","lastDirtyTimestamp":"1"}}}}"#
        ));
        for reply in [found, Reply::new(204), Reply::new(200)] {
            script.reply(reply);
        }
        desired.instance = desired.instance.with_status(InstanceStatus::Draining);
        announcer.announce(&desired).await.expect("drained");
        let posted = posted(&script.received()[1]);
        let mark = &posted["instance"]["metadata"]["tower-sd-status"];
        assert_eq!(mark == "draining", is_marked, "{overridden}: {mark}");
    }
}

/// No draining sets another status.
#[tokio::test]
async fn override_of_an_operator_after_that_of_a_draining_stays() {
    let (script, mut announcer) = start(|config| config).await;
    let desired = announcement();
    let found = Reply::new(200).body(format!(
        r#"{{"instance":{{"instanceId":"a","app":"X","status":"DOWN","overriddenStatus":"DOWN",
        "lastDirtyTimestamp":"1","metadata":{{{MARK}"tower-sd-incarnation":"predecessor"}}}}}}"#
    ));
    for reply in [found, Reply::new(204)] {
        script.reply(reply);
    }
    let renewal = announcer.announce(&desired).await.expect("registered");
    assert!(script.received().iter().all(|request| request.method != "DELETE"), "{renewal:?}");
}

/// As a lifecycle ends it.
#[tokio::test]
async fn drained_entry_is_out_of_service_before_it_is_removed() {
    let (script, mut announcer) = start(|config| config).await;
    let mut desired = announcement();
    let ours = |status: &str| {
        Reply::new(200).body(format!(
            r#"{{"instance":{{"instanceId":"a","app":"X","status":"{status}",
            "lastDirtyTimestamp":"1","metadata":{{{MARK}"tower-sd-incarnation":"{}"}}}}}}"#,
            desired.incarnation()
        ))
    };
    for reply in [
        Reply::new(404),
        Reply::new(204),
        ours("UP"),
        Reply::new(204),
        Reply::new(200),
        ours("OUT_OF_SERVICE"),
        Reply::new(200),
    ] {
        script.reply(reply);
    }
    announcer.announce(&desired).await.expect("registered");
    desired.instance = desired.instance.with_status(InstanceStatus::Draining);
    announcer.announce(&desired).await.expect("drained");
    announcer.withdraw().await.expect("withdrawn");
    let received = script.received().into_iter();
    let sent: Vec<_> = received.map(|it| format!("{} {}", it.method, it.target)).collect();
    let expected = [
        "GET /eureka/apps/X/a",
        "POST /eureka/apps/X",
        "GET /eureka/apps/X/a",
        "POST /eureka/apps/X",
        "PUT /eureka/apps/X/a/status?value=OUT_OF_SERVICE",
        "GET /eureka/apps/X/a",
        "DELETE /eureka/apps/X/a",
    ];
    assert_eq!(sent, expected);
}

/// The entry has no mark any more when the end of the override is repeated.
#[tokio::test]
async fn override_of_a_draining_ends_after_a_failure() {
    for is_predecessors in [false, true] {
        let (script, mut announcer) = start(|config| config).await;
        let mut desired = announcement();
        let passing = desired.instance.clone();
        if !is_predecessors {
            for reply in [Reply::new(404), Reply::new(204), Reply::new(200)] {
                script.reply(reply);
            }
            desired.instance = passing.clone().with_status(InstanceStatus::Draining);
            announcer.announce(&desired).await.expect("drained");
        }
        desired.instance = passing;
        for (mark, ended) in [(MARK, 500), ("", 200)] {
            let found = Reply::new(200).body(format!(
                r#"{{"instance":{{"instanceId":"a","app":"X","status":"OUT_OF_SERVICE",
                "overriddenStatus":"OUT_OF_SERVICE","lastDirtyTimestamp":"1",
                "metadata":{{{mark}"tower-sd-incarnation":"{}"}}}}}}"#,
                desired.incarnation()
            ));
            for reply in [found, Reply::new(204), Reply::new(ended)] {
                script.reply(reply);
            }
            let announced = announcer.announce(&desired).await;
            assert_eq!(announced.is_ok(), ended == 200, "{announced:?}");
        }
        let received = script.received();
        let ends = received.iter().filter(|request| request.method == "DELETE");
        assert_eq!(ends.count(), 2, "predecessor's: {is_predecessors}");
    }
}

const MARK: &str = r#""tower-sd-status":"draining","#;

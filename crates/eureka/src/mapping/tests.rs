use super::*;

const LEASE: LeaseRequest = LeaseRequest { renewal_interval_in_secs: 30, duration_in_secs: 90 };

fn entry(json: &str) -> InstanceInfo {
    serde_json::from_str(json).expect("understood")
}

/// As a server would return it.
fn returned(request: &InstanceRequest) -> InstanceInfo {
    entry(&serde_json::to_string(request).expect("JSON"))
}

#[test]
fn every_part_of_an_instance_survives() {
    let full = Instance::new("10.0.0.7", 8081)
        .with_id("a b/ü")
        .with_scheme("grpc")
        .with_weight(0)
        .with_priority(3)
        .with_zone("eu-1a")
        .with_tags(["v2", "a,b"])
        .with_metadata("shard", "")
        .with_started_at_ms(17);
    let secure = Instance::new("::1", 8443).with_scheme("https");
    let warned = Instance::new("h.example", 1).with_status(InstanceStatus::Warning);
    for instance in [full, secure, warned] {
        let request = registration("orders", &instance, "i1", LEASE).expect("an entry");
        let back = super::instance(&returned(&request), &Query::new("orders")).expect("readable");
        assert_eq!(back, instance);
    }
}

#[test]
fn entry_is_as_other_clients_expect_it() {
    let instance = Instance::new("10.0.0.7", 8081).with_zone("eu-1a");
    let mut request = registration("orders", &instance, "i1", LEASE).expect("an entry");
    request.last_dirty_timestamp = 17;
    let json = serde_json::to_value(&request).expect("JSON");
    let expected = serde_json::json!({
        "instanceId": "10.0.0.7:orders:8081",
        "app": "ORDERS",
        "hostName": "10.0.0.7",
        "ipAddr": "10.0.0.7",
        "status": "UP",
        "overriddenstatus": "UNKNOWN",
        "port": {"$": 8081, "@enabled": "true"},
        "securePort": {"$": 8081, "@enabled": "false"},
        "vipAddress": "orders",
        "secureVipAddress": "orders",
        "dataCenterInfo": {
            "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo",
            "name": "MyOwn",
        },
        "leaseInfo": {"renewalIntervalInSecs": 30, "durationInSecs": 90},
        "metadata": {
            "tower-sd-id": "10.0.0.7:8081",
            "tower-sd-incarnation": "i1",
            "zone": "eu-1a",
        },
        "lastDirtyTimestamp": "17",
    });
    assert_eq!(json, expected);
}

#[test]
fn names_that_a_path_cannot_hold_are_escaped() {
    assert_eq!(app_name("a b/c%2f"), "A B%2FC%252F");
    assert_eq!(app_name(".."), "%2E%2E");
    assert_eq!(app_name("straße"), "STRASSE");
    assert_eq!(app_name("x;y\\z"), "X%3BY%5CZ");
}

#[test]
fn secure_port_is_used_where_wanted_or_alone() {
    let port = |open: bool, secure: bool| {
        entry(&format!(
            r#"{{"instanceId":"a","hostName":"h","ipAddr":"10.0.0.1","status":"UP",
            "port":{{"$":80,"@enabled":"{open}"}},"securePort":{{"$":443,"@enabled":"{secure}"}}}}"#
        ))
    };
    let found = |entry: &InstanceInfo, query: Query| {
        let instance = instance(entry, &query).ok()?;
        Some((instance.port(), instance.scheme().map(str::to_owned)))
    };
    let https = Some("https".to_owned());
    for (open, secure, by_default, if_secure) in [
        (true, true, Some((80, None)), Some((443, https.clone()))),
        (true, false, Some((80, None)), None),
        (false, false, None, None),
        (false, true, Some((443, https.clone())), Some((443, https))),
    ] {
        let entry = port(open, secure);
        assert_eq!(found(&entry, Query::new("x")), by_default, "{open} {secure}");
        assert_eq!(found(&entry, Query::new("x").secure()), if_secure, "{open} {secure}");
    }
    let entry = port(true, true);
    assert_eq!(instance(&entry, &Query::new("x")).expect("readable").host(), "h");
    let by_ip = instance(&entry, &Query::new("x").prefer_ip()).expect("readable");
    assert_eq!(by_ip.host(), "10.0.0.1");
}

/// Of Netflix's clients at Amazon; Spring's `metadata.zone` is nearer to the instance's owner.
#[test]
fn zone_is_that_of_the_metadata_or_else_of_the_data_center() {
    let of = |metadata: &str| {
        entry(&format!(
            r#"{{"instanceId":"a","hostName":"h","port":{{"$":1,"@enabled":true}},
            "dataCenterInfo":{{"@class":"com.netflix.appinfo.AmazonInfo","name":"Amazon",
            "metadata":{{"availability-zone":"us-east-1c","instance-id":"i-1"}}}},
            "metadata":{{{metadata}}}}}"#
        ))
    };
    for (metadata, zone) in [("", "us-east-1c"), (r#""zone":"z""#, "z")] {
        let found = instance(&of(metadata), &Query::new("x")).expect("readable");
        assert_eq!(found.zone(), Some(zone), "{metadata}");
    }
}

#[test]
fn only_up_accepts_requests() {
    for (status, expected) in [
        ("UP", InstanceStatus::Passing),
        ("DOWN", InstanceStatus::Critical),
        ("STARTING", InstanceStatus::Critical),
        ("OUT_OF_SERVICE", InstanceStatus::Draining),
        ("UNKNOWN", InstanceStatus::Critical),
        ("SLEEPY", InstanceStatus::Critical),
    ] {
        let json = format!(
            r#"{{"instanceId":"a","hostName":"h","status":"{status}","port":{{"$":"80","@enabled":true}}}}"#
        );
        let found = instance(&entry(&json), &Query::new("x")).expect("readable");
        assert_eq!(found.status(), expected, "{status}");
        assert_eq!(Query::new("x").wants(found.status()), status == "UP");
    }
}

#[test]
fn entry_that_is_no_instance_names_itself() {
    for (json, part) in [
        (r#"{}"#, "neither an id"),
        (r#"{"instanceId":"a"}"#, "neither a host name"),
        (r#"{"instanceId":"a","hostName":"h"}"#, "no enabled port"),
        (r#"{"instanceId":"a","hostName":"h","port":{"$":99999,"@enabled":"true"}}"#, "99999"),
        (r#"{"instanceId":"a","hostName":"h","port":{"$":0,"@enabled":"true"}}"#, "port 0"),
        (r#"{"instanceId":"a","hostName":"h","port":{"$":"x","@enabled":"true"}}"#, "port 0"),
    ] {
        let error = instance(&entry(json), &Query::new("x")).expect_err(json);
        assert!(error.to_string().contains(part), "{json}: {error}");
        assert!(!error.is_transient());
    }
}

#[test]
fn instance_that_no_entry_can_hold_is_refused() {
    let plain = Instance::new("10.0.0.7", 1);
    for instance in [
        Instance::new("unix:/run/socket", 1),
        plain.clone().with_metadata("tower-sd-weight", "1"),
        plain.with_metadata("large", "x".repeat(MAX_METADATA)),
    ] {
        let error = registration("x", &instance, "i", LEASE).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Config);
    }
}

#[test]
fn entry_of_another_application_is_malformed() {
    let of = |app: &str| {
        entry(&format!(
            r#"{{"instanceId":"a","app":"{app}","hostName":"h","port":{{"$":1,"@enabled":true}}}}"#
        ))
    };
    for (app, name) in [("ORDERS", "orders"), ("orders", "orders"), ("", "orders"), ("Ü", "ü")] {
        assert!(instance(&of(app), &Query::new(name)).is_ok(), "{app} for {name}");
    }
    let error = instance(&of("OTHER"), &Query::new("orders")).expect_err("another's");
    assert!(error.to_string().contains("OTHER"), "{error}");
    assert!(instance(&of("OTHER"), &Query::vip("orders")).is_ok(), "a virtual address is shared");
}

#[test]
fn value_that_makes_no_sense_is_noted() {
    let json = r#"{"instanceId":"a","hostName":"h","port":{"$":1,"@enabled":true},"status":"UP",
        "metadata":{"tower-sd-weight":"abc","tower-sd-priority":"-1","zone":""}}"#;
    let plain = Instance::new("h", 1).with_id("a");
    let noted = plain.with_text("priority", "-1").with_text("weight", "abc").with_text("zone", "");
    assert_eq!(instance(&entry(json), &Query::new("x")).expect("readable"), noted);
}

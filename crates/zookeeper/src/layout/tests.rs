use tower_sd_core::InstanceStatus;

use super::*;

fn full() -> Instance {
    Instance::new("::1", 8080)
        .with_id("a/1")
        .with_scheme("https")
        .with_weight(7)
        .with_priority(2)
        .with_zone("eu-1b")
        .with_tags(["v2", "blue"])
        .with_metadata("shard", "3")
        .with_status(InstanceStatus::Draining)
        .with_started_at_ms(1_700_000_000_000)
}

fn written(layout: &impl Layout, instance: &Instance) -> String {
    let announcement = Announcement::new("s", instance.clone());
    let data = layout.encode(&announcement).expect("encodes");
    let text = String::from_utf8(data).expect("is text");
    text.replace(announcement.incarnation(), "INCARNATION")
}

#[test]
fn curators_json_is_written() {
    let plain = Instance::new("1.2.3.4", 8080).with_id("a").with_metadata("k", "v");
    let golden: Value = serde_json::from_str(
        r#"{"name":"s","id":"a","address":"1.2.3.4","port":8080,"sslPort":null,"payload":{
        "@class":"org.springframework.cloud.zookeeper.discovery.ZookeeperInstance","id":"a","name":"s",
        "metadata":{"k":"v","tower-sd":"{\"incarnation\":\"INCARNATION\",\"priority\":0,\"status\":\"passing\",\"weight\":1}"}},
        "registrationTimeUTC":0,"serviceType":"DYNAMIC","uriSpec":{"parts":[{"value":"scheme","variable":true},
        {"value":"://","variable":false},{"value":"address","variable":true},{"value":":","variable":false},
        {"value":"port","variable":true}]}}"#,
    )
    .expect("valid");
    let written: Value = serde_json::from_str(&written(&Curator, &plain)).expect("valid");
    assert_eq!(written, golden);
}

#[test]
fn nothing_of_an_instance_is_lost_in_curators_json() {
    let data = written(&Curator, &full());
    assert_eq!(Curator.decode("whatever", data.as_bytes()).expect("decodes"), full());
}

#[test]
fn entries_of_java_are_read() {
    let read = |data: &str| Curator.decode("node", data.as_bytes()).expect(data);
    let curator = r#"{"name":"test","id":"id","address":"10.20.30.40","port":1234,"sslPort":4321,
        "payload":null,"registrationTimeUTC":1325129459728,"serviceType":"STATIC","uriSpec":null}"#;
    let instance =
        Instance::new("10.20.30.40", 1234).with_id("id").with_started_at_ms(1_325_129_459_728);
    assert_eq!(read(curator), instance);
    let spring = r#"{"name":"s","id":"id","address":"h","port":null,"sslPort":443,"payload":{
        "@class":"any.Thing","id":"application-1","name":"s","metadata":{"zone":"a","n":1}},
        "registrationTimeUTC":0,"serviceType":"DYNAMIC","uriSpec":{"parts":[]},"enabled":false,"more":1}"#;
    let instance = Instance::new("h", 443).with_id("id").with_scheme("https");
    let instance = instance.with_metadata("zone", "a").with_metadata("n", "1");
    assert_eq!(read(spring), instance.with_status(InstanceStatus::Draining));
    let payload = r#"{"address":"h","port":1,"payload":{"@class":"x","version":2},"enabled":true}"#;
    assert_eq!(read(payload), Instance::new("h", 1).with_id("node").with_metadata("version", "2"));
    let spring_tls = read(r#"{"address":"h","port":8443,"sslPort":8443}"#);
    assert_eq!(spring_tls, Instance::new("h", 8443).with_id("node").with_scheme("https"));
    let text = r#"{"address":"h","port":1,"payload":"text"}"#;
    assert_eq!(read(text), Instance::new("h", 1).with_id("node"));
}

/// By the actuator of Spring Cloud ZooKeeper, whose clients leave such an instance out.
#[test]
fn instance_out_of_service_is_one_for_spring_and_for_ours() {
    let read = |status: &str| {
        let data = format!(
            r#"{{"address":"h","port":1,"payload":{{"metadata":{{"instance_status":"{status}"}}}}}}"#
        );
        Curator.decode("node", data.as_bytes()).expect("decodes").status()
    };
    for (status, expected) in [
        ("OUT_OF_SERVICE", InstanceStatus::Draining),
        ("DOWN", InstanceStatus::Draining),
        ("up", InstanceStatus::Passing),
        ("", InstanceStatus::Passing),
    ] {
        assert_eq!(read(status), expected, "{status:?}");
    }
    for (status, is_out) in [
        (InstanceStatus::Draining, true),
        (InstanceStatus::Critical, true),
        (InstanceStatus::Warning, false),
    ] {
        let data = written(&Curator, &full().with_status(status));
        assert_eq!(data.contains(r#""instance_status":"OUT_OF_SERVICE""#), is_out, "{data}");
        let read = Curator.decode("node", data.as_bytes()).expect("decodes");
        assert_eq!(read, full().with_status(status));
    }
}

#[test]
fn other_data_is_no_entry_of_curator() {
    for data in [
        "",
        "null",
        "1.2.3.4:80",
        "{}",
        r#"{"address":"h"}"#,
        r#"{"address":"h","port":null}"#,
        r#"{"address":"h","port":0}"#,
        r#"{"address":"h","port":0,"sslPort":0}"#,
        r#"{"address":"h","port":99999}"#,
        r#"{"address":"h","port":1,"serviceType":"MAGIC"}"#,
        r#"{"address":7,"port":1}"#,
    ] {
        let read = Curator.decode("node", data.as_bytes());
        assert!(read.is_err(), "{data:?} is {read:?}");
    }
}

#[test]
fn addresses_of_go_kit_are_read_and_written() {
    for text in ["http://1.2.3.4:8080", "1.2.3.4:8080", "https://[::1]:80", "a.example:1"] {
        let instance = GoKit.decode("id", text.as_bytes()).expect(text);
        assert_eq!((instance.id().as_str(), written(&GoKit, &instance).as_str()), ("id", text));
    }
    let protected = "_c_0123456789abcdef0123456789abcdef-0000000001";
    let instance = GoKit.decode(protected, b"10.0.2.10:80").expect("an address");
    assert_eq!(instance, Instance::new("10.0.2.10", 80));
    for text in ["", "1.2.3.4", "http://", r#"{"a":"1.2.3.4:80"}"#, "a b:1", "u@h:1", "h:0"] {
        assert!(GoKit.decode("id", text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn members_of_server_sets_are_read_and_written() {
    let golden = r#"{"serviceEndpoint":{"host":"h","port":80},"additionalEndpoints":{},"status":"ALIVE","shard":3}"#;
    let instance = ServerSet.decode("member_0000000001", golden.as_bytes()).expect("decodes");
    let expected = Instance::new("h", 80).with_id("0000000001").with_metadata("shard", "3");
    assert_eq!(instance, expected);
    let ours = expected.with_id("a/1").with_metadata("k", "v");
    let data = written(&ServerSet, &ours);
    assert!(data.contains(r#""shard":3"#) && data.contains(r#""status":"ALIVE""#), "{data}");
    assert_eq!(ServerSet.node("a/1"), "member_a%2F1");
    assert_eq!(ServerSet.decode("member_a%2F1", data.as_bytes()).expect("decodes"), ours);
    for (status, text) in
        [(InstanceStatus::Draining, "STOPPING"), (InstanceStatus::Critical, "DEAD")]
    {
        let data = written(&ServerSet, &ours.clone().with_status(status));
        assert!(data.contains(&format!(r#""status":"{text}""#)), "{data}");
        let instance = ServerSet.decode("member_1", data.as_bytes()).expect("decodes");
        assert_eq!(instance.status(), status);
    }
    for (node, data) in
        [("other", golden), ("member_1", "{}"), ("member_1", r#"{"serviceEndpoint":{"host":"h"}}"#)]
    {
        assert!(ServerSet.decode(node, data.as_bytes()).is_err(), "{node}: {data}");
    }
}

#[test]
fn entry_with_nonsense_in_a_number_is_read_for_the_rest_of_it() {
    for (nonsense, text) in [(r#"\"abc\""#, "abc"), ("-1", "-1"), ("1e99", "1e+99")] {
        let data = written(&Curator, &full());
        let data = data.replace(r#"\"weight\":7"#, &format!(r#"\"weight\":{nonsense}"#));
        let read = Curator.decode("whatever", data.as_bytes()).expect("decodes");
        assert_eq!(read, full().with_weight(1).with_text("weight", text));
    }
}

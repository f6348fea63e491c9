use serde_json::{Value, json};

use super::*;

/// A slice of `orders` with one port.
#[expect(clippy::needless_pass_by_value, reason = "callers have a `json!`")]
fn of(endpoints: Value) -> Value {
    json!({
        "metadata": {
            "name": "orders-1", "resourceVersion": "1", "labels": { SERVICE_NAME: "orders" }
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
    })
}

fn with(mut slice: Value, field: &str, value: Value) -> Value {
    slice[field] = value;
    slice
}

fn endpoint(address: &str) -> Value {
    json!({ "addresses": [address], "conditions": { "ready": true } })
}

fn map(slices: &[Value], query: &str, family: Family) -> Vec<Mapped> {
    let parse = |value: &Value| serde_json::from_str(&value.to_string()).expect("a slice");
    slices.iter().map(|value| slice(&parse(value), &query.into(), family)).collect()
}

fn joined(
    slices: &[Value],
    query: &str,
    family: Family,
    zone: Option<&str>,
) -> Result<Vec<Result<Instance>>> {
    join(map(slices, query, family).iter(), &query.into(), family, zone)
}

/// The instances as text, and the number of entries that are none.
fn read(slices: &[Value], query: &str) -> (Vec<String>, usize) {
    let entries = joined(slices, query, Family::Ipv4First, None).expect("the port is there");
    let n_malformed = entries.iter().filter(|entry| entry.is_err()).count();
    (entries.iter().flatten().map(ToString::to_string).collect(), n_malformed)
}

fn one(endpoint: &Value) -> Instance {
    let entries = joined(&[of(json!([endpoint]))], "orders", Family::Both, None);
    entries.expect("a port").remove(0).expect("an instance")
}

#[test]
fn all_slices_are_joined_and_an_endpoint_in_two_is_one() {
    let unready = json!({ "addresses": ["10.0.0.2"], "conditions": { "ready": false } });
    let slices = [
        of(json!([endpoint("10.0.0.1"), unready])),
        of(json!([endpoint("10.0.0.2"), endpoint("10.0.0.3")])),
        of(Value::Null),
    ];
    let entries = joined(&slices, "orders", Family::Both, None).expect("a port");
    let states: Vec<_> = entries.iter().flatten().map(|it| (it.to_string(), it.status())).collect();
    let passing = |address: &str| (address.to_owned(), InstanceStatus::Passing);
    let expected = ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"].map(passing);
    assert_eq!(states, expected, "the fitter state wins");
}

#[test]
fn conditions_become_a_status() {
    for (conditions, expected) in [
        (json!({}), InstanceStatus::Passing),
        (json!(null), InstanceStatus::Passing),
        (json!({ "ready": true, "terminating": true }), InstanceStatus::Passing),
        (json!({ "ready": false }), InstanceStatus::Critical),
        (json!({ "ready": false, "serving": true }), InstanceStatus::Critical),
        (json!({ "ready": false, "serving": true, "terminating": true }), InstanceStatus::Draining),
        (
            json!({ "ready": false, "serving": false, "terminating": true }),
            InstanceStatus::Critical,
        ),
        (json!({ "ready": false, "terminating": true }), InstanceStatus::Draining),
    ] {
        let endpoint = json!({ "addresses": ["10.0.0.1"], "conditions": conditions });
        assert_eq!(one(&endpoint).status(), expected, "{conditions}");
    }
}

/// A Service without a selector, whose slice an operator writes, and a headless one.
#[test]
fn slice_of_an_operator_needs_no_pod_no_conditions_and_no_name() {
    let slice = json!({
        "metadata": {
            "name": "orders-legacy", "resourceVersion": "1", "labels": { SERVICE_NAME: "orders" }
        },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": ["192.0.2.7"] }],
        "ports": [{ "port": 9376 }],
    });
    assert_eq!(read(std::slice::from_ref(&slice), "orders").0, ["192.0.2.7:9376"]);
    let headless = with(
        of(json!([endpoint("10.0.0.1")])),
        "metadata",
        json!({
            "name": "orders-x", "resourceVersion": "1",
            "labels": { SERVICE_NAME: "orders", "service.kubernetes.io/headless": "" },
        }),
    );
    assert_eq!(read(&[headless], "orders").0, ["10.0.0.1:8080"]);
}

#[test]
fn named_port_may_differ_between_slices_and_be_missing() {
    let ports =
        |grpc: u16| json!([{ "name": "http", "port": 80 }, { "name": "grpc", "port": grpc }]);
    let slices = [
        with(of(json!([endpoint("10.0.0.1")])), "ports", ports(9000)),
        with(of(json!([endpoint("10.0.0.2")])), "ports", ports(9001)),
        of(json!([endpoint("10.0.0.3")])),
    ];
    let (found, n_malformed) = read(&slices, "orders:grpc");
    assert_eq!((found, n_malformed), (vec!["10.0.0.1:9000".into(), "10.0.0.2:9001".into()], 1));
    for (query, part) in [
        ("orders:admin", "no TCP port \"admin\"; its ports: grpc, http"),
        ("orders", "\"orders:grpc\""),
    ] {
        let error = joined(&slices[..1], query, Family::Both, None).expect_err(query);
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains(part), "{error}");
    }
    let empty = with(of(json!([])), "ports", Value::Null);
    assert_eq!(read(&[empty], "orders:grpc"), (vec![], 0), "without endpoints there are no ports");
}

#[test]
fn udp_port_is_none_of_ours() {
    let ports = json!([
        { "name": "dns", "port": 53, "protocol": "UDP" }, { "name": "tcp", "port": 53 }
    ]);
    let slice = with(of(json!([endpoint("10.0.0.1")])), "ports", ports);
    assert_eq!(read(std::slice::from_ref(&slice), "orders").0, ["10.0.0.1:53"]);
    joined(&[slice], "orders:dns", Family::Both, None).expect_err("it is UDP");
}

#[test]
fn app_protocol_becomes_the_scheme() {
    for (protocol, expected) in [
        (json!("https"), Some("https")),
        (json!("GRPC"), Some("grpc")),
        (json!("kubernetes.io/h2c"), Some("http")),
        (json!("kubernetes.io/wss"), Some("https")),
        (json!("HTTP2"), Some("http")),
        (json!("grpcs"), Some("grpcs")),
        (json!("example.com/own"), None),
        (json!("tcp"), None),
        (json!("tls"), None),
        (json!("grpc-web"), None),
        (json!("mongo"), None),
        (Value::Null, None),
    ] {
        let ports = json!([{ "port": 80, "appProtocol": protocol }]);
        let slice = with(of(json!([endpoint("10.0.0.1")])), "ports", ports);
        let entries = joined(&[slice], "orders", Family::Both, None).expect("a port");
        let instance = entries[0].as_ref().expect("one");
        assert_eq!(instance.scheme(), expected, "{protocol}");
        let text = instance.metadata().get("app-protocol").map(String::as_str);
        assert_eq!(text, protocol.as_str());
    }
}

#[test]
fn one_family_of_a_dual_stack_service_is_used() {
    let v6 = |endpoints| with(of(endpoints), "addressType", json!("IPv6"));
    let both = [of(json!([endpoint("10.0.0.1")])), v6(json!([endpoint("fd00::1")]))];
    let hosts = |slices: &[Value], family| -> Vec<String> {
        let entries = joined(slices, "orders", family, None).expect("a port");
        entries.iter().flatten().map(|it| it.host().to_owned()).collect()
    };
    assert_eq!(hosts(&both, Family::Ipv4First), ["10.0.0.1"]);
    assert_eq!(hosts(&both, Family::Ipv6First), ["fd00::1"]);
    assert_eq!(hosts(&both, Family::Both), ["10.0.0.1", "fd00::1"]);
    assert_eq!(hosts(&both[1..], Family::Ipv4First), ["fd00::1"]);
    let pod = |address: &str| json!([{ "addresses": [address], "targetRef": { "kind": "Pod", "name": "p" } }]);
    let entries = joined(&[of(pod("10.0.0.1")), v6(pod("fd00::1"))], "orders", Family::Both, None);
    let entries = entries.expect("a port");
    let ids: Vec<_> = entries.iter().flatten().map(|it| it.id().as_str()).collect();
    assert_eq!(ids, ["p", "p/ipv6"]);
    let emptied = [of(json!([])), v6(json!([endpoint("fd00::1")]))];
    assert_eq!(hosts(&emptied, Family::Ipv4First), ["fd00::1"]);
    let name = with(of(json!([endpoint("db.example.org")])), "addressType", json!("FQDN"));
    assert_eq!(hosts(&[name], Family::Ipv4First), ["db.example.org"]);
}

#[test]
fn family_is_chosen_for_each_pod() {
    let pod = |name: &str, address: &str, ready: bool| {
        json!({
            "addresses": [address], "conditions": { "ready": ready },
            "targetRef": { "kind": "Pod", "name": name },
        })
    };
    let v4 = of(json!([pod("a", "10.0.0.1", false)]));
    let v6 =
        json!([pod("a", "fd00::1", false), pod("b", "fd00::2", true), pod("c", "fd00::3", true)]);
    let slices = [with(of(v6), "addressType", json!("IPv6")), v4];
    let found = |family| -> Vec<(String, InstanceStatus)> {
        let entries = joined(&slices, "orders", family, None).expect("a port");
        let mut found: Vec<_> =
            entries.iter().flatten().map(|it| (it.host().to_owned(), it.status())).collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    };
    let of = |a: &str| {
        [
            (a, InstanceStatus::Critical),
            ("fd00::2", InstanceStatus::Passing),
            ("fd00::3", InstanceStatus::Passing),
        ]
        .map(|(host, status)| (host.to_owned(), status))
    };
    assert_eq!(found(Family::Ipv4First), of("10.0.0.1"));
    assert_eq!(found(Family::Ipv6First), of("fd00::1"));
    assert_eq!(found(Family::Both).len(), 4);
}

#[test]
fn zone_and_node_and_pod_and_labels_are_part_of_the_instance() {
    let endpoint = json!({
        "addresses": ["10.0.0.1"], "zone": "eu-1a", "nodeName": "node-7", "hostname": "orders-0",
        "targetRef": { "kind": "Pod", "name": "orders-0", "uid": "x" },
        "hints": { "forZones": [{ "name": "eu-1a" }, { "name": "eu-1b" }] },
    });
    let mut slice = of(json!([endpoint]));
    for (label, value) in [
        ("version", "v2"),
        ("app.kubernetes.io/name", "orders"),
        ("endpointslice.kubernetes.io/managed-by", "x"),
    ] {
        slice["metadata"]["labels"][label] = value.into();
    }
    let entries = joined(&[slice], "orders", Family::Both, None).expect("a port");
    let instance = entries[0].as_ref().expect("an instance");
    assert_eq!((instance.zone(), instance.id().as_str()), (Some("eu-1a"), "orders-0"));
    let metadata: Vec<_> =
        instance.metadata().iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let expected = [
        ("app.kubernetes.io/name", "orders"),
        ("hostname", "orders-0"),
        ("node", "node-7"),
        ("pod", "orders-0"),
        ("version", "v2"),
        ("zone-hints", "eu-1a,eu-1b"),
    ];
    assert_eq!(metadata, expected);
}

#[test]
fn hints_are_a_preference_when_every_ready_endpoint_has_them() {
    let hinted = |address: &str, zone: &str, ready: bool| {
        json!({
            "addresses": [address], "conditions": { "ready": ready },
            "hints": { "forZones": [{ "name": zone }] },
        })
    };
    let priorities = |endpoints: Value, zone| -> Vec<u32> {
        let entries = joined(&[of(endpoints)], "orders", Family::Both, Some(zone)).expect("a port");
        entries.iter().flatten().map(Instance::priority).collect()
    };
    let all = json!([hinted("10.0.0.1", "a", true), hinted("10.0.0.2", "b", true)]);
    assert_eq!(priorities(all.clone(), "a"), [0, 1]);
    assert_eq!(priorities(all, "c"), [0, 0], "no endpoint is for this zone");
    let one_without = json!([hinted("10.0.0.1", "a", true), endpoint("10.0.0.2")]);
    assert_eq!(priorities(one_without, "a"), [0, 0]);
    let unready = json!({ "addresses": ["10.0.0.2"], "conditions": { "ready": false } });
    let unready_without = json!([hinted("10.0.0.1", "a", true), unready]);
    assert_eq!(priorities(unready_without, "a"), [0, 1]);
}

#[test]
fn malformed_parts_are_skipped_and_counted() {
    let endpoints = json!([
        endpoint("10.0.0.1"),
        endpoint("10.0.0.256"),
        endpoint("fd00::1"),
        endpoint("http://10.0.0.2"),
        { "addresses": [] },
        { "addresses": null },
        { "addresses": "10.0.0.3" },
        17,
        null,
    ]);
    assert_eq!(read(&[of(endpoints)], "orders"), (vec!["10.0.0.1:8080".into()], 8));
    for port in [json!(0), json!(-1), json!(65_536), Value::Null] {
        let bad = with(of(json!([endpoint("10.0.0.9")])), "ports", json!([{ "port": port }]));
        let (found, n_malformed) = read(&[of(json!([endpoint("10.0.0.1")])), bad], "orders");
        assert_eq!((found.len(), n_malformed), (1, 1), "{port}");
    }
    let mut foreign = of(json!([endpoint("10.0.0.9")]));
    foreign["metadata"]["labels"][SERVICE_NAME] = "payments".into();
    assert_eq!(read(&[foreign], "orders"), (vec![], 1));
}

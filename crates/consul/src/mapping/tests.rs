use super::*;

fn instance(entry: ServiceEntry) -> Result<Instance> {
    super::instance(entry, None)
}

fn entry(json: serde_json::Value) -> ServiceEntry {
    serde_json::from_value(json).expect("an entry as Consul writes it")
}

fn found(registration: &ServiceRegistration, checks: &serde_json::Value) -> ServiceEntry {
    let service = serde_json::json!({
        "ID": registration.id, "Service": registration.name, "Address": registration.address,
        "Port": registration.port, "Tags": registration.tags, "Meta": registration.meta,
        "Weights": {"Passing": registration.weights.passing, "Warning": registration.weights.warning},
    });
    entry(serde_json::json!({
        "Node": {"Node": "n1", "Address": "10.0.0.1"}, "Service": service, "Checks": checks,
    }))
}

fn round_trip(wanted: &Instance) -> Instance {
    let registered = registration("web", wanted, "1f").expect("within Consul's limits");
    instance(found(&registered, &serde_json::json!([]))).expect("an instance")
}

#[test]
fn everything_of_an_instance_survives() {
    let full = Instance::new("::1", 8080)
        .with_id("web-1")
        .with_scheme("https")
        .with_weight(7)
        .with_priority(2)
        .with_zone("eu-1b")
        .with_tags(["v2", "blue"])
        .with_metadata("shard", "3")
        .with_status(InstanceStatus::Draining)
        .with_started_at_ms(1_700_000_000_000);
    for instance in [
        full.clone(),
        Instance::new("a.example", 1),
        full.clone().with_weight(0),
        full.clone().with_weight(1_000_000),
        full.with_status(InstanceStatus::Warning),
    ] {
        assert_eq!(round_trip(&instance), instance);
    }
}

/// Consul takes weights from 1 to 65535.
#[test]
fn weights_that_consul_refuses_are_bounded() {
    for (weight, expected) in [(0, 1), (1, 1), (65_535, 65_535), (65_536, 65_535)] {
        let instance = Instance::new("a", 1).with_weight(weight);
        let registered = registration("web", &instance, "1f").expect("within Consul's limits");
        assert_eq!(registered.weights.passing, expected);
    }
}

#[test]
fn id_in_two_services_is_two_entries_of_the_agent() {
    let instance = Instance::new("127.0.0.1", 80);
    let web = registration("web", &instance, "1f").expect("within Consul's limits");
    let api = registration("api", &instance, "1f").expect("within Consul's limits");
    assert_ne!(web.id, api.id);
    assert_ne!(check_id(&web.id), check_id(&api.id));
}

/// One registered again under another name would move.
#[test]
fn ids_in_consul_never_collide() {
    let ids = [("a", "b:c"), ("a:b", "c"), ("a%3Ab", "c"), ("a%b", "c")];
    let ids = ids.map(|(service, id)| service_id(service, id));
    assert_eq!(ids, ["a:b:c", "a%3Ab:c", "a%253Ab:c", "a%25b:c"]);
    assert_ne!(check_id("web:a:1"), own_check_id("web:a", 1));
}

#[test]
fn owner_is_distinguished_by_its_incarnation() {
    let service = |meta: serde_json::Value| {
        let json = serde_json::json!({"Service": {"ID": "web:a", "Address": "10.0.0.1", "Port": 80, "Meta": meta}});
        entry(json).service
    };
    let ours = service(serde_json::json!({"tower-sd-incarnation": "1f"}));
    assert_eq!(owner_beside("1f", &ours), None);
    assert_eq!(owner_beside("2e", &ours).as_deref(), Some("10.0.0.1:80, incarnation 1f"));
    assert_eq!(owner_beside("1f", &service(serde_json::json!({}))), None, "of no registration");
}

/// The rule of `translate_addr.go`.
#[test]
fn tagged_address_is_found_part_by_part() {
    let at = |tagged: serde_json::Value, address: &str, node_tagged: serde_json::Value| {
        let json = serde_json::json!({
            "Node": {"Node": "n1", "Address": "10.0.0.1", "TaggedAddresses": node_tagged},
            "Service": {"ID": "web", "Address": address, "Port": 8081, "TaggedAddresses": tagged},
        });
        super::instance(entry(json), Some("wan")).expect("an instance").to_string()
    };
    let (none, node) = (serde_json::json!(null), serde_json::json!({"wan": "192.0.2.9"}));
    let whole = serde_json::json!({"wan": {"Address": "198.51.100.7", "Port": 80}});
    let without_port = serde_json::json!({"wan": {"Address": "198.51.100.7"}});
    let port_only = serde_json::json!({"wan": {"Port": 80}});
    assert_eq!(at(whole, "10.0.0.7", node.clone()), "198.51.100.7:80");
    assert_eq!(at(without_port, "10.0.0.7", node.clone()), "198.51.100.7:8081");
    assert_eq!(at(port_only.clone(), "10.0.0.7", node.clone()), "10.0.0.7:80");
    assert_eq!(at(port_only, "", node.clone()), "192.0.2.9:80");
    assert_eq!(at(none.clone(), "", node.clone()), "192.0.2.9:8081");
    assert_eq!(at(none.clone(), "10.0.0.7", node), "10.0.0.7:8081");
    assert_eq!(at(none.clone(), "", none), "10.0.0.1:8081");
}

#[test]
fn what_breaks_a_limit_of_consul_is_refused_before_it_is_sent() {
    let base = Instance::new("127.0.0.1", 80);
    let crowded = (0..64).fold(base.clone(), |i, n| i.with_metadata(format!("k{n}"), ""));
    let cases = [
        (base.clone().with_metadata("a.b", ""), "a.b"),
        (base.clone().with_metadata("", ""), "metadata key"),
        (base.clone().with_metadata("k".repeat(129), ""), "128"),
        (base.clone().with_metadata("consul-x", ""), "consul-"),
        (base.clone().with_metadata("tower-sd-x", ""), "reserved"),
        (base.clone().with_metadata("k", "v".repeat(513)), "512"),
        (crowded, "64"),
        // As in /etc/hostname.
        (base.clone().with_id("web-1\n"), "control"),
    ];
    for (instance, says) in cases {
        let error = registration("web", &instance, "1f").expect_err(says);
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(says), "{error}");
    }
    for service in ["", "a\nb"] {
        let error = registration(service, &base, "1f").expect_err("no name");
        assert_eq!(error.kind(), ErrorKind::Config);
    }
}

/// As go-kit's `TestInstancerAddressOverride`: IPv6 has brackets.
#[test]
fn service_without_an_address_is_at_its_nodes() {
    let at = |address: &str| {
        let json = serde_json::json!({
            "Node": {"Node": "n1", "Address": "10.0.0.1"},
            "Service": {"ID": "web", "Address": address, "Port": 9000},
        });
        instance(entry(json)).expect("an instance").to_string()
    };
    assert_eq!(at(""), "10.0.0.1:9000");
    assert_eq!(at("10.0.0.10"), "10.0.0.10:9000");
    assert_eq!(at("fd00::1"), "[fd00::1]:9000");
    assert_eq!(at("[fd00::1]"), "[fd00::1]:9000");
}

#[test]
fn scheme_inside_the_address_is_taken_out() {
    let json =
        serde_json::json!({"Service": {"ID": "web", "Address": "https://10.0.0.10/", "Port": 443}});
    let instance = instance(entry(json)).expect("an instance");
    assert_eq!(instance.scheme(), Some("https"));
    assert_eq!(instance.host(), "10.0.0.10");
}

/// One service id may exist on several agents.
#[test]
fn entry_of_another_program_is_named_by_node_and_id() {
    let json = serde_json::json!({
        "Node": {"Node": "n1", "Address": "10.0.0.1"},
        "Service": {"ID": "web-1", "Address": "", "Port": 80, "Tags": null, "Meta": null, "Weights": null},
        "Checks": null,
    });
    let instance = instance(entry(json)).expect("an instance");
    assert_eq!(instance.id().as_str(), "n1/web-1");
    assert_eq!(instance.weight(), 1);
}

#[test]
fn port_without_meaning_is_malformed_and_explained() {
    for port in [0, -1, 70_000] {
        let json =
            serde_json::json!({"Service": {"ID": "web", "Address": "10.0.0.10", "Port": port}});
        let error = instance(entry(json)).expect_err("no port");
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert!(error.to_string().contains(&format!("port {port}")), "{error}");
    }
    let json = serde_json::json!({"Service": {"ID": "web", "Port": 80}});
    let error = instance(entry(json)).expect_err("no address");
    assert!(error.to_string().contains("address"), "{error}");
}

#[test]
fn health_is_the_worst_of_all_checks_those_of_the_node_too() {
    let wanted = Instance::new("127.0.0.1", 80);
    let registered = registration("web", &wanted, "1f").expect("within Consul's limits");
    let status = |checks: &[(&str, &str)]| {
        let checks = checks.iter().map(
            |(id, status)| serde_json::json!({"CheckID": id, "Status": status, "ServiceID": ""}),
        );
        let checks = serde_json::Value::Array(checks.collect());
        instance(found(&registered, &checks)).expect("an instance").status()
    };
    let passing = ("service:web", "passing");
    assert_eq!(status(&[]), InstanceStatus::Passing);
    assert_eq!(status(&[passing]), InstanceStatus::Passing);
    assert_eq!(status(&[("serfHealth", "critical"), passing]), InstanceStatus::Critical);
    assert_eq!(status(&[("a", "warning"), passing]), InstanceStatus::Warning);
    assert_eq!(status(&[("a", "warning"), ("b", "critical")]), InstanceStatus::Critical);
    assert_eq!(status(&[("_service_maintenance:web", "critical")]), InstanceStatus::Critical);
    assert_eq!(status(&[("_node_maintenance", "passing")]), InstanceStatus::Critical);
    assert_eq!(status(&[("a", "nonsense")]), InstanceStatus::Critical);
}

#[test]
fn warning_instance_has_the_weight_that_it_registered_for_that() {
    let json = serde_json::json!({
        "Service": {"ID": "web", "Address": "a", "Port": 80, "Weights": {"Passing": 10, "Warning": 2}},
        "Checks": [{"CheckID": "c", "Status": "warning"}],
    });
    assert_eq!(instance(entry(json)).expect("an instance").weight(), 2);
}

/// What is sent, to the letter; no script in it.
#[test]
fn body_of_a_registration_is_what_consul_documents() {
    let wanted = Instance::new("10.0.0.7", 8081).with_tags(["v2"]).with_metadata("shard", "3");
    let body = serde_json::to_value(registration("web", &wanted, "1f").expect("within the limits"));
    let expected = serde_json::json!({
        "ID": "web:10.0.0.7:8081", "Name": "web", "Address": "10.0.0.7", "Port": 8081, "Tags": ["v2"],
        "Meta": {"shard": "3", "tower-sd-id": "10.0.0.7:8081", "tower-sd-incarnation": "1f"},
        "Weights": {"Passing": 1, "Warning": 1}, "Checks": [],
    });
    assert_eq!(body.expect("serialises"), expected);
}

#[test]
fn value_that_makes_no_sense_is_noted() {
    let json = serde_json::json!({
        "Service": {"ID": "web", "Address": "a", "Port": 80, "Weights": {"Passing": 10, "Warning": 2},
            "Meta": {"tower-sd-weight": "-1", "tower-sd-priority": "1e99", "tower-sd-zone": ""}},
    });
    let plain = Instance::new("a", 80).with_id("/web").with_weight(10);
    let noted = plain.with_text("priority", "1e99").with_text("weight", "-1").with_text("zone", "");
    assert_eq!(instance(entry(json)).expect("an instance"), noted);
}

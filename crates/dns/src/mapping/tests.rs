use super::*;

fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("a name")
}

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> SRV {
    SRV::new(priority, weight, port, name(target))
}

/// Targets that all have the address 10.0.0.1.
fn resolved(services: &[SRV]) -> Targets {
    let ip = IpAddr::from([10, 0, 0, 1]);
    services.iter().map(|srv| (srv.target.clone(), Ok(vec![ip]))).collect()
}

fn weights(services: &[SRV]) -> Vec<u32> {
    let entries = instances(services, &resolved(services));
    entries.into_iter().map(|entry| entry.expect("an instance").weight()).collect()
}

/// RFC 2782 gives a weight of zero, beside 1 and 65535, a chance of 1 in 65537.
#[test]
fn weights_are_not_scaled_and_zero_is_hardly_ever() {
    let group = [srv(1, 0, 80, "a."), srv(1, 1, 80, "b."), srv(1, u16::MAX, 80, "c.")];
    assert_eq!(weights(&group), [1, 1, 65_535]);
}

#[test]
fn weights_that_are_all_zero_are_equal_in_each_priority() {
    let groups =
        [srv(10, 0, 80, "a."), srv(10, 0, 80, "b."), srv(20, 0, 80, "c."), srv(20, 7, 80, "d.")];
    assert_eq!(weights(&groups), [1, 1, 1, 7]);
}

#[test]
fn record_becomes_an_instance_with_all_its_fields() {
    let services = [srv(3, 5, 8080, "A.Example.org.")];
    let ip = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1]);
    let targets = Targets::from([(name("a.example.org."), Ok(vec![ip]))]);
    let instance = instances(&services, &targets).remove(0).expect("an instance");
    assert_eq!(instance.to_string(), "[fd00::1]:8080");
    assert_eq!(instance.id().as_str(), "a.example.org:8080@fd00::1");
    assert_eq!((instance.priority(), instance.weight()), (3, 5));
    assert_eq!(instance.metadata()["dns-target"], "a.example.org");
}

#[test]
fn target_with_several_addresses_shares_its_weight_among_them() {
    let services = [srv(0, 20, 80, "a."), srv(0, 1, 80, "b.")];
    let ips = vec![IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])];
    let targets = Targets::from([(name("a."), Ok(ips.clone())), (name("b."), Ok(ips))]);
    let entries = instances(&services, &targets).into_iter();
    let weights: Vec<u32> = entries.map(|entry| entry.expect("an instance").weight()).collect();
    assert_eq!(weights, [10, 10, 1, 1]);
}

#[test]
fn record_with_port_zero_is_an_error_in_its_place_only() {
    let services = [srv(0, 0, 0, "a."), srv(0, 0, 80, "b.")];
    let entries = instances(&services, &resolved(&services));
    let error = entries[0].as_ref().expect_err("port 0");
    assert!(error.to_string().contains("a has port 0"), "{error}");
    assert_eq!(entries[1].as_ref().expect("an instance").port(), 80);
}

#[test]
fn root_as_the_target_is_no_service() {
    let records = vec![RData::SRV(srv(0, 0, 0, ".")), RData::SRV(srv(0, 0, 80, "b."))];
    assert_eq!(services(records).len(), 1);
    assert_eq!(services(vec![RData::SRV(srv(0, 0, 0, "."))]), []);
}

#[test]
fn target_without_an_address_is_an_error_in_its_place_only() {
    let services = [srv(0, 0, 80, "a."), srv(0, 0, 80, "b."), srv(0, 0, 80, "c.")];
    let mut targets = resolved(&services);
    targets.insert(name("a."), Ok(Vec::new()));
    let timeout = Error::new(ErrorKind::Timeout, BACKEND, "follow");
    targets.insert(name("b."), Err(timeout));
    let entries = instances(&services, &targets);
    let kind = |at: usize| entries[at].as_ref().expect_err("no address").kind();
    assert_eq!((kind(0), kind(1)), (ErrorKind::NotFound, ErrorKind::Timeout));
    assert!(entries[2].is_ok());
}

/// So that DNS without weights gets the same share as any other registry without weights.
#[test]
fn host_without_srv_records_has_the_weight_one() {
    assert_eq!(host(IpAddr::from([10, 0, 0, 1]), 80).weight(), 1);
}

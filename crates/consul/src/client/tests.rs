use ::http::{HeaderMap, HeaderName, HeaderValue};

use super::*;

#[test]
fn name_that_is_another_path_is_refused() {
    for path in [
        &["kv", "a\tb"][..],
        &["kv", "..\n"],
        &["health", "service", "web\r"],
        &["health", "service", ".."],
        &["agent", "check", "update", "service:web:a\n"],
    ] {
        let error = check_path("follow", path).expect_err("another path");
        assert_eq!(error.kind(), ErrorKind::Config, "{path:?}");
        assert!(!error.to_string().contains(char::is_control), "{error}");
    }
    check_path("follow", &["kv", "a b", "ü", ""]).expect("a folder");
}

/// What is missing or strange in the headers is no error.
#[test]
fn headers_are_read_as_far_as_they_can_be_trusted() {
    let meta = |pairs: &[(&'static str, &'static str)]| {
        let headers: HeaderMap = pairs
            .iter()
            .map(|(name, value)| {
                let name = HeaderName::from_static(name);
                (name, HeaderValue::from_static(value))
            })
            .collect();
        Meta::of(&headers)
    };
    assert_eq!(meta(&[]), Meta::default());
    assert_eq!(meta(&[("x-consul-index", "42")]).index, Some(42));
    for garbage in ["", "-1", "x", "18446744073709551616", "1.5"] {
        assert_eq!(meta(&[("x-consul-index", garbage)]).index, None, "{garbage}");
    }
    let streaming = meta(&[
        ("x-consul-query-backend", "streaming"),
        ("x-consul-knownleader", "false"),
        ("x-consul-lastcontact", "0"),
    ]);
    assert!(streaming.streaming);
    let filtered = meta(&[("x-consul-results-filtered-by-acls", "true")]);
    assert!(filtered.filtered_by_acls);
}

#[test]
fn address_that_is_none_is_refused_with_a_sentence() {
    let with_token = ["http://a:8500/?token=pw", "unix:///run/consul?token=pw"];
    for address in ["", "ftp://a:1", "http://", "http://user:pw@a:8500"].iter().chain(&with_token) {
        let error = ConsulClient::new(ConsulConfig::new(*address)).expect_err(address);
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!format!("{error:?}").contains("pw"), "{error:?}");
    }
}

/// More in the tests over the wire.
#[test]
fn token_is_in_no_debug_output() {
    let config = ConsulConfig::default().token("s3cr3t");
    let client = ConsulClient::new(config).expect("a client");
    assert!(!format!("{client:?}").contains("s3cr3t"));
}

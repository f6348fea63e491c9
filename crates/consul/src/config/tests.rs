use std::{collections::HashMap, path::Path};

use tower_sd_core::ErrorKind;

use super::*;
use crate::Consul;

fn from(variables: &[(&str, &str)]) -> Result<ConsulConfig> {
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    ConsulConfig::from_variables(|name| variables.get(name).map(Into::into))
}

fn base(address: &str) -> String {
    let endpoint = ConsulConfig::new(address).endpoint().expect(address);
    endpoint.base.to_string()
}

#[test]
fn every_form_of_address_is_understood() {
    assert_eq!(base("127.0.0.1:8500"), "http://127.0.0.1:8500/");
    assert_eq!(base("http://consul:8500"), "http://consul:8500/");
    assert_eq!(base("https://consul:8501"), "https://consul:8501/");
    assert_eq!(base("https://proxy/consul/eu"), "https://proxy/consul/eu");
    assert_eq!(base("[::1]:8500"), "http://[::1]:8500/");
    let unix = ConsulConfig::new("unix:///run/consul.sock").endpoint().expect("a socket");
    assert_eq!(unix.target, Target::unix("/run/consul.sock"));
}

/// From Consul's client: "never revert to http if TLS was explicitly requested".
#[test]
fn http_in_the_address_does_not_switch_tls_off() {
    let config = from(&[("CONSUL_HTTP_ADDR", "http://consul:8501"), ("CONSUL_HTTP_SSL", "true")]);
    let endpoint = config.expect("valid").endpoint().expect("valid");
    assert_eq!(endpoint.base.scheme(), "https");
}

#[test]
fn every_variable_is_read() {
    let config = from(&[
        ("CONSUL_HTTP_ADDR", "consul:1"),
        ("CONSUL_HTTP_TOKEN", "t0ken"),
        ("CONSUL_HTTP_TOKEN_FILE", "/token"),
        ("CONSUL_HTTP_AUTH", "user:pass:word"),
        ("CONSUL_HTTP_SSL", "1"),
        ("CONSUL_HTTP_SSL_VERIFY", "false"),
        ("CONSUL_CACERT", "/ca.pem"),
        ("CONSUL_CAPATH", "/ca"),
        ("CONSUL_CLIENT_CERT", "/cert.pem"),
        ("CONSUL_CLIENT_KEY", "/key.pem"),
        ("CONSUL_TLS_SERVER_NAME", "server.dc1.consul"),
        ("CONSUL_NAMESPACE", "ns"),
        ("CONSUL_PARTITION", "part"),
    ])
    .expect("valid");
    assert_eq!(config.address, "consul:1");
    assert_eq!(config.token, Some(Secret::new("t0ken")));
    assert_eq!(config.token_file, Some("/token".into()));
    assert_eq!(config.basic_auth, Some(("user".into(), Secret::new("pass:word"))));
    let tls = TlsConfig::new()
        .with_root(Path::new("/ca.pem"))
        .with_root(Path::new("/ca"))
        .with_identity(Path::new("/cert.pem"), Path::new("/key.pem"))
        .with_server_name("server.dc1.consul")
        .danger_accept_invalid_certificates();
    assert_eq!(config.tls, Some(tls));
    assert_eq!(config.namespace.as_deref(), Some("ns"));
    assert_eq!(config.partition.as_deref(), Some("part"));
    let text = format!("{config:?}");
    assert!(!text.contains("t0ken") && !text.contains("word"), "{text}");
}

#[test]
fn variables_that_are_missing_or_empty_leave_the_defaults() {
    for config in [from(&[]), from(&[("CONSUL_HTTP_ADDR", ""), ("CONSUL_HTTP_TOKEN", "")])] {
        let config = config.expect("valid");
        assert_eq!(config.address, "127.0.0.1:8500");
        assert_eq!(config.token, None);
        assert_eq!(config.tls, None);
    }
}

#[test]
fn boolean_that_is_none_is_an_error_and_no_plain_text() {
    let error = from(&[("CONSUL_HTTP_SSL", "yes")]).expect_err("not a boolean");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("CONSUL_HTTP_SSL"), "{error}");
}

#[test]
fn half_of_a_client_certificate_is_an_error() {
    let (certificate, key) = ("CONSUL_CLIENT_CERT", "CONSUL_CLIENT_KEY");
    for (given, missing) in [(certificate, key), (key, certificate)] {
        let error = from(&[(given, "/x")]).expect_err(missing);
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(
            error.to_string().contains(&format!("{given} is given without {missing}")),
            "{error}"
        );
    }
}

#[test]
fn authorities_alone_do_not_switch_tls_on_in_the_environment() {
    // As in Consul's own client.
    assert_eq!(from(&[("CONSUL_CACERT", "/ca.pem")]).expect("valid").tls, None);
    let https = from(&[("CONSUL_HTTP_ADDR", "https://h"), ("CONSUL_CACERT", "/ca.pem")]);
    assert!(https.expect("valid").tls.is_some());
    let config = ConsulConfig::from_url("consul://h?ca-file=/ca.pem").expect("a URL");
    assert_eq!(config.endpoint().expect("valid").base.scheme(), "https");
}

#[test]
fn token_file_must_be_readable() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    let config = ConsulConfig::default().token("given").token_file(&file);
    let error = Consul::new(config.clone()).expect_err("no such file");
    let path = file.display().to_string();
    assert!(error.to_string().contains(&path), "{error}");
    std::fs::write(&file, "from-file\n").expect("our folder");
    Consul::new(config).expect("readable");
}

#[test]
fn url_sets_agent_and_queries() {
    let url = "consul://10.0.0.1:8501?tag=x&tag=y&passing=true&dc=eu&near=_agent&stale=true&wait=30s&token-file=/t&ttl=30s";
    let config = ConsulConfig::from_url(url).expect("a URL");
    assert_eq!(config.address, "10.0.0.1:8501");
    assert_eq!(config.datacenter.as_deref(), Some("eu"));
    assert_eq!(config.token_file, Some("/t".into()));
    assert_eq!(config.registry.ttl, Some(Duration::from_secs(30)));
    let query = config.query;
    assert_eq!(query.wait, Duration::from_secs(30));
    let expected = [("tag", "x"), ("tag", "y"), ("near", "_agent")];
    assert_eq!(query.parameters(), expected.map(|(k, v)| (k, v.to_owned())));
    assert!(!query.wants(tower_sd_core::InstanceStatus::Warning), "passing");
    assert_eq!(query.consistency(), Some(("stale", String::new())));
    let config = ConsulConfig::from_url("consul://[::1]/").expect("a URL");
    assert_eq!(config.address, "[::1]:8500");
}

#[test]
fn malformed_url_names_the_remedy() {
    for (url, says) in [
        ("consul://h?tga=x", "the options are ca-file, ca-path, cert-file, consistent, dc, filter"),
        ("consul://h?token=x", "use token-file"),
        ("consul://u:p@h", "a user or password in a URL gets logged"),
        ("consul://h/orders", "instancer(\"orders\")"),
        ("consul://h?wait=5", "30s"),
        ("consul://h?passing=maybe", "option passing: \"maybe\" is neither true nor false"),
        ("http://h", "not consul"),
        ("consul://0.0.0.0", "wildcard"),
        ("consul://[::]:8500", "wildcard"),
        ("consul", "consul://host:port"),
        ("consul://", "it names one agent, as consul://host:8500 does"),
        ("consul://a,b", "it names one agent"),
        ("consul://h?tag=", "option tag: empty"),
        ("consul://h?stale=true&consistent=true", "the two exclude each other"),
        ("consul://h?ttl=0s", "between 1 s and 24 h"),
        ("consul://h?ttl=5", "option ttl: \"5\" is not a time"),
    ] {
        let error = ConsulConfig::from_url(url).expect_err(url);
        assert_eq!(error.kind(), ErrorKind::Config, "{url}");
        assert!(error.to_string().contains(says), "{url}: {error}");
        assert!(error.to_string().starts_with("consul configure: "), "{error}");
    }
}

#[test]
fn user_or_password_in_an_address_is_refused_and_not_shown() {
    for address in [
        "u:hunter2@h:8500",
        "http://u:hunter2@h:8500",
        "https://u:12/hunter2@h",
        "u:12?hunter2@h",
        "http://u:hunter2%40h",
        "hunter2@http://h",
    ] {
        for config in [Ok(ConsulConfig::new(address)), from(&[("CONSUL_HTTP_ADDR", address)])] {
            let config = config.expect("is judged later");
            assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
            let error = Consul::new(config).expect_err("has a user or password");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
            assert!(error.to_string().contains("use basic_auth"), "{error}");
        }
    }
    let error = serde_json::from_str::<ConsulConfig>(r#"{"basic_auth": "u:hunter2"}"#);
    let error = error.expect_err("of another type").to_string();
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn configuration_file_has_the_options_of_the_code() {
    let json = r#"{"address": "10.0.0.1:8500", "token": "s3cr3t", "registry": {"ttl": "30s"},
        "query": {"tags": ["x"], "health": "passing", "consistency": "stale", "wait": "0ms"}}"#;
    let config: ConsulConfig = serde_json::from_str(json).expect("a configuration");
    assert_eq!(config.token, Some("s3cr3t".into()));
    assert_eq!(config.registry.ttl, Some(Duration::from_secs(30)));
    assert_eq!(config.max_blocking_queries, 48, "the default");
    assert!(!config.query.wants(tower_sd_core::InstanceStatus::Warning), "passing");
    assert!(!config.query.wait.is_zero(), "no loop without a pause");
    let error = serde_json::from_str::<ConsulConfig>(r#"{"adress": "x"}"#).expect_err("a typo");
    assert!(error.to_string().contains("adress") && error.to_string().contains("address"));
}

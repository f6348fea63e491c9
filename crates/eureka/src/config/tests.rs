use tower_sd_core::ErrorKind;

use super::*;

#[test]
fn url_sets_servers_zones_and_query() {
    let config = EurekaConfig::from_url(
        "eureka://a,b:1/eureka/v2?zone=z2&server-zones=z1,z2&secure=true&lookup=vip&poll=10s&ttl=30s&user=app&password-file=/p",
    )
    .expect("well formed");
    let servers = [
        EurekaServer::new("http://a:8761/eureka/v2").zone("z1"),
        EurekaServer::new("http://b:1/eureka/v2").zone("z2"),
    ];
    assert_eq!(config.servers, servers);
    assert_eq!((config.zone.as_deref(), config.user.as_deref()), (Some("z2"), Some("app")));
    let query = Query::vip("").secure().poll_interval(Duration::from_secs(10));
    assert_eq!(config.query, query);
    assert_eq!(config.registry.ttl, Some(Duration::from_secs(30)));
}

#[test]
fn url_that_cannot_work_is_refused_with_a_sentence() {
    for (url, part) in [
        ("eureka://a", "base path"),
        ("eureka://a/eureka?sekure=true", "the options are any-status"),
        ("eureka://a/eureka?password=x", "password-file"),
        ("eureka://user:pw@a/eureka", "gets logged"),
        ("eureka://a,b/eureka?server-zones=z", "one for each host"),
        ("eureka://a/eureka?lookup=dns", "app, vip and svip"),
        ("eureka://a/eureka?ttl=1ms", "between 1 s and 24 h"),
        ("eureka://a/eureka?poll=0s", "between 100 ms and 1 h"),
        ("eureka://a/eureka?poll=2h", "between 100 ms and 1 h"),
        ("eureka:///eureka", "there are none"),
        ("eureka://a/eureka?password-file=/p", "only work together"),
        ("eureka://a/eureka?user=u", "only work together"),
    ] {
        let error = EurekaConfig::from_url(url).expect_err(url);
        assert_eq!(error.kind(), ErrorKind::Config, "{url}");
        assert!(error.to_string().contains(part), "{url}: {error}");
        assert!(!error.to_string().contains("pw"), "{error}");
    }
}

#[test]
fn environment_of_spring_is_read_and_its_password_is_hidden() {
    let config = EurekaConfig::from_variables(|name| match name {
        "EUREKA_CLIENT_SERVICEURL_DEFAULTZONE" => {
            Some("http://app:s3c%40et@a:8761/eureka/, https://b/eureka".into())
        }
        "EUREKA_INSTANCE_METADATAMAP_ZONE" => Some("z1".into()),
        _ => None,
    });
    let config = config.expect("well formed");
    config.validate().expect("it can work");
    assert_eq!(config.servers[0].url, "http://a:8761/eureka/");
    assert_eq!(config.servers[1].url, "https://b/eureka");
    assert_eq!(config.password.as_ref().map(Secret::expose), Some("s3c@et"));
    assert_eq!((config.user.as_deref(), config.zone.as_deref()), (Some("app"), Some("z1")));
    assert!(!format!("{config:?}").contains("s3c"));
}

#[test]
fn address_that_is_none_is_refused_with_a_sentence() {
    let with_token = "http://a/eureka?token=pw";
    for address in ["", "ftp://a/eureka", "http://user:pw@a/eureka", "a:8761/eureka", with_token] {
        let error = EurekaConfig::new(address).validate().expect_err(address);
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!format!("{error:?}").contains("pw"), "{error:?}");
    }
}

#[test]
fn timeout_of_zero_is_refused() {
    let config = EurekaConfig::default().timeout(Duration::ZERO);
    let error = config.validate().expect_err("nothing succeeds").to_string();
    assert!(error.contains("timeout"), "{error}");
}

#[test]
fn password_in_an_address_is_never_shown() {
    let config = EurekaConfig::new("http://app:s3cret@a/eureka");
    assert!(!format!("{config:?}").contains("s3cret"), "{config:?}");
    for file in [
        r#"{"servers":"http://app:s3cret@a/eureka"}"#,
        r#"{"servers":["http://app:s3cret@a/eureka"]}"#,
    ] {
        let error = serde_json::from_str::<EurekaConfig>(file).expect_err(file).to_string();
        assert!(!error.contains("s3cret"), "{error}");
    }
}

#[test]
fn file_of_settings_sets_what_code_sets() {
    let config: EurekaConfig = serde_json::from_str(
        r#"{"servers":[{"url":"http://a/eureka","zone":"z"}],"timeout":"2s","query":{"secure":true}}"#,
    )
    .expect("well formed");
    assert_eq!(config.servers, [EurekaServer::new("http://a/eureka").zone("z")]);
    assert_eq!((config.timeout, &config.query), (Duration::from_secs(2), &Query::new("").secure()));
    serde_json::from_str::<EurekaConfig>(r#"{"server":[]}"#).expect_err("an unknown field");
}

use super::*;

#[test]
fn endpoints_are_brought_into_one_form() {
    for endpoint in ["a:1", "http://a:1", "http://a:1/"] {
        let config = EtcdConfig::new([endpoint]).validated().expect(endpoint);
        assert_eq!(config.endpoints, ["http://a:1"]);
    }
    let config = EtcdConfig::new(["[::1]:2379"]).validated().expect("good");
    assert_eq!(config.endpoints, ["http://[::1]:2379"]);
}

#[test]
fn settings_that_cannot_work_are_refused_with_a_sentence() {
    let good = || EtcdConfig::new(["a:1"]);
    let bad = [
        EtcdConfig::new(Vec::<String>::new()),
        EtcdConfig::new(["a"]),
        EtcdConfig::new(["a:0"]),
        EtcdConfig::new(["a:1,b:1"]),
        EtcdConfig::new(["a:1/path"]),
        EtcdConfig::new(["ftp://a:1"]),
        EtcdConfig::new(["https://a:1"]),
        EtcdConfig::new(["http://a:1"]).tls(Tls::SystemRoots),
        good().ttl(Duration::ZERO),
        good().ttl(Duration::from_secs(1_000_000)),
        EtcdConfig { keep_alive: Duration::from_secs(5), ..good() },
        EtcdConfig { codecs: Vec::new(), ..good() },
    ];
    for config in bad {
        let error = config.clone().validated().expect_err("cannot work");
        assert_eq!(error.kind(), ErrorKind::Config, "{config:?}");
    }
}

/// T12: the password is seen nowhere.
#[test]
fn secrets_are_not_shown() {
    let config = EtcdConfig::new(["a:1"]).user("root", "hunter2");
    assert!(!format!("{config:?}").contains("hunter2"));
    let error = EtcdConfig::new(["http://root:hunter2@a:1"]).validated();
    let error = error.expect_err("has user information");
    assert!(!format!("{error:?} {error}").contains("hunter2"), "{error}");
    assert!(error.to_string().contains("EtcdConfig::user"), "{error}");
}

#[test]
fn parts_of_a_second_are_rounded_up_and_a_trailing_slash_is_ours() {
    let config = EtcdConfig::new(["a:1"]).ttl(Duration::from_millis(1500));
    assert_eq!(config.ttl_seconds(), 2);
    let config = config.prefix("/services/").validated().expect("good");
    assert_eq!(config.prefix, "/services");
}

/// go-kit's bug E6: an own authority without a client certificate is not ignored.
#[test]
fn an_own_authority_alone_is_tls() {
    let config = EtcdConfig::new(["a:1"]).tls(Tls::Authority("pem".to_owned()));
    let config = config.validated().expect("good");
    assert_eq!(config.endpoints, ["https://a:1"]);
    assert!(config.tls.options().is_some());
}

/// T12.
#[test]
fn a_key_is_not_shown() {
    let tls = Tls::Mutual {
        authority: "a".to_owned(),
        certificate: "c".to_owned(),
        key: "hunter2".into(),
    };
    assert_eq!(format!("{tls:?}"), "Mutual");
}

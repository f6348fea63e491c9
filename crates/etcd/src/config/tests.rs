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
        EtcdConfig::new(["http://a:1"]).tls(TlsConfig::new()),
        EtcdConfig::new(["a:1"]).tls(TlsConfig::new().with_root("no-such-file.pem")),
        EtcdConfig::new(["a:1"]).user_from_file("svc", "no-such-file"),
        EtcdConfig::new(["a:1"]).tls(mutual(CERTIFICATE, KEY, KEY)),
        EtcdConfig::new(["a:1"]).tls(mutual(CERTIFICATE, CERTIFICATE, CERTIFICATE)),
        good().ttl(Duration::ZERO),
        good().ttl(Duration::from_secs(1_000_000)),
        good().ping_interval(Duration::from_secs(5)),
        good().connect_timeout(Duration::ZERO),
        good().request_timeout(Duration::ZERO),
        EtcdConfig { codecs: Vec::new(), ..good() },
    ];
    for config in bad {
        let error = config.clone().validated().expect_err("cannot work");
        assert_eq!(error.kind(), ErrorKind::Config, "{config:?}");
    }
}

/// A connection adds it to the present instant.
#[test]
fn endless_ping_interval_is_a_day() {
    let config = EtcdConfig::new(["a:1"]).ping_interval(Duration::MAX).validated();
    assert_eq!(config.expect("good").ping_interval, Duration::from_secs(24 * 3600));
}

fn mutual(authority: &str, certificate: &str, key: &str) -> TlsConfig {
    TlsConfig::new().with_root(authority).with_identity(certificate, key)
}

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
const KEY: &str = "-----BEGIN PRIVATE KEY-----";

#[test]
fn secrets_are_not_shown() {
    let config = EtcdConfig::new(["a:1"]).user("root", "hunter2");
    assert!(!format!("{config:?}").contains("hunter2"));
    let key = format!("{KEY}hunter2");
    let config = EtcdConfig::new(["a:1"]).tls(mutual(CERTIFICATE, CERTIFICATE, &key));
    assert!(!format!("{config:?}").contains("hunter2"));
    for endpoint in [
        "http://root:hunter2@a:1",
        "root:hunter2@a:1",
        "root:hunter2/x@a:1",
        "root:hunter2?x@a:1",
        "root:hunter2%40a:1",
        "hunter2@http://a:1",
    ] {
        let config = EtcdConfig::new([endpoint]);
        assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
        let error = config.validated().expect_err("has user information");
        assert!(!format!("{error:?} {error}").contains("hunter2"), "{error}");
        assert!(error.to_string().contains("EtcdConfig::user"), "{error}");
    }
    for file in [
        r#"{"endpoints": "http://root:hunter2@a:1"}"#,
        r#"{"user": "root:hunter2"}"#,
        r#"{"user": {"name": "root", "password": ["hunter2"]}}"#,
    ] {
        let error = serde_json::from_str::<EtcdConfig>(file).expect_err("of another type");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[test]
fn trailing_slash_of_the_prefix_is_removed() {
    let config = EtcdConfig::new(["a:1"]).prefix("/services/").validated().expect("good");
    assert_eq!(config.prefix, "/services");
}

/// go-kit ignores an own authority without a client certificate.
#[test]
fn own_authority_alone_is_tls() {
    let config = EtcdConfig::new(["a:1"]).tls(TlsConfig::new().with_root(CERTIFICATE));
    let config = config.validated().expect("good");
    assert_eq!(config.endpoints, ["https://a:1"]);
    assert!(config.tls.is_some());
}

/// The documentation of every public field of the settings, by name and type.
fn settings() -> Vec<(&'static str, &'static str, String)> {
    let source = include_str!("../config.rs");
    let (_, fields) = source.split_once("pub struct EtcdConfig {\n").expect("is there");
    let (fields, _) = fields.split_once("\n}").expect("ends");
    let mut settings = Vec::new();
    let mut text = String::new();
    for line in fields.lines().map(str::trim) {
        if let Some(more) = line.strip_prefix("/// ") {
            text.push_str(more);
            text.push(' ');
        } else if !line.is_empty() && line != "///" && !line.starts_with("#[") {
            let field = line.strip_prefix("pub ").and_then(|it| it.strip_suffix(','));
            let (name, kind) = field.and_then(|it| it.split_once(": ")).expect("a public field");
            settings.push((name, kind, std::mem::take(&mut text)));
        }
    }
    settings
}

#[test]
fn every_setting_has_a_documented_default_and_can_be_set() {
    let source = include_str!("../config.rs");
    let settings = settings();
    assert_eq!(settings.len(), 9, "{settings:?}");
    for (name, _, text) in &settings {
        assert!(text.contains("Defaults to "), "{name}: {text}");
        let setter = match *name {
            "endpoints" => "pub fn new<".to_owned(),
            "codecs" => "pub fn codec(".to_owned(),
            name => format!("pub fn {name}("),
        };
        assert!(source.contains(&setter), "{name}");
    }
}

#[test]
fn times_have_the_default_that_is_documented_with_its_unit() {
    let config = EtcdConfig::new(["a:1"]);
    let times = [
        ("connect_timeout", config.connect_timeout),
        ("request_timeout", config.request_timeout),
        ("ping_interval", config.ping_interval),
    ];
    let documented = settings().into_iter().filter(|(_, kind, _)| *kind == "Duration");
    let documented: Vec<_> = documented.map(|(name, _, text)| (name, text)).collect();
    assert_eq!(documented.len(), times.len());
    for ((name, text), (expected, time)) in documented.iter().zip(times) {
        assert_eq!(*name, expected);
        let default = format!("Defaults to {} s.", time.as_secs());
        assert!(text.contains(&default), "{name} is {time:?}: {text}");
    }
}

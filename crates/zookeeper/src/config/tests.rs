use std::collections::HashMap;

use super::*;

#[test]
fn password_in_an_address_is_never_shown() {
    let config = ZooKeeperConfig::new(["app:s3cret@h:2181"]).user("app", "s3cret");
    assert!(!format!("{config:?}").contains("s3cret"), "{config:?}");
    for file in [
        r#"{"servers":"app:s3cret@h:2181"}"#,
        r#"{"user":"app:s3cret"}"#,
        r#"{"user":{"name":"app","s3cret":"password"}}"#,
        r#"{"user":{"name":"app","password":["s3cret"]}}"#,
    ] {
        let error = serde_json::from_str::<ZooKeeperConfig>(file).expect_err(file).to_string();
        assert!(!error.contains("s3cret"), "{error}");
    }
    let file = r#"{"user":{"name":"app","password":"s3cret"}}"#;
    let config: ZooKeeperConfig = serde_json::from_str(file).expect("well formed");
    let password = config.user.expect("there is one").password().expect("a text");
    assert_eq!(password, Secret::new("s3cret"));
}

#[test]
fn environment_sets_servers_path_and_user() {
    let from = |variables: &[(&str, &str)]| {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        ZooKeeperConfig::from_variables(|name| variables.get(name).map(Into::into))
    };
    let servers = ("SPRING_CLOUD_ZOOKEEPER_CONNECTSTRING", "a,b:7/x?session-timeout=4s");
    let user = ("ZOOKEEPER_USER", "app");
    let password = ("ZOOKEEPER_PASSWORD", "s3cret");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "filed\n").expect("our file");
    let file = ("ZOOKEEPER_PASSWORD_FILE", file.path().to_str().expect("UTF-8"));
    let root = ("SPRING_CLOUD_ZOOKEEPER_DISCOVERY_ROOT", "/sd");
    let config = from(&[servers, root, user, password]).expect("good settings");
    assert_eq!(config.servers, ["a:2181", "b:7"]);
    assert_eq!((&*config.chroot, &*config.path), ("x", "/sd"));
    assert_eq!(config.session_timeout, Duration::from_secs(4));
    assert!(!format!("{config:?}").contains("s3cret"), "{config:?}");
    for (variables, expected) in
        [(&[servers, user, password][..], "s3cret"), (&[servers, user, password, file], "filed")]
    {
        let user = from(variables).expect("good settings").user.expect("there is one");
        assert_eq!(user.password().expect("readable"), Secret::new(expected));
    }
    for (variables, reason) in [
        (&[][..], "CONNECTSTRING is not set"),
        (&[("SPRING_CLOUD_ZOOKEEPER_CONNECTSTRING", "")], "CONNECTSTRING is not set"),
        (&[servers, user], "no password"),
        (&[("SPRING_CLOUD_ZOOKEEPER_CONNECTSTRING", "app:s3cret@a")], "logged"),
    ] {
        let error = from(variables).expect_err(reason).to_string();
        assert!(error.contains(reason) && !error.contains("s3cret"), "{error}");
    }
}

#[test]
fn address_with_a_user_is_refused_without_being_shown() {
    for address in ["app:s3cret@h:2181", "app:s3cret%40h:2181"] {
        let error = crate::ZooKeeper::new(ZooKeeperConfig::new([address])).expect_err(address);
        assert_eq!(error.kind(), ErrorKind::Config);
        let text = format!("{error:?} {error}");
        assert!(text.contains("user information") && !text.contains("s3cret"), "{text}");
    }
}

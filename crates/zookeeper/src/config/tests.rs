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
fn address_with_a_user_is_refused_without_being_shown() {
    for address in ["app:s3cret@h:2181", "app:s3cret%40h:2181"] {
        let error = crate::ZooKeeper::new(ZooKeeperConfig::new([address])).expect_err(address);
        assert_eq!(error.kind(), ErrorKind::Config);
        let text = format!("{error:?} {error}");
        assert!(text.contains("user information") && !text.contains("s3cret"), "{text}");
    }
}

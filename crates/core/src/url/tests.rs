use super::*;

fn url(text: &str) -> RegistryUrl {
    RegistryUrl::parse("test", text).expect(text)
}

#[test]
fn hosts_have_a_port() {
    let addresses = |text| url(text).addresses(80);
    assert_eq!(addresses("test://a:1,b,[::1],[::1]:2/x"), ["a:1", "b:80", "[::1]:80", "[::1]:2"]);
    assert_eq!(addresses("test:///"), Vec::<String>::new());
    assert_eq!(addresses("test://fe80%25lo"), ["fe80%lo:80"]);
    let without_brackets = addresses("test://::1,fe80::1%25lo,2001:db8::10:20");
    assert_eq!(without_brackets, ["[::1]:80", "[fe80::1%lo]:80", "[2001:db8::10:20]:80"]);
}

#[test]
fn path_is_decoded_without_its_first_slash() {
    for (text, path) in [
        ("test://a", ""),
        ("test://a/", ""),
        ("test://a/b", "b"),
        ("test://a/b/c/?d=e", "b/c/"),
        ("test://a//b", "/b"),
        ("test://a/gr%C3%BC%2Fn%", "grü/n%"),
    ] {
        assert_eq!(url(text).path(), path, "{text}");
    }
    assert_eq!(url("test://::1,fe80::1%25lo,a:0").addresses(1)[2], "a:0", "its backend's affair");
    let error = url("test://a/orders").no_path().expect_err("a service").to_string();
    assert!(error.contains("instancer(\"orders\")"), "{error}");
}

#[test]
fn options_have_types() {
    let mut at = url("test://a?user=me%40home");
    assert_eq!(at.text("user").expect("a text").as_deref(), Some("me@home"));
    let mut url = url("test://a?t=x+y%20z&l=1,2%2C3&l=4&y=true&n=0&d=500ms&f=/etc/x&s-file=/s");
    assert_eq!(url.text("t").expect("a text").as_deref(), Some("x+y z"));
    assert_eq!(url.list("l").expect("a list"), ["1", "2,3", "4"]);
    assert_eq!(url.flag("y").expect("a boolean"), Some(true));
    assert_eq!(url.flag("n").expect("a boolean"), Some(false));
    assert_eq!(url.flag("absent").expect("none"), None);
    assert_eq!(url.duration("d").expect("a duration"), Some(Duration::from_millis(500)));
    assert_eq!(url.file("f").expect("a path"), Some("/etc/x".into()));
    assert_eq!(url.secret_file("s-file", "s").expect("a path"), Some("/s".into()));
    url.finish().expect("all taken");
}

#[test]
fn options_of_tls_are_never_ignored() {
    let tls = |options: &str| url(&format!("test://a?{options}")).tls();
    assert_eq!(tls("").expect("none"), None);
    assert_eq!(tls("tls=false").expect("none"), None);
    for option in ["tls=true", "verify=true"] {
        assert_eq!(tls(option).expect("the system's"), Some(TlsConfig::new()), "{option}");
    }
    let root = TlsConfig::new().with_root(PathBuf::from("/ca"));
    assert_eq!(tls("ca-file=/ca").expect("a root"), Some(root.clone()));
    let all = tls("ca-path=/ca&cert-file=/c&key-file=/k&server-name=n&verify=false");
    let expected = root.with_identity(PathBuf::from("/c"), PathBuf::from("/k"));
    let expected = expected.with_server_name("n").danger_accept_invalid_certificates();
    assert_eq!(all.expect("all"), Some(expected));
    for (options, why) in [
        ("cert-file=/c", "option cert-file: given without key-file"),
        ("key-file=/k", "option key-file: given without cert-file"),
        ("tls=false&ca-file=/ca", "option tls: false, and other options set up TLS"),
        ("tls=false&verify=true", "option tls: false, and other options set up TLS"),
        ("tls=maybe", "option tls: \"maybe\" is neither true nor false"),
    ] {
        let error = tls(options).expect_err(options).to_string();
        assert_eq!(error, format!("test configure: {why}"));
    }
}

#[test]
fn malformed_urls_are_refused_without_their_secrets() {
    for (text, why) in [
        ("a:1", "not a URL such as test://host:port"),
        ("test:u:hunter2@a", "not a URL such as test://host:port"),
        ("http://a", "the scheme is \"http\", not test"),
        ("test://u:hunter2@a", "a user or password in a URL gets logged"),
        ("test://a,u:hunter2@b/x", "a user or password in a URL gets logged"),
        ("test://u:hunter2/x@a", "a user or password in a URL gets logged"),
        ("test://u:hunter2?x@a", "a user or password in a URL gets logged"),
        ("test://u:hunter2?x=y&z@a/b", "a user or password in a URL gets logged"),
        ("test://u:12/hunter2@a", "a user or password in a URL gets logged"),
        ("test://u:12?hunter2=x@a", "a user or password in a URL gets logged"),
        ("test://u:hunter2%40a", "a user or password in a URL gets logged"),
        ("test://u:12/hunter2%40a", "a user or password in a URL gets logged"),
        ("test://u:12?hunter2%40a", "a user or password in a URL gets logged"),
        ("u:hunter2@test://a", "not a URL such as test://host:port"),
        ("hunter2@test://a", "not a URL such as test://host:port"),
        ("test://u:hunter2", "one of the ports is not a number up to 65535"),
        ("test://u:hunter2%2540a", "one of the ports is not a number up to 65535"),
        ("test://[::1]:hunter2", "one of the ports is not a number up to 65535"),
        ("test://a,,b", "one of the hosts is empty"),
        ("test://a/%FF", "the path is not UTF-8"),
        ("test://a/b\n", "the path is not free of control characters"),
        ("test://a%0a/b", "a host is not free of control characters"),
        ("test://a:+80", "one of the ports is not a number up to 65535"),
    ] {
        let error = RegistryUrl::parse("test", text).expect_err(text).to_string();
        assert!(error.starts_with(&format!("test configure: {why}")), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn malformed_options_are_named() {
    let complaint = |result: Result<()>| result.expect_err("malformed").to_string();
    let text = |text| complaint(url(text).text("o").map(drop));
    assert_eq!(text("test://a?o="), "test configure: option o: empty");
    assert_eq!(text("test://a?o=b%0A"), "test configure: option o: not free of control characters");
    assert_eq!(text("test://a?o=1&o=2"), "test configure: option o: given twice");
    let time = complaint(url("test://a?o=5").duration("o").map(drop));
    assert!(time.contains("option o: \"5\" is not a time such as 30s"), "{time}");
    let secret = complaint(url("test://a?o=hunter2").secret_file("o-file", "o").map(drop));
    assert!(secret.contains("use o-file") && !secret.contains("hunter2"), "{secret}");
    let mut unknown = url("test://a?c=1");
    assert!(unknown.flag("b").is_ok() && unknown.flag("a").is_ok());
    let unknown = complaint(unknown.finish());
    assert_eq!(unknown, "test configure: unknown option \"c\"; the options are a, b");
}

#[test]
fn empty_variable_is_missing_and_another_encoding_refused() {
    let text = |value: Option<OsString>| variable("test", "V", value);
    for (value, expected) in [(None, None), (Some(""), None), (Some("x"), Some("x"))] {
        let text = text(value.map(Into::into)).expect("UTF-8");
        assert_eq!(text.as_deref(), expected);
    }
    #[cfg(unix)]
    {
        let other = std::os::unix::ffi::OsStringExt::from_vec(vec![0xff]);
        let error = text(Some(other)).expect_err("no UTF-8").to_string();
        assert_eq!(error, "test configure: V is not UTF-8");
    }
}

#[test]
fn debug_shows_no_option() {
    let shown = format!("{:?}", url("test://a?password=hunter2"));
    assert!(shown.contains("\"a\"") && !shown.contains("hunter2"), "{shown}");
}

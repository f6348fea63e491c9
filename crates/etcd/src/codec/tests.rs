use tower_sd_core::InstanceStatus;

use super::*;

fn full() -> Instance {
    Instance::new("::1", 8080)
        .with_id("a-1")
        .with_scheme("https")
        .with_weight(7)
        .with_priority(2)
        .with_zone("eu-1b")
        .with_tags(["v2", "blue"])
        .with_metadata("shard", "3")
        .with_status(InstanceStatus::Draining)
        .with_started_at_ms(1_700_000_000_000)
}

fn written(codec: &impl Codec, instance: &Instance) -> String {
    let announcement = Announcement::new("s", instance.clone());
    let value = codec.encode(&announcement).expect("encodes");
    let text = String::from_utf8(value).expect("is text");
    text.replace(announcement.incarnation(), "INCARNATION")
}

/// What grpc-go's resolver unmarshals is `Op` and `Addr`; it never reads `Metadata`.
#[test]
fn what_we_write_is_the_naming_packages_json() {
    let plain = Instance::new("1.2.3.4", 8080).with_id("a");
    let golden = concat!(
        r#"{"Addr":"1.2.3.4:8080","Metadata":{"id":"a","incarnation":"INCARNATION","priority":0,"#,
        r#""status":"passing","weight":1},"Op":0}"#,
    );
    assert_eq!(written(&NamingJson, &plain), golden);
    let golden = concat!(
        r#"{"Addr":"[::1]:8080","Metadata":{"id":"a-1","incarnation":"INCARNATION","metadata":{"shard":"3"},"priority":2,"scheme":"https","#,
        r#""started_at_ms":1700000000000,"status":"draining","tags":["blue","v2"],"weight":7,"zone":"eu-1b"},"Op":0}"#,
    );
    assert_eq!(written(&NamingJson, &full()), golden);
}

#[test]
fn nothing_of_an_instance_is_lost() {
    let value = written(&NamingJson, &full());
    let read = NamingJson.decode("whatever", value.as_bytes()).expect("decodes");
    assert_eq!(read, full());
}

#[test]
fn what_other_producers_write_is_read() {
    let read = |value: &str| NamingJson.decode("key", value.as_bytes()).expect(value);
    let bare = Instance::new("1.2.3.4", 80).with_id("key");
    assert_eq!(read(r#"{"Addr":"1.2.3.4:80"}"#), bare);
    assert_eq!(read(r#"{"Op":0,"Addr":"1.2.3.4:80","Metadata":null}"#), bare);
    assert_eq!(read(r#"{"Addr":"1.2.3.4:80","Metadata":{}}"#), bare);
    assert_eq!(
        read(r#"{"Addr":"1.2.3.4:80","Metadata":{"version":"2"}}"#),
        bare.clone().with_metadata("version", "2"),
    );
    assert_eq!(read(r#"{"Op":0,"Addr":"1.2.3.4:80","Metadata":"blue"}"#), bare);
    assert_eq!(
        read(r#"{"Addr":"[::1]:80","Metadata":{"zone":"a","weight":"9","more":{"x":1}}}"#),
        Instance::new("::1", 80)
            .with_id("key")
            .with_metadata("zone", "a")
            .with_metadata("weight", "9")
            .with_metadata("more", r#"{"x":1}"#),
    );
}

#[test]
fn what_is_no_entry_is_an_error() {
    for value in [
        "",
        "null",
        "[]",
        "\u{0}",
        "1.2.3.4:80",
        "{}",
        r#"{"Addr":""}"#,
        r#"{"Addr":"1.2.3.4"}"#,
        r#"{"Addr":"::1:80"}"#,
        r#"{"Addr":":80"}"#,
        r#"{"Addr":"a:99999"}"#,
        r#"{"Addr":7}"#,
        r#"{"Op":1,"Addr":"a:80"}"#,
    ] {
        let read = NamingJson.decode("key", value.as_bytes());
        assert!(read.is_err(), "{value:?} is {read:?}");
    }
}

/// go-kit's etcdv3 and go-zero.
#[test]
fn raw_addresses_are_read_and_written() {
    for text in ["http://1.2.3.4:8080", "1.2.3.4:8080", "https://[::1]:80", "a.example:1"] {
        let instance = RawAddress.decode("id", text.as_bytes()).expect(text);
        assert_eq!(instance.id().as_str(), "id");
        assert_eq!(written(&RawAddress, &instance), text);
    }
    let instance = RawAddress.decode("id", b"http://1.2.3.4:8080/").expect("go-kit allows it");
    assert_eq!((instance.scheme(), instance.port()), (Some("http"), 8080));
    for text in ["", "1.2.3.4", "http://", r#"{"Addr":"1.2.3.4:80"}"#, "a b:1", "http://u@h:1"] {
        assert!(RawAddress.decode("id", text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn values_of_kitex_are_read_and_written() {
    let golden = r#"{"network":"tcp","address":"[::1]:80","weight":7,"tags":{"env":"eu"}}"#;
    let instance =
        Instance::new("::1", 80).with_id("key").with_weight(7).with_metadata("env", "eu");
    assert_eq!(KitexJson.decode("key", golden.as_bytes()).expect("decodes"), instance);
    assert_eq!(written(&KitexJson, &instance), golden);
    let bare = r#"{"network":"tcp4","address":"1.2.3.4:80","weight":0,"tags":null}"#;
    let read = KitexJson.decode("key", bare.as_bytes()).expect("decodes");
    assert_eq!(read, Instance::new("1.2.3.4", 80).with_id("key"));
    for value in [
        "1.2.3.4:80",
        r#"{"address":"1.2.3.4:80"}"#,
        r#"{"network":"unix","address":"/socket:80"}"#,
        r#"{"network":"tcp","address":"1.2.3.4"}"#,
    ] {
        assert!(KitexJson.decode("key", value.as_bytes()).is_err(), "{value}");
    }
}

#[test]
fn values_of_kratos_are_read_by_protocol() {
    let value = concat!(
        r#"{"id":"7","name":"cart","version":"v1","metadata":{"zone":"a"},"#,
        r#""endpoints":["http://1.2.3.4:8000?isSecure=false","grpc://1.2.3.4:9000?isSecure=true"]}"#,
    );
    let read =
        |protocol: &str, value: &str| KratosJson::new(protocol).decode("key", value.as_bytes());
    let common = |port| {
        let instance = Instance::new("1.2.3.4", port).with_id("7");
        instance.with_metadata("version", "v1").with_metadata("zone", "a")
    };
    assert_eq!(read("http", value).expect("decodes"), common(8000).with_scheme("http"));
    assert_eq!(read("grpc", value).expect("decodes"), common(9000).with_scheme("https"));
    let bare = r#"{"id":"7","endpoints":["grpc://[::1]:9000"],"metadata":null}"#;
    let instance = Instance::new("::1", 9000).with_id("7").with_scheme("http");
    assert_eq!(read("grpc", bare).expect("decodes"), instance);
    for value in
        ["{", "{}", r#"{"id":"7","endpoints":[]}"#, r#"{"id":"7","endpoints":["grpc://a"]}"#]
    {
        assert!(read("grpc", value).is_err(), "{value}");
    }
    assert!(read("grcp", value).is_err());
    assert!(
        KratosJson::new("http").encode(&Announcement::new("s", common(1))).is_err(),
        "only read"
    );
}

#[test]
fn entry_with_nonsense_in_a_number_is_read_for_the_rest_of_it() {
    for (nonsense, text) in [(r#""abc""#, "abc"), ("-1", "-1"), ("1e99", "1e+99"), (r#""""#, "")] {
        let value = written(&NamingJson, &full());
        let value = value.replace(r#""weight":7"#, &format!(r#""weight":{nonsense}"#));
        let read = NamingJson.decode("key", value.as_bytes()).expect("decodes");
        assert_eq!(read, full().with_weight(1).with_text("weight", text));
        let value = format!(r#"{{"network":"tcp","address":"h:80","weight":{nonsense}}}"#);
        let read = KitexJson.decode("key", value.as_bytes()).expect("decodes");
        assert_eq!(read, Instance::new("h", 80).with_id("key").with_text("weight", text));
    }
}

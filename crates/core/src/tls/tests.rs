use std::{fs, path::Path, time::Duration};

use tempfile::TempDir;
use tokio::time::advance;

use super::{Pem, TlsConfig, TlsMaterial};
use crate::{ErrorKind, Rotating};

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n";

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(TempDir::new().expect("a folder"));
        folder.write("ca.pem", CERTIFICATE);
        folder.write("cert.pem", CERTIFICATE);
        folder.write("key.pem", KEY);
        folder
    }

    fn write(&self, file: &str, text: impl AsRef<[u8]>) {
        fs::write(self.0.path().join(file), text).expect("our folder");
    }

    fn pem(&self, file: &str) -> Pem {
        self.0.path().join(file).into()
    }

    fn config(&self) -> TlsConfig {
        let (certificate, key) = (self.pem("cert.pem"), self.pem("key.pem"));
        TlsConfig::new().with_root(self.pem("ca.pem")).with_identity(certificate, key)
    }
}

fn rotating(config: TlsConfig) -> Rotating<TlsMaterial> {
    Rotating::new("TLS files", move || config.load(), |read| Ok(read.clone())).expect("reads")
}

#[test]
fn texts_come_from_files_and_from_memory_alike() {
    let folder = Folder::new();
    let files = folder.config().load().expect("reads");
    let memory = TlsConfig::new().with_root(CERTIFICATE).with_identity(CERTIFICATE, KEY);
    assert_eq!(files, memory.load().expect("reads"));
    assert_eq!(TlsConfig::new().load().expect("reads").roots, None);
}

#[test]
fn folder_of_authorities_stands_for_all_its_files() {
    let folder = Folder::new();
    fs::remove_file(folder.0.path().join("key.pem")).expect("there");
    let two = TlsConfig::new().with_root(folder.0.path()).load().expect("reads");
    assert_eq!(two.roots.expect("own").matches("BEGIN CERTIFICATE").count(), 2);
}

/// Of an editor, or of a chart that indents.
#[test]
fn mark_or_blanks_before_a_block_hide_none() {
    let folder = Folder::new();
    folder.write("ca.pem", format!("\u{feff}{}", CERTIFICATE.replace('\n', "\n  ")));
    let roots = folder.config().load().expect("reads").roots.expect("own");
    assert!(roots.starts_with(CERTIFICATE), "{roots}");
}

#[test]
fn unusable_files_are_named_with_their_role() {
    let folder = Folder::new();
    folder.write("locked.pem", "-----BEGIN ENCRYPTED PRIVATE KEY-----\n");
    let with_key =
        |key: &str| TlsConfig::new().with_identity(folder.pem("cert.pem"), folder.pem(key));
    let rows = [
        (TlsConfig::new().with_root(folder.pem("none.pem")), "root: cannot read"),
        (TlsConfig::new().with_root(folder.pem("key.pem")), "root: "),
        (with_key("cert.pem"), "key: "),
        (with_key("locked.pem"), "is encrypted"),
        (serde_json::from_str(r#"{"roots": []}"#).expect("settings"), "roots: empty"),
    ];
    for (config, words) in rows {
        let error = config.load().expect_err("unusable");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn endless_file_is_refused() {
    if Path::new("/dev/zero").exists() {
        let error = TlsConfig::new().with_root("/dev/zero").load().expect_err("endless");
        assert!(error.chain().to_string().contains("4 MiB"), "{}", error.chain());
    }
}

#[test]
fn comments_may_be_in_any_encoding() {
    let folder = Folder::new();
    folder.write("ca.pem", [b"friendlyName: M\xfcller\n", CERTIFICATE.as_bytes()].concat());
    assert!(folder.config().load().expect("reads").roots.expect("own").ends_with(CERTIFICATE));
}

#[test]
fn secrets_are_not_shown() {
    let config = TlsConfig::new().with_root(CERTIFICATE).with_identity(CERTIFICATE, KEY);
    let files = rotating(config.clone());
    for text in [format!("{config:?}"), format!("{files:?}"), format!("{:?}", files.current())] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    let error = TlsConfig::new().with_root(KEY).load().expect_err("no certificate");
    assert!(!format!("{error:?} {error}").contains("hunter2"), "{error:?}");
}

#[test]
fn settings_are_read_from_a_file_of_settings() {
    let text = r#"{"roots": ["/ca.pem"], "server_name": "a",
        "identity": {"certificate": "/c.pem", "key": "/k.pem"}}"#;
    let read: TlsConfig = serde_json::from_str(text).expect("settings");
    let written = TlsConfig::new()
        .with_root("/ca.pem")
        .with_identity("/c.pem", "/k.pem")
        .with_server_name("a");
    assert_eq!(read, written);
    for partial in [r#"{"identity": {"certificate": "/c.pem"}}"#, r#"{"root": "/ca.pem"}"#] {
        serde_json::from_str::<TlsConfig>(partial).expect_err(partial);
    }
}

#[tokio::test(start_paused = true)]
async fn rotated_file_is_read_for_a_later_connection() {
    let folder = Folder::new();
    let files = rotating(folder.config());
    let first = files.current();
    folder.write("key.pem", KEY.replace("hunter2", "hunter3"));
    assert_eq!(files.current(), first, "at most once a second");
    advance(Duration::from_secs(1)).await;
    let second = files.current();
    assert_eq!(second.generation, first.generation + 1);
    assert!(second.value.identity.expect("own").1.expose().contains("hunter3"));
    advance(Duration::from_secs(1)).await;
    assert_eq!(files.current().generation, second.generation, "nothing has changed");
}

#[tokio::test(start_paused = true)]
async fn failure_has_files_read_immediately() {
    let folder = Folder::new();
    let files = rotating(folder.config());
    folder.write("ca.pem", CERTIFICATE.repeat(2));
    files.suspect();
    assert_eq!(files.current().generation, 1);
}

#[tokio::test(start_paused = true)]
async fn unreadable_file_leaves_the_last_texts_in_use() {
    let folder = Folder::new();
    let files = rotating(folder.config());
    let first = files.current();
    for broken in ["", "half of a fi"] {
        folder.write("cert.pem", broken);
        files.suspect();
        assert_eq!(files.current(), first);
    }
    folder.write("cert.pem", CERTIFICATE.repeat(2));
    files.suspect();
    assert_eq!(files.current().generation, 1, "whole again");
}

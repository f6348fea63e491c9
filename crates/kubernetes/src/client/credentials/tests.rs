use std::fs;

use tempfile::TempDir;

use super::*;

/// A program that prints another token with each run.
fn plugin(script: &str) -> (TempDir, KubernetesConfig) {
    let folder = TempDir::new().expect("a folder");
    let plugin = ExecPlugin {
        command: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        env: [("RUNS".to_owned(), folder.path().join("runs").display().to_string())].into(),
        cluster_info: Some("{\"server\":\"https://h\"}".into()),
        ..ExecPlugin::default()
    };
    (folder, KubernetesConfig::new("http://127.0.0.1:1").exec(plugin))
}

const COUNTING: &str = r#"
echo run >> "$RUNS"
case "$KUBERNETES_EXEC_INFO" in *'"server":"https://h"'*) ;; *) exit 1 ;; esac
n=$(wc -l < "$RUNS" | tr -d ' ')
echo "{\"kind\":\"ExecCredential\",\"status\":{\"token\":\"token-$n\"}}"
"#;

fn shown(token: &Token) -> &str {
    token.0.value.as_ref().map_or("", Secret::expose)
}

fn printed(credentials: &Credentials) -> &Printed {
    match credentials {
        Credentials::Printed(printed) => printed,
        Credentials::Rotating(_) => panic!("no program"),
    }
}

#[tokio::test]
async fn plugin_is_run_once_and_again_after_a_refusal() {
    let (_folder, config) = plugin(COUNTING);
    let credentials = Credentials::new(&config).expect("nothing is run yet");
    let (a, b) = tokio::join!(credentials.current(), credentials.current());
    let (a, b) = (a.expect("a token"), b.expect("a token"));
    assert_eq!((shown(&a), shown(&b)), ("token-1", "token-1"));
    assert!(credentials.replacement(&a).await.expect("no run").is_none(), "run a moment ago");
    printed(&credentials).lock().read_at = Instant::now().checked_sub(RUN_AGAIN);
    let (c, d) = tokio::join!(credentials.replacement(&a), credentials.replacement(&a));
    for token in [c, d] {
        assert_eq!(token.expect("a run").as_ref().map(shown), Some("token-2"));
    }
    assert_eq!(shown(&credentials.current().await.expect("known")), "token-2");
}

#[tokio::test]
async fn failing_plugin_is_an_error_without_its_output() {
    for (script, part) in [
        ("echo hunter2; exit 3", "ended with"),
        ("echo hunter2", "has no token"),
        (r#"printf %s '{"status":{"token":"hunter2\nerror"}}'"#, "no header can hold"),
        ("echo '{\"status\":{\"clientCertificateData\":\"hunter2\"}}'", "client certificate"),
    ] {
        let (_folder, config) = plugin(script);
        let error = Credentials::new(&config).expect("valid").current().await.expect_err(script);
        let text = format!("{error:?}");
        assert!(text.contains(part) && !text.contains("hunter2"), "{text}");
    }
    let (_folder, mut config) = plugin("");
    let plugin = config.exec.as_mut().expect("set");
    (plugin.command, plugin.install_hint) = ("/missing".into(), Some("install it".into()));
    let error = Credentials::new(&config).expect("valid").current().await.expect_err("missing");
    assert!(error.to_string().contains("install it"), "{error}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn plugin_is_killed_with_what_it_has_started() {
    let (folder, config) =
        plugin("sleep 600 & echo $! > \"$RUNS.new\"; mv \"$RUNS.new\" \"$RUNS\"; wait");
    let credentials = Credentials::new(&config).expect("nothing is run yet");
    let started = async {
        loop {
            match fs::read_to_string(folder.path().join("runs")) {
                Ok(pid) => break pid,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let pid = tokio::select! {
        token = credentials.current() => panic!("it hangs: {token:?}"),
        pid = started => pid,
    };
    let stat = format!("/proc/{}/stat", pid.trim());
    let has_ended = async {
        // What has ended may wait for its parent.
        while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), has_ended).await.expect("it is killed");
}

#[tokio::test]
async fn failing_plugin_is_run_once_for_those_that_wait() {
    let (folder, config) = plugin("echo run >> \"$RUNS\"; exit 1");
    let credentials = Credentials::new(&config).expect("nothing is run yet");
    let waiting = futures_util::future::join_all((0..5).map(|_| credentials.current())).await;
    for result in waiting {
        let error = result.expect_err("it fails");
        assert!(error.to_string().contains("ended with"), "{error}");
    }
    let runs = || fs::read_to_string(folder.path().join("runs")).expect("it has run");
    assert_eq!(runs().lines().count(), 1);
    let failed = printed(&credentials).lock().failed.take().expect("noted");
    let earlier = failed.0.checked_sub(RUN_AGAIN).expect("the clock is older");
    printed(&credentials).lock().failed = Some((earlier, failed.1));
    credentials.current().await.expect_err("it fails again");
    assert_eq!(runs().lines().count(), 2);
}

#[tokio::test(start_paused = true)]
async fn token_file_is_read_again_and_an_emptied_one_is_not_used() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), "old\n").expect("our file");
    let config = KubernetesConfig::new("http://127.0.0.1:1").token_file(file.path());
    let credentials = Credentials::new(&config).expect("readable");
    assert_eq!(shown(&credentials.current().await.expect("read")), "old");
    for (text, expected) in [("new", "new"), ("", "new"), ("newest", "newest")] {
        fs::write(file.path(), text).expect("our file");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(shown(&credentials.current().await.expect("read")), expected);
    }
    file.close().expect("removed");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(shown(&credentials.current().await.expect("the last one")), "newest");
    Credentials::new(&config).expect_err("a client needs it");
}

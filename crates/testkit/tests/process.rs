//! Programs that a test starts and ends, with programs that every Unix has.

use std::{fs, os::unix::process::ExitStatusExt, path::Path, process::Command, time::Duration};

use futures_util::FutureExt;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};
use tower_sd_testkit::{process::Process, real::Server};

const LONG: Duration = Duration::from_secs(10);

#[tokio::test]
async fn program_is_suspended_and_resumed() {
    let (_folder, process) = start("while :; do sleep 1; done");
    process.suspend().expect("it runs");
    assert!(is_in_state(&process, &["T"]).await, "stopped");
    process.resume().expect("it runs");
    assert!(is_in_state(&process, &["S", "R"]).await, "running or waiting");
}

#[tokio::test]
async fn stopped_program_gets_a_signal_first() {
    let (_folder, process) =
        start("trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.01; done");
    says(&process, "up").await;
    let status = process.stop(LONG).await.expect("it ends");
    assert_eq!(status.code(), Some(7));
    assert!(process.output().contains("bye"), "{}", process.output());
    process.suspend().expect_err("it has ended");
}

#[tokio::test]
async fn program_that_does_not_listen_is_killed() {
    let (_folder, process) = start("trap '' TERM; echo up; while :; do sleep 0.01; done");
    says(&process, "up").await;
    let start = Instant::now();
    let status = process.stop(Duration::from_millis(100)).await.expect("it ends");
    assert_eq!(status.signal(), Some(9));
    assert!(start.elapsed() >= Duration::from_millis(100), "it had its time");
}

#[tokio::test]
async fn dropped_program_is_gone_even_when_it_is_suspended() {
    let (_folder, process) = start("while :; do sleep 1; done");
    process.suspend().expect("it runs");
    let id = process.id();
    drop(process);
    assert!(!Path::new(&format!("/proc/{id}")).exists());
}

#[tokio::test]
async fn server_that_ends_early_reports_why() {
    let command = |_data: &Path| shell("echo no such option; exit 3");
    let start = Instant::now();
    let error = Server::start(command, || async { false }.boxed()).await;
    let error = error.expect_err("it never runs").to_string();
    assert!(error.contains("no such option") && error.contains('3'), "{error}");
    assert!(start.elapsed() < LONG, "it is not waited for");
}

#[tokio::test]
async fn restarted_server_keeps_its_folder_unless_it_starts_empty() {
    let command = |data: &Path| {
        shell(&format!("cd {}; echo run >> runs; cat runs; exec sleep 60", data.display()))
    };
    let server = Server::start(command, || async { true }.boxed()).await.expect("it starts");
    let runs = async |n: usize| {
        let says = timeout(LONG, async {
            while server.output().matches("run").count() != n {
                sleep(Duration::from_millis(5)).await;
            }
        });
        says.await.unwrap_or_else(|_| panic!("not {n} runs: {}", server.output()));
    };
    runs(1).await;
    server.restart().await.expect("it starts");
    // The output goes on: one of before, two of now.
    runs(1 + 2).await;
    server.restart_empty().await.expect("it starts");
    runs(1 + 2 + 1).await;
}

fn start(script: &str) -> (TempDir, Process) {
    let folder = TempDir::new().expect("a temporary folder");
    let process = Process::start(&mut shell(script), &folder.path().join("output"));
    (folder, process.expect("there is a shell"))
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

async fn says(process: &Process, text: &str) {
    let said = timeout(LONG, async {
        while !process.output().contains(text) {
            sleep(Duration::from_millis(5)).await;
        }
    });
    said.await.unwrap_or_else(|_| panic!("it does not print {text:?}: {}", process.output()));
}

/// The system needs a moment to act on a signal.
async fn is_in_state(process: &Process, states: &[&str]) -> bool {
    let reached = timeout(LONG, async {
        loop {
            let stat = fs::read_to_string(format!("/proc/{}/stat", process.id()));
            let stat = stat.expect("it has not been waited for");
            // `1234 (sh) S …`.
            let state = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').next());
            if state.is_some_and(|state| states.contains(&state)) {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
    });
    reached.await.is_ok()
}

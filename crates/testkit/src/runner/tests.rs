use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use async_trait::async_trait;
use libtest_mimic::Conclusion;
use tempfile::NamedTempFile;
use tower_sd_core::{FixedInstancer, InstanceId, MemoryRegistry};

use super::*;
use crate::{TestClient, TestInstancer};

#[test]
fn exceptions_stay_ignored_when_ignored_cases_are_included() {
    let args = Arguments { include_ignored: true, ..Arguments::default() };
    let trials = trials::<Quiet>(Some("1.2"), |_name, _case| Box::new(|| Ok(())));
    let conclusion = concluded(args, trials);
    assert_eq!(conclusion.num_ignored, 2, "one for all versions, one for this one");
    assert_eq!(conclusion.num_passed, u64::try_from(CASES.len()).expect("few") - 2);
}

#[test]
#[should_panic(expected = "exception \"no_such_case\" is no case of the suite")]
fn exception_that_is_no_case_is_refused() {
    are_cases(&[("tags_survive", ""), ("no_such_case", "")]);
}

#[test]
fn names_begin_with_the_version() {
    let trials = trials::<Quiet>(Some("1.8.7"), |_name, _case| Box::new(|| Ok(())));
    assert_eq!(trials[0].name(), format!("1.8.7/{}", CASES[0].0));
}

#[test]
fn every_case_without_a_server_is_ignored_or_fails_on_demand() {
    let missing = configured("nothing").expect_err("not a server");
    let all = u64::try_from(CASES.len()).expect("few");
    let ignored = concluded(Arguments::default(), without_server("nothing", &missing, false));
    assert_eq!((ignored.num_ignored, ignored.num_failed), (all, 0));
    let args = Arguments { include_ignored: true, ..Arguments::default() };
    let failed = concluded(args, without_server("nothing", &missing, true));
    assert_eq!((failed.num_ignored, failed.num_failed), (0, all));
}

#[test]
fn failed_case_fails_and_leaves_the_registry_resumed() {
    let fixture = Quiet::default();
    let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let fixture = &fixture;
        on_a_runtime(async move || drive(fixture, |_fixture| Box::pin(async { panic!() })).await)
    }));
    assert!(panicked.is_err());
    assert_eq!(fixture.n_resumed.load(Relaxed), 1);
}

#[test]
fn stuck_case_fails() {
    let fixture = Quiet::default();
    let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let fixture = &fixture;
        let stuck: Case = |_fixture| Box::pin(std::future::pending());
        on_a_runtime(async move || drive(fixture, stuck).await)
    }));
    let message = panicked.expect_err("it is stuck").downcast::<String>().expect("a sentence");
    assert!(message.contains("not done within"), "{message}");
    assert_eq!(fixture.n_resumed.load(Relaxed), 1);
}

#[test]
fn shared_fixture_is_made_once_and_its_failure_fails_every_case() {
    let shared = Shared::new();
    let n_made = AtomicUsize::new(0);
    for _ in 0..3 {
        let set_up = async || {
            n_made.fetch_add(1, Relaxed);
            Err::<Quiet, _>("port taken".into())
        };
        let failed = shared.fixture(set_up).err().expect("it cannot be made");
        assert_eq!(failed.message(), Some("set-up failed: port taken"));
    }
    assert_eq!(n_made.load(Relaxed), 1);
}

#[test]
fn case_that_disturbs_has_none_beside_it() {
    let (turns, n_running) = (Turns::default(), AtomicUsize::new(0));
    let n_beside = |name| {
        turns.run(name, || {
            let n_beside = n_running.fetch_add(1, Relaxed);
            std::thread::yield_now();
            n_running.fetch_sub(1, Relaxed);
            n_beside
        })
    };
    std::thread::scope(|scope| {
        scope.spawn(|| (0..1000).map(|_| n_beside("tags_survive")).max());
        for _ in 0..1000 {
            assert_eq!(n_beside(ALONE[0]), 0);
        }
    });
}

/// Runs them with the output in a file.
fn concluded(args: Arguments, trials: Vec<Trial>) -> Conclusion {
    let file = NamedTempFile::new().expect("a temporary folder");
    let logfile = Some(file.path().display().to_string());
    libtest_mimic::run(&Arguments { logfile, ..args }, trials)
}

#[derive(Default)]
struct Quiet {
    n_resumed: AtomicUsize,
}

#[async_trait]
impl Fixture for Quiet {
    fn client(&self) -> TestClient {
        TestClient::new(
            || Arc::new(MemoryRegistry::new()),
            |_| TestInstancer::new(FixedInstancer::new([]), async {}),
        )
    }

    async fn interrupt(&self) {}

    async fn resume(&self) {
        self.n_resumed.fetch_add(1, Relaxed);
    }

    async fn expire(&self, _service: &str, _id: &InstanceId) {}

    fn ttl(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn clock(&self) -> Clock {
        Clock::Paused
    }

    fn exceptions() -> &'static [(&'static str, &'static str)] {
        &[
            ("zone_survives", "it has no zones"),
            ("1.2/tags_survive", "only since 1.3"),
            ("1.3/weight_survives", "of another version"),
        ]
    }
}

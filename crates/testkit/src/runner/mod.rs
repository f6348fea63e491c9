#[cfg(test)]
mod tests;

use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    process::ExitCode,
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use futures_util::FutureExt;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tokio::{
    runtime::{Builder, Runtime},
    time::{pause, timeout},
};
use tower_sd_core::BoxError;

use crate::{
    Clock, Fixture,
    cases::{ALONE, CASES, Case},
    servers::{MissingServer, ServerBinary, configured},
};

/// Runs the suite on a registry inside this process.
///
/// `set_up` makes a fixture for each case.
///
/// For the `main` of a test with `harness = false`; takes the command line that `cargo test`
/// passes.
///
/// ```no_run
/// # use std::{process::ExitCode, time::Duration};
/// # use tower_sd_core::InstanceId;
/// # use tower_sd_testkit::{Fixture, TestClient};
/// # struct Memory;
/// # #[async_trait::async_trait]
/// # impl Fixture for Memory {
/// #     fn client(&self) -> TestClient { todo!() }
/// #     async fn interrupt(&self) {}
/// #     async fn resume(&self) {}
/// #     async fn expire(&self, service: &str, id: &InstanceId) {}
/// #     fn ttl(&self) -> Duration { todo!() }
/// # }
/// fn main() -> ExitCode {
///     tower_sd_testkit::run(|| Memory)
/// }
/// ```
pub fn run<F: Fixture>(set_up: impl Fn() -> F + Send + Sync + 'static) -> ExitCode {
    let set_up = Arc::new(set_up);
    let trials = trials::<F>(None, |_name, case| {
        let set_up = Arc::clone(&set_up);
        Box::new(move || on_a_runtime(async move || drive(&set_up(), case).await))
    });
    conclude(&Arguments::from_args(), trials)
}

/// Runs the suite on every configured version of a real server.
///
/// The version is in front of each case's name: `1.8.7/registered_instance_is_seen`. Three cases
/// run at a time, since they wait for most of it; those that disturb the registry run alone.
///
/// `set_up` starts a server, once per version, when the first of its cases runs. Without a program
/// of `server` (see [`configured`](crate::servers::configured)) all cases are ignored, which is
/// printed; with `--include-ignored` they fail instead.
pub fn run_on<F: Fixture>(
    server: &'static str,
    set_up: impl AsyncFn(ServerBinary) -> Result<F, BoxError> + Send + Sync + 'static,
) -> ExitCode {
    let mut args = Arguments::from_args();
    let binaries = match configured(server) {
        Ok(binaries) => binaries,
        Err(missing) => {
            let insists = args.include_ignored || args.ignored;
            if !insists && !args.list {
                note(&format!("{} cases ignored: {missing}", CASES.len()));
            }
            return conclude(&args, without_server(server, &missing, insists));
        }
    };
    // Most wait for a TTL.
    args.test_threads = Some(N_BESIDE);
    let (set_up, turns, mut all) = (Arc::new(set_up), Arc::<Turns>::default(), Vec::new());
    for binary in binaries {
        let version = binary.version.clone();
        let shared = Arc::new(Shared::new());
        all.extend(trials::<F>(Some(&version), |name, case| {
            let (shared, binary) = (Arc::clone(&shared), binary.clone());
            let (set_up, turns) = (Arc::clone(&set_up), Arc::clone(&turns));
            Box::new(move || {
                let fixture = shared.fixture(async || set_up(binary).await)?;
                turns.run(name, || on_a_runtime(async move || drive(fixture, case).await))
            })
        }));
    }
    all.sort_by_key(|trial| trial.name().rsplit('/').next().is_some_and(|it| ALONE.contains(&it)));
    conclude(&args, all)
}

/// A fixture that several cases use, and the runtime that its own tasks live on.
struct Shared<F> {
    fixture: OnceLock<Result<F, String>>,
    runtime: Runtime,
}

impl<F> Shared<F> {
    fn new() -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be built");
        Self { fixture: OnceLock::new(), runtime }
    }

    fn fixture(&self, set_up: impl AsyncFnOnce() -> Result<F, BoxError>) -> Result<&F, Failed> {
        let made = self.fixture.get_or_init(|| {
            let made = self.runtime.block_on(set_up());
            made.map_err(|error| format!("set-up failed: {}", chain(&*error)))
        });
        made.as_ref().map_err(Failed::from)
    }
}

/// The cases that run together, and those that run alone.
#[derive(Default)]
struct Turns(RwLock<()>);

impl Turns {
    fn run<T>(&self, name: &str, case: impl FnOnce() -> T) -> T {
        // A case that panics has left nothing half done here.
        if ALONE.contains(&name) {
            let _alone = self.0.write().unwrap_or_else(PoisonError::into_inner);
            return case();
        }
        let _beside = self.0.read().unwrap_or_else(PoisonError::into_inner);
        case()
    }
}

/// What one trial does.
type Body = Box<dyn FnOnce() -> Result<(), Failed> + Send>;

/// A trial for every case; exceptions are shown as ignored, with or without `--include-ignored`.
fn trials<F: Fixture>(
    version: Option<&str>,
    mut body: impl FnMut(&'static str, Case) -> Body,
) -> Vec<Trial> {
    are_cases(F::exceptions());
    let trial = |&(case, run): &(&'static str, Case)| {
        let name = version.map_or_else(|| case.to_owned(), |version| format!("{version}/{case}"));
        let exception =
            F::exceptions().iter().find(|(excepted, _)| *excepted == case || *excepted == name);
        match exception {
            Some((_, reason)) => ignored(name, (*reason).to_owned()),
            None => Trial::test(name, body(case, run)),
        }
    };
    CASES.iter().map(trial).collect()
}

/// A misspelt one would let its case fail, and one whose case is gone would stay unnoticed.
fn are_cases(exceptions: &[(&str, &str)]) {
    for (name, _) in exceptions {
        let case = name.rsplit('/').next().unwrap_or(name);
        let known = CASES.iter().any(|(known, _)| *known == case);
        assert!(known, "exception {name:?} is no case of the suite");
    }
}

/// Ignored, or failed where ignored tests have to run.
fn without_server(server: &str, missing: &MissingServer, insists: bool) -> Vec<Trial> {
    let trial = |(case, _): &(&'static str, Case)| match insists {
        true => {
            let sentence = missing.to_string();
            Trial::test(*case, move || Err(Failed::from(sentence))).with_ignored_flag(true)
        }
        false => ignored((*case).to_owned(), format!("needs {server}")),
    };
    CASES.iter().map(trial).collect()
}

fn ignored(name: String, reason: String) -> Trial {
    Trial::ignorable_test(name, || Ok(Completion::ignored_with(reason)))
}

fn conclude(args: &Arguments, trials: Vec<Trial>) -> ExitCode {
    libtest_mimic::run(args, trials).exit_code()
}

/// A runtime for each case: what it leaks is counted there, and ends with it. Of one thread, so
/// that a case can suspend all of it.
fn on_a_runtime(case: impl AsyncFnOnce()) -> Result<(), Failed> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(case());
    runtime.shutdown_timeout(SHUTDOWN_BOUND);
    Ok(())
}

async fn drive(fixture: &dyn Fixture, case: Case) {
    let bound = match fixture.clock() {
        Clock::Real => REAL_BOUND,
        Clock::Paused => {
            pause();
            PAUSED_BOUND
        }
    };
    let result = AssertUnwindSafe(timeout(bound, case(fixture))).catch_unwind().await;
    fixture.resume().await;
    match result {
        Ok(Ok(())) => {}
        Ok(Err(_elapsed)) => panic!("not done within {bound:?}"),
        Err(panic) => resume_unwind(panic),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[expect(clippy::print_stderr, reason = "the test runner's own output, which shows no reasons")]
fn note(text: &str) {
    if !text.is_empty() {
        eprintln!("note: {text}");
    }
}

/// The longest case waits for three TTLs.
const REAL_BOUND: Duration = Duration::from_secs(180);
/// Virtual time is free, and passes immediately when a case is stuck.
const PAUSED_BOUND: Duration = Duration::from_secs(24 * 3600);
/// Cases on one server.
const N_BESIDE: usize = 3;
/// For what a case has left on blocking threads.
const SHUTDOWN_BOUND: Duration = Duration::from_secs(1);

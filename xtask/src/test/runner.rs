//! Runs test binaries, several at a time where the clock allows it.
#![expect(
    clippy::disallowed_types,
    reason = "the time that a test took is for people to read; nothing depends on it"
)]

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, pipe};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::binaries::TestBinary;
use crate::command::{Result, succeeds};
use crate::packages::Threads;

/// What all binaries of a run have in common.
pub(super) struct Runner<'a> {
    pub(super) args: Vec<&'a str>,
    pub(super) environment: &'a [(String, String)],
}

impl Runner<'_> {
    /// One after the other, their output as it comes; true when all passed.
    pub(super) fn in_turn(&self, binaries: &[TestBinary]) -> Result<bool> {
        let mut passed = true;
        for binary in binaries {
            println!("\n     Running {}", binary.source);
            passed &= succeeds(&mut self.command(binary))?;
        }
        Ok(passed)
    }

    /// Those that keep all cores busy in turn, the others [`LANES`] at a time; true when all
    /// passed.
    pub(super) fn side_by_side(&self, binaries: Vec<TestBinary>) -> Result<bool> {
        let (busy, waiting): (Vec<_>, VecDeque<_>) = {
            let (busy, waiting): (Vec<_>, Vec<_>) =
                binaries.into_iter().partition(|binary| binary.threads() == Threads::Many);
            (busy, waiting.into())
        };
        let mut passed = self.in_turn(&busy)?;
        let (waiting, finished) = (Mutex::new(waiting), Mutex::new(Vec::new()));
        let lane = || -> std::result::Result<(), String> {
            while let Some(binary) = locked(&waiting, VecDeque::pop_front) {
                let run = self.run(binary).map_err(|error| error.to_string())?;
                locked(&finished, |finished| {
                    run.print();
                    finished.push(run);
                });
            }
            Ok(())
        };
        thread::scope(|scope| {
            let lanes: Vec<_> = (0..LANES).map(|_| scope.spawn(lane)).collect();
            lanes.into_iter().try_for_each(|lane| lane.join().expect("a lane does not panic"))
        })?;
        let finished = finished.into_inner().unwrap_or_else(PoisonError::into_inner);
        for run in finished.iter().filter(|run| !run.passed) {
            passed &= self.again(run)?;
        }
        print_slowest(finished);
        Ok(passed)
    }

    /// The verdict on tests that failed beside others is that of a run of each alone.
    fn again(&self, run: &Finished) -> Result<bool> {
        let failed: Vec<&str> =
            run.tests.iter().filter(|it| it.failed).map(|it| &*it.name).collect();
        let mut passed = !failed.is_empty();
        for name in failed {
            println!("\n     Running {name} of {} alone, since it failed", run.binary.source);
            let mut command = run.binary.only(name);
            passed &= succeeds(command.envs(self.environment.iter().cloned()))?;
        }
        Ok(passed)
    }

    fn command(&self, binary: &TestBinary) -> Command {
        let mut command = binary.command(&self.args);
        command.envs(self.environment.iter().cloned());
        command
    }

    fn run(&self, binary: TestBinary) -> Result<Finished> {
        let start = Instant::now();
        let mut command = self.command(&binary);
        let (reader, writer) = pipe()?;
        command.stdout(writer.try_clone()?).stderr(writer);
        let mut child = command.spawn()?;
        drop(command); // It holds the pipe open.
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(reader).split(b'\n').map_while(std::io::Result::ok) {
                if sender.send((Instant::now(), line)).is_err() {
                    break;
                }
            }
        });
        let mut run = Finished::new(binary);
        run.passed = run.read(&mut child, &lines, start)?;
        run.took = start.elapsed();
        Ok(run)
    }
}

struct Finished {
    binary: TestBinary,
    passed: bool,
    took: Duration,
    text: String,
    tests: Vec<Test>,
}

struct Test {
    name: String,
    /// From the line of output before.
    took: Duration,
    failed: bool,
}

impl Finished {
    fn new(binary: TestBinary) -> Self {
        let (text, tests) = (String::new(), Vec::new());
        Self { binary, passed: false, took: Duration::ZERO, text, tests }
    }

    /// Reads the output until the binary has ended, whether or not a process that it left holds the
    /// pipe open.
    fn read(
        &mut self,
        child: &mut Child,
        lines: &Receiver<(Instant, Vec<u8>)>,
        start: Instant,
    ) -> Result<bool> {
        let mut before = start;
        loop {
            match lines.recv_timeout(SILENCE) {
                Ok((now, line)) => {
                    self.note(&String::from_utf8_lossy(&line), now - before);
                    before = now;
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(child.wait()?.success()),
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(status) = child.try_wait()? {
                        return Ok(status.success());
                    }
                    if start.elapsed() > LIMIT {
                        self.text.push_str("killed: it took too long\n");
                        child.kill()?;
                    }
                }
            }
        }
    }

    /// A line of output. What a test prints may stand between its name and its verdict.
    fn note(&mut self, line: &str, took: Duration) {
        if let Some((name, _)) = line.strip_prefix("test ").and_then(|it| it.split_once(" ...")) {
            self.tests.push(Test { name: name.trim().to_owned(), took, failed: false });
        } else if let Some(test) = self.tests.last_mut().filter(|_| is_verdict(line)) {
            test.took += took;
        }
        if let Some(test) = self.tests.last_mut() {
            test.failed |= line.ends_with("FAILED");
        }
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn print(&self) {
        let seconds = self.took.as_secs();
        println!("\n     Running {} ({seconds} s)\n{}", self.binary.source, self.text.trim_end());
    }
}

fn is_verdict(line: &str) -> bool {
    ["ok", "FAILED"].contains(&line)
}

fn print_slowest(mut finished: Vec<Finished>) {
    finished.sort_by_key(|run| std::cmp::Reverse(run.took));
    println!("\nthe slowest binaries:");
    for run in finished.iter().take(N_SLOWEST) {
        println!("{:>6.1} s  {}", run.took.as_secs_f64(), run.binary.source);
    }
    let mut tests: Vec<_> = finished
        .iter()
        .flat_map(|run| run.tests.iter().map(|test| (test, &run.binary.source)))
        .collect();
    tests.sort_by_key(|(test, _)| std::cmp::Reverse(test.took));
    println!("the slowest tests:");
    for (test, source) in tests.iter().take(N_SLOWEST) {
        println!("{:>6.1} s  {} of {source}", test.took.as_secs_f64(), test.name);
    }
}

fn locked<T, R>(mutex: &Mutex<T>, action: impl FnOnce(&mut T) -> R) -> R {
    action(&mut mutex.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Tests with real servers wait most of their time: one takes about a fifth of a core.
const LANES: usize = 4;
/// After the end of a binary, for what is still in the pipe.
const SILENCE: Duration = Duration::from_millis(200);
/// Several times the slowest binary.
const LIMIT: Duration = Duration::from_secs(1200);
const N_SLOWEST: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_tests_are_found_whatever_they_print() {
        let messages = "{\"manifest_path\":\"/r/Cargo.toml\",\"src_path\":\"/r/a.rs\",\
                        \"profile\":{\"test\":true},\"executable\":\"/t/a\"}";
        let binary = TestBinary::all(messages).pop().unwrap();
        let mut run = Finished::new(binary);
        for line in [
            "test 3.5/one    ... ok",
            "test 3.5/two    ... ",
            "thread 'main' panicked",
            "FAILED",
            "test three ... FAILED",
            "test four ... ok",
            "test result: FAILED. 2 passed; 2 failed",
        ] {
            run.note(line, Duration::from_secs(1));
        }
        let failed: Vec<&str> =
            run.tests.iter().filter(|test| test.failed).map(|test| &*test.name).collect();
        assert_eq!(failed, ["3.5/two", "three"]);
        assert_eq!(run.tests[1].took, Duration::from_secs(2));
        assert_eq!(run.text.lines().count(), 7);
    }
}

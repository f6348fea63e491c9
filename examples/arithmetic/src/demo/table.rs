//! The output: a table that is drawn repeatedly on a terminal, lines elsewhere.

#![expect(clippy::print_stdout, reason = "this is what the demo is for")]

use std::{
    collections::BTreeMap,
    fmt::Write,
    future::Future,
    io::{IsTerminal, stdout},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tower_sd::endpoint::{EndpointReport, EndpointState};
use tower_sd::http::Client;

use super::traffic::Counts;

/// Follows the endpoints; those that have left keep their line.
#[derive(Debug)]
pub(crate) struct Table {
    client: Client,
    counts: Arc<Counts>,
    lines: BTreeMap<String, Line>,
    terminal: bool,
    /// How many lines the next picture overwrites.
    drawn: usize,
    next: Instant,
}

#[derive(Debug)]
struct Line {
    /// None when it has left.
    state: Option<EndpointState>,
    in_flight: usize,
    picks: u64,
    failures: u64,
}

impl Table {
    pub(crate) fn new(client: Client, counts: Arc<Counts>) -> Self {
        Self {
            client,
            counts,
            lines: BTreeMap::new(),
            terminal: stdout().is_terminal(),
            drawn: 0,
            next: Instant::now(),
        }
    }

    /// Prints what happens now, above the table.
    pub(crate) fn say(&mut self, event: &str) {
        self.erase();
        println!("{event}");
        self.next = Instant::now();
    }

    pub(crate) async fn watch_until(&mut self, moment: Instant) {
        self.watch(sleep_until(moment)).await;
    }

    /// Shows what goes on until `done`.
    pub(crate) async fn watch<T>(&mut self, done: impl Future<Output = T>) -> T {
        let mut done = pin!(done);
        let mut ticks = interval(SAMPLE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                output = &mut done => return output,
                now = ticks.tick() => {
                    self.sample();
                    if now >= self.next {
                        self.next = now + if self.terminal { REDRAW } else { REPORT };
                        self.draw();
                    }
                }
            }
        }
    }

    /// The end of the story.
    pub(crate) fn summary(&mut self, failed_attempts: u64) {
        self.sample();
        self.draw();
        let (requests, failures) = (self.counts.requests(), self.counts.failures());
        // The last attempt of a request that failed was not repeated.
        let retries = failed_attempts.saturating_sub(failures);
        println!("{requests} requests, {retries} retries, {failures} failed");
        let picks: Vec<_> =
            self.lines.iter().map(|(name, line)| format!("{name} {}", line.picks)).collect();
        println!("picks: {}", picks.join(", "));
    }

    fn sample(&mut self) {
        for line in self.lines.values_mut() {
            (line.state, line.in_flight) = (None, 0);
        }
        for endpoint in self.client.report().endpoints {
            self.lines.insert(endpoint.instance.id().to_string(), Line::from(&endpoint));
        }
    }

    fn draw(&mut self) {
        self.erase();
        let text = if self.terminal { self.picture() } else { self.sentence() };
        self.drawn = text.lines().count();
        print!("{text}");
    }

    fn picture(&self) -> String {
        let all: u64 = self.lines.values().map(|line| line.picks).sum();
        let mut text = String::from("\n  server     state      share  in flight  errors\n");
        for (name, line) in &self.lines {
            let Line { in_flight, picks, failures, .. } = line;
            let state = line.state();
            let share = picks * 100 / all.max(1);
            let line =
                writeln!(text, "  {name:10} {state:10} {share:4}%  {in_flight:9}  {failures:6}");
            line.expect("a String takes everything");
        }
        let (requests, failures) = (self.counts.requests(), self.counts.failures());
        text + &format!("  {requests} requests, {failures} failed\n")
    }

    fn sentence(&self) -> String {
        let lines = self.lines.iter().map(|(name, line)| {
            let Line { in_flight, picks, failures, .. } = line;
            let state = line.state();
            format!("{name} {state}, {picks} picks, {in_flight} in flight, {failures} errors")
        });
        format!("  {}\n", lines.collect::<Vec<_>>().join("; "))
    }

    /// Makes the next output overwrite the table.
    fn erase(&mut self) {
        let drawn = std::mem::take(&mut self.drawn);
        if self.terminal && drawn > 0 {
            print!("\x1b[{drawn}A\x1b[J");
        }
    }
}

impl Line {
    fn state(&self) -> String {
        self.state.map_or_else(|| "left".to_owned(), |state| state.to_string())
    }
}

impl From<&EndpointReport> for Line {
    fn from(endpoint: &EndpointReport) -> Self {
        Self {
            state: Some(endpoint.state),
            in_flight: endpoint.in_flight,
            picks: endpoint.picks,
            failures: endpoint.failures,
        }
    }
}

/// Shorter than a request takes: an endpoint that leaves is seen once more while it drains, with
/// all its picks.
const SAMPLE: Duration = Duration::from_millis(5);
const REDRAW: Duration = Duration::from_millis(100);
/// Without a terminal.
const REPORT: Duration = Duration::from_secs(1);

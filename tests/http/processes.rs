//! Three HTTP servers, each a process of its own.
//!
//! One of them is slowed by CPU load, or fails.
//! Two scenarios of `cargo xtask bench quality` with a real scheduler: our client with its default
//! balancer, and tower's peak EWMA over the same kind of endpoints, in turn.

mod slow {
    use std::{
        env, net::Ipv4Addr, path::Path, process::Command, thread::available_parallelism,
        time::Duration,
    };

    use rand::{RngExt, SeedableRng, rngs::StdRng};
    use tokio::{
        task::JoinSet,
        time::{Instant, sleep},
    };
    use tower_sd_balance::{Instance, LeastLoaded};
    use tower_sd_testkit::process::Process;

    use crate::{
        fleet::{self, Caller, Manner, burn, load_at, tower_peak_ewma},
        judging::{endpointer, ours},
    };

    /// The number and the manner of a server that this program shall be.
    const SERVER: &str = "TOWER_SD_TESTS_SERVER";
    const WORK: Duration = Duration::from_millis(5);
    /// Between requests on average: two servers on one core have 40 % of its time.
    const INTERVAL: Duration = Duration::from_micros(12_500);
    const N_REQUESTS: usize = 600;
    const N_ROUNDS: u64 = 5;

    #[tokio::test]
    #[ignore = "slow: the server of the test below"]
    async fn server_of_another_process() {
        let Ok(server) = env::var(SERVER) else { return };
        let (number, manner) = server.split_once(' ').expect("a number and a manner");
        let manner = match manner {
            "fails" => Manner::Fails,
            _ => Manner::Burns(iterations(WORK)),
        };
        let (number, mut tasks) = (number.parse().expect("a number"), JoinSet::new());
        let (instance, _manner) =
            fleet::start(number, Ipv4Addr::LOCALHOST, manner, &mut tasks).await;
        println!("\nport={}", instance.port());
        tasks.join_next().await;
    }

    /// How many take so long while nothing else runs.
    fn iterations(time: Duration) -> u64 {
        const N: u64 = 20_000;
        let one = || {
            let begun = Instant::now();
            burn(N);
            begun.elapsed()
        };
        let best = (0..200).map(|_| one()).min().expect("some").max(Duration::from_nanos(1));
        N * u64::try_from(time.as_nanos() / best.as_nanos()).expect("few")
    }

    /// On that processor alone.
    fn pinned(cpu: usize, program: &Path) -> Command {
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", &cpu.to_string()]).arg(program);
        command
    }

    async fn start(number: usize, cpu: usize, manner: &str, log: &Path) -> (Process, Instance) {
        let mut command = pinned(cpu, &env::current_exe().expect("a program"));
        let name = "processes::slow::server_of_another_process";
        command.args(["--include-ignored", "--nocapture", "--exact", name]);
        command.env(SERVER, format!("{number} {manner}"));
        let process = Process::start(&mut command, log).expect("it starts");
        let begun = Instant::now();
        loop {
            let output = process.output();
            let port = output.lines().find_map(|line| line.strip_prefix("port=")?.parse().ok());
            if let Some(port) = port {
                return (process, Instance::new("127.0.0.1", port));
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{output}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// The third server shares its core with three busy loops, or answers 500 immediately.
    async fn three_servers(case: &str, folder: &Path) -> (Vec<Process>, Vec<Instance>) {
        let other_cpu = available_parallelism().map_or(0, |n| n.get().min(2) - 1);
        let (mut processes, mut instances) = (Vec::new(), Vec::new());
        for (number, cpu, manner) in [(0, 0, "answers"), (1, 0, "answers"), (2, other_cpu, case)] {
            let log = folder.join(format!("{case}-{number}"));
            let (process, instance) = start(number, cpu, manner, &log).await;
            processes.push(process);
            instances.push(instance);
        }
        for _ in 0..if case == "slow" { 3 } else { 0 } {
            let mut busy = pinned(other_cpu, Path::new("sh"));
            busy.args(["-c", "while :; do :; done"]);
            processes.push(Process::start(&mut busy, &folder.join("busy")).expect("it starts"));
        }
        (processes, instances)
    }

    /// A row of the table.
    #[derive(Debug, Default)]
    struct Row {
        p50: Vec<Duration>,
        p99: Vec<Duration>,
        n_failed: usize,
        n_third: usize,
    }

    impl Row {
        /// The first round warms up.
        async fn measure(&mut self, client: &Caller, round: u64) {
            let (mut rng, mut at) = (StdRng::seed_from_u64(round), Duration::ZERO);
            let times = (0..N_REQUESTS).map(|_| {
                at += INTERVAL.mul_f64(-(1.0 - rng.random::<f64>()).ln());
                at
            });
            let (load, took) = load_at(client, times).await;
            if round > 0 {
                self.p50.push(took[took.len() / 2]);
                self.p99.push(took[took.len() * 99 / 100]);
                self.n_failed += load.n_failed;
                self.n_third += load.of(2);
            }
        }

        fn line(&self, name: &str) -> String {
            let n = N_REQUESTS * usize::try_from(N_ROUNDS).expect("few");
            let (p50, p99) = (median(&self.p50), median(&self.p99));
            let (failed, third) = (self.n_failed, self.n_third);
            format!("| {name} | {p50:.1?} | {p99:.1?} | {failed} of {n} | {third} of {n} |")
        }
    }

    fn median(times: &[Duration]) -> Duration {
        let mut times = times.to_vec();
        times.sort_unstable();
        times[times.len() / 2]
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "slow: three minutes of load"]
    async fn bad_process_of_three_costs_no_more_than_with_peak_ewma() {
        let folder = tempfile::tempdir().expect("a folder");
        for case in ["slow", "fails"] {
            let (_processes, instances) = three_servers(case, folder.path()).await;
            let clients = [
                ours(&endpointer(instances.clone()), LeastLoaded::new(), 1),
                tower_peak_ewma(instances).await,
            ];
            let mut rows = [Row::default(), Row::default()];
            for round in 0..=N_ROUNDS {
                // The first of a round is the second in the next.
                for turn in [round % 2, 1 - round % 2] {
                    let turn = usize::try_from(turn).expect("0 or 1");
                    rows[turn].measure(&clients[turn], round).await;
                }
            }
            println!("| {case} | p50 | p99 | failed | of the third |");
            let [ours, tower] = &rows;
            println!("{}\n{}", ours.line("ours"), tower.line("tower's peak EWMA"));
            match case {
                "slow" => {
                    let (ours, tower) = (median(&ours.p99), median(&tower.p99));
                    assert!(ours <= tower.mul_f64(1.25), "{ours:?} {tower:?}");
                }
                _ => assert!(ours.n_failed * 5 <= tower.n_failed, "{ours:?} {tower:?}"),
            }
        }
    }
}

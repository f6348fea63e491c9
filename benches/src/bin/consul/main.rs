//! From a change to its snapshot, on every version of Consul that there is.
//!
//! Arguments: how many changes, if not 200.

mod change;
mod many;

use std::{net::SocketAddr, time::Duration};

use tokio::runtime::Builder;
use tower_sd_benches::results::Results;
use tower_sd_testkit::{servers, wire::request};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

fn main() -> Result<()> {
    let n = std::env::args().nth(1).map_or(Ok(200), |n| n.parse())?;
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut results = Results::new("consul")?;
    for binary in servers::configured("consul")? {
        println!("using consul v{}", binary.version);
        let case = match binary.version.as_str() {
            "1.8.7" => "change_1.8.7",
            "1.15.4" => "change_1.15.4",
            _ => "change_other",
        };
        let (ours, bare) = runtime.block_on(change::additions(binary.clone(), n))?;
        results.add(case, (n, 1), ours * 1e9, &[("bare_loop", bare * 1e9)])?;
        let bar = 1.2 * bare + 200e-6;
        println!("ours {:.3} ms, bare {:.3} ms, bar {:.3} ms", ours * 1e3, bare * 1e3, bar * 1e3);
        if ours > bar {
            return Err(format!("above the bar on {case}").into());
        }
        let many::Seen { delays, max_connections } = runtime.block_on(many::changes(binary, n))?;
        let (median, p99) = (delays[delays.len() / 2], delays[delays.len() * 99 / 100]);
        println!(
            "1000 services: median {median:?}, p99 {p99:?}, at most {max_connections} connections"
        );
        if p99 > Duration::from_secs(1) || max_connections > 64 {
            return Err("above the bar for 1000 services".into());
        }
    }
    Ok(())
}

async fn put(agent: SocketAddr, target: &str, body: &str) -> Result<()> {
    let answer = request(agent, "PUT", target, body).await?;
    match answer.status {
        200 => Ok(()),
        status => Err(format!("{status} {}", answer.body).into()),
    }
}

const BOUND: Duration = Duration::from_secs(30);

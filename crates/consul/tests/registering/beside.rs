//! A registration beside reads without an answer, and beside another one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::json;
use tokio::{join, time::Instant};
use tower_sd_consul::Query;
use tower_sd_core::{RegistrationHandle, RegistrationState};
use tower_sd_testkit::{
    log::Log,
    script::{Received, Reply, Script},
    stall::with_stall,
};

use crate::support::{Agent, next_to, register, registrar, scripted, web};

const TTL: Duration = Duration::from_millis(1500);
const HEARTBEAT: &str = "/v1/agent/check/update/";
const ENTRY: &str = "/v1/agent/health/service/id/";

/// An agent whose ACLs deny by default, and the catalogue's answer to everything.
async fn guarded(catalogue: Reply) -> Script {
    let mut agent = Agent::default();
    let script = Script::answering(move |request| match is_of_catalogue(request) {
        true => catalogue.clone(),
        false => agent.answer(request).header("x-consul-default-acl-policy", "deny"),
    });
    script.await.expect("loopback")
}

fn is_of_catalogue(request: &Received) -> bool {
    ["/v1/catalog/", "/v1/health/"].iter().any(|path| request.target.starts_with(path))
}

fn count(script: &Script, is_counted: impl Fn(&Received) -> bool) -> usize {
    script.received().into_iter().filter(is_counted).count()
}

/// Neither the verification of the entry nor a look into the catalogue costs a TTL.
#[tokio::test]
async fn heartbeats_go_on_while_reads_get_no_answer() {
    let is_away = Arc::new(AtomicBool::new(false));
    let hangs = Arc::clone(&is_away);
    let is_entry = |request: &Received| request.target.starts_with(ENTRY);
    let silent = scripted(Reply::never(), move |it| hangs.load(Relaxed) && is_entry(it)).await;
    let guarded = guarded(Reply::never()).await;
    let (of_silent, of_guarded) = (registrar(&silent), registrar(&guarded));
    let (one, other) =
        join!(register(&of_silent, web().ttl(TTL)), register(&of_guarded, web().ttl(TTL)));
    is_away.store(true, Relaxed);
    join!(lives(&silent, &one), lives(&guarded, &other));
    assert!(count(&silent, is_entry) > 2 && count(&guarded, is_of_catalogue) > 2);
}

async fn lives(script: &Script, handle: &RegistrationHandle) {
    let heartbeats = async {
        let (begun, mut longest) = (Instant::now(), Duration::ZERO);
        while begun.elapsed() < 3 * TTL {
            let since = Instant::now();
            next_to(script, HEARTBEAT).await;
            longest = longest.max(since.elapsed());
        }
        longest
    };
    let (longest, stall) = with_stall(heartbeats).await;
    assert!(longest < TTL + stall, "no heartbeat for {longest:?}");
    assert!(matches!(handle.state(), RegistrationState::Registered), "{handle:?}");
    assert_eq!(handle.stats().lost, 0);
}

/// Where ACLs deny by default each look into the catalogue is one at a server.
#[tokio::test]
async fn undisturbed_registration_reads_the_catalogue_once() {
    let own = json!([{"Node": "n", "CheckID": "service:web:a", "ServiceID": "web:a"}]);
    let script = guarded(Reply::new(200).body(own.to_string())).await;
    let _handle = register(&registrar(&script), web()).await;
    for _ in 0..10 {
        next_to(&script, HEARTBEAT).await;
    }
    let n_verified = count(&script, |it| it.target.starts_with(ENTRY));
    assert!(n_verified > 4, "{n_verified} verifications");
    assert_eq!(count(&script, is_of_catalogue), 1);
}

#[tokio::test]
async fn deregistration_waits_behind_no_reads() {
    let is_read = |request: &Received| request.target.starts_with("/v1/health/service/");
    let script = scripted(Reply::never(), is_read).await;
    let registrar = registrar(&script);
    let handle = register(&registrar, web()).await;
    let follow = |n| registrar.instancer(Query::new(format!("s{n}")));
    let _followers: Vec<_> = (0..30).map(follow).collect();
    // As many as there may be: the others wait for their end.
    for _ in 0..24 {
        next_to(&script, "/v1/health/service/").await;
    }
    let begun = Instant::now();
    let (done, stall) = with_stall(handle.deregister()).await;
    done.expect("the agent accepts it");
    assert!(begun.elapsed() < Duration::from_secs(1) + stall, "{:?}", begun.elapsed());
    assert_eq!(count(&script, is_read), 24);
}

/// Of a process that has died some time ago no more than the entry is left.
#[tokio::test]
async fn takeover_from_a_live_registration_is_one_warning() {
    const TOOK_OVER: &str =
        "took over the entry of another registration, which lives or has just ended";
    for (status, n_warnings) in [("passing", 1), ("warning", 1), ("critical", 0)] {
        let (log, _guard) = Log::capture();
        let meta = json!({"tower-sd-incarnation": "theirs"});
        let entry = json!({
            "Service": {"ID": "web:a", "Service": "web", "Address": "10.6.6.6", "Port": 80, "Meta": meta},
            "Checks": [{"CheckID": "service:web:a", "ServiceID": "web:a", "Status": status}],
        });
        let mut n_requests = 0;
        let is_first = move |_: &Received| {
            n_requests += 1;
            n_requests == 1
        };
        let script = scripted(Reply::new(200).body(entry.to_string()), is_first).await;
        let _handle = register(&registrar(&script), web()).await;
        for _ in 0..4 {
            next_to(&script, HEARTBEAT).await;
        }
        let warnings = log.found("WARN", TOOK_OVER);
        assert_eq!(warnings.len(), n_warnings, "{status}: {warnings:?}");
        for warning in warnings {
            assert_eq!(warning["from"], "10.6.6.6:80, incarnation theirs");
            assert_eq!(warning["service_id"], "web:a");
        }
    }
}

//! Answers of what stands before the agent.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::timeout;
use tower_sd_core::RegistrationState;
use tower_sd_testkit::script::Reply;

use crate::support::{BOUND, register, registrar, scripted, web};

/// A proxy before the agent whose session has ended.
#[tokio::test]
async fn answer_that_is_no_agents_is_no_heartbeat() {
    let is_away = Arc::new(AtomicBool::new(false));
    let page = Reply::new(200).body("<html>Sign in</html>");
    let fails = Arc::clone(&is_away);
    let script = scripted(page, move |_| fails.load(Relaxed)).await;
    let registrar = registrar(&script);
    let handle = register(&registrar, web()).await;
    let mut watch = handle.watch();
    is_away.store(true, Relaxed);
    let lost = async {
        while !matches!(watch.state(), RegistrationState::Lost { .. }) {
            watch.changed().await;
        }
    };
    timeout(BOUND, lost).await.expect("it is noticed");
    is_away.store(false, Relaxed);
    timeout(BOUND, handle.deregister()).await.expect("in time").expect("withdrawn");
}

/// A gateway without its route answers in JSON too.
#[tokio::test]
async fn not_found_of_a_gateway_is_no_withdrawal() {
    let is_away = Arc::new(AtomicBool::new(false));
    let gateway = Reply::new(404).body(r#"{"message":"no Route matched"}"#);
    let fails = Arc::clone(&is_away);
    let script = scripted(gateway, move |_| fails.load(Relaxed)).await;
    let registrar = registrar(&script);
    let registration = web().deregister_timeout(Duration::from_millis(300));
    let handle = register(&registrar, registration).await;
    is_away.store(true, Relaxed);
    let result = timeout(BOUND, handle.deregister()).await.expect("in time");
    result.expect_err("the entry is still there");
}

use std::future::pending;

use tokio::time::timeout;

use super::*;
use crate::KubernetesConfig;

#[tokio::test(start_paused = true)]
async fn follower_is_given_no_slices_before_a_list_of_its_service() {
    let followers = Arc::new(Followers {
        followed: Mutex::default(),
        shared: watch::Sender::new(true),
        max_single: 0,
    });
    let board = Arc::new(Board::default());
    let handle = Arc::clone(&board);
    let hub = Hub::new(BACKEND, TaskGroup::new(), move || (Arc::clone(&handle), pending()));
    let mut ticket = Arc::new(Sharing { followers, hub }).join("orders");
    let wire = Wire::new(KubernetesConfig::new("http://127.0.0.1:1")).expect("it can work");
    let slices = Slices::of_namespace(Arc::new(wire), Box::new(|_| true));
    let soon = Duration::from_secs(1);
    timeout(soon, ticket.next()).await.expect_err("it is subscribed, and no more");
    board.report(None, |_, _| {});
    timeout(soon, ticket.next()).await.expect_err("a bookmark before the list");
    board.listed(&slices, board.last_request() - 1);
    timeout(soon, ticket.next()).await.expect_err("a list that had begun before");
    board.listed(&slices, board.last_request());
    timeout(soon, ticket.next()).await.expect("listed").expect("slices");
    board.report(None, |_, _| {});
    timeout(soon, ticket.next()).await.expect("a bookmark").expect("slices");
}

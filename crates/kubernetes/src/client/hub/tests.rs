use std::{future::pending, time::Duration};

use tokio::time::{Instant, timeout};
use tower_sd_core::Error;

use super::{
    task::{MAX_PAUSE, rest},
    *,
};
use crate::KubernetesConfig;

/// A board without a task that writes to it, and a follower of `orders`.
fn follower() -> (Arc<Board>, Ticket) {
    let followers = Arc::new(Followers {
        followed: Mutex::default(),
        shared: watch::Sender::new(true),
        max_single: 0,
    });
    let board = Arc::new(Board::default());
    let handle = Arc::clone(&board);
    let hub = Hub::new(BACKEND, TaskGroup::new(), move || (Arc::clone(&handle), pending()));
    (board, Arc::new(Sharing { followers, hub }).join("orders"))
}

fn slices() -> Slices {
    let wire = Wire::new(KubernetesConfig::new("http://127.0.0.1:1")).expect("it can work");
    Slices::of_namespace(Arc::new(wire), Box::new(|_| true))
}

async fn next(ticket: &mut Ticket) -> Option<Update> {
    timeout(Duration::from_secs(1), ticket.next(&View::default())).await.ok()
}

#[tokio::test(start_paused = true)]
async fn follower_is_given_no_slices_before_a_list_of_its_service() {
    let (board, mut ticket) = follower();
    assert!(next(&mut ticket).await.is_none(), "it is subscribed, and no more");
    board.report(None, |_, _| {});
    assert!(next(&mut ticket).await.is_none(), "a bookmark before the list");
    board.listed(&slices(), board.last_request() - 1);
    assert!(next(&mut ticket).await.is_none(), "a list that had begun before");
    board.listed(&slices(), board.last_request());
    assert!(matches!(next(&mut ticket).await, Some(Update::Changed)), "listed");
    let known = ticket.latest();
    board.report(None, |_, _| {});
    let bookmark = timeout(Duration::from_secs(1), ticket.next(&known)).await;
    assert!(matches!(bookmark, Ok(Update::Alive)), "{bookmark:?}");
}

/// Also when the follower has observed the end of the first one by a list, or by joining again.
#[tokio::test(start_paused = true)]
async fn trouble_after_a_success_is_reported_again() {
    let (board, mut ticket) = follower();
    let trouble = || {
        let cause = Error::new(ErrorKind::Unavailable, BACKEND, "follow");
        board.report(None, |_, shared| shared.error = Some(cause.clone()));
    };
    ticket.known();
    trouble();
    assert!(matches!(next(&mut ticket).await, Some(Update::Trouble(_))), "first");
    let list = async {
        tokio::task::yield_now().await;
        board.listed(&slices(), board.last_request());
    };
    let (listed, ()) = tokio::join!(ticket.listed(), list);
    listed.expect("a list");
    trouble();
    assert!(matches!(next(&mut ticket).await, Some(Update::Trouble(_))), "after a list");
    board.listed(&slices(), board.last_request());
    assert!(ticket.known().is_some());
    trouble();
    assert!(matches!(next(&mut ticket).await, Some(Update::Trouble(_))), "after it is known");
}

/// The task obeys a requested pause, and its followers only wait for the end of that.
#[tokio::test(start_paused = true)]
async fn pause_of_the_task_is_none_of_its_followers() {
    let (board, mut ticket) = follower();
    ticket.known();
    let wanted = Duration::from_secs(120);
    let cause = Error::new(ErrorKind::Unavailable, BACKEND, "follow").with_retry_after(wanted);
    let began = Instant::now();
    let resting = async {
        rest(&board, wanted, cause).await;
        board.listed(&slices(), board.last_request());
        began.elapsed()
    };
    let reports = async {
        let Update::Trouble(error) = ticket.next(&View::default()).await else {
            panic!("it is reported");
        };
        assert_eq!(error.retry_after().unwrap_or_default(), Duration::ZERO);
        let latest = ticket.sharing.join("orders").listed().await;
        latest.expect_err("also to a follower that comes later");
        assert!(began.elapsed() <= MAX_PAUSE, "{:?}", began.elapsed());
        let update = ticket.next(&View::default()).await;
        assert!(matches!(update, Update::Changed), "the trouble is not repeated: {update:?}");
        began.elapsed()
    };
    let (rested, seen) = tokio::join!(resting, reports);
    assert_eq!((rested, seen), (wanted, wanted));
}

//! Lists and watches the namespace for all followers.

use std::{sync::Arc, time::Duration};

use tokio::{
    select,
    time::{Instant, sleep_until},
};
use tower_sd_core::{Backoff, Error, Result};

use super::board::Board;
use crate::client::slices::{Slices, Update};

/// Lists and watches; after a failure with backoff.
pub(super) async fn run(mut slices: Slices, board: Arc<Board>) {
    let mut backoff = Backoff::new(MIN_INTERVAL, MAX_PAUSE);
    loop {
        let (not_before, request) = (Instant::now() + MIN_INTERVAL, board.last_request());
        let ended = match slices.list(usize::MAX).await {
            Ok(true) => {
                backoff.succeeded();
                slices.take_changed();
                board.listed(&slices, request);
                watch_on(&mut slices, &board, not_before, request).await
            }
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        match ended {
            Ok(()) => sleep_until(not_before).await,
            Err(error) => {
                let pause = backoff.next_pause_after(&error);
                rest(&board, pause, error).await;
            }
        }
    }
}

/// Pauses, and reports the cause meanwhile: also to followers that come later.
pub(super) async fn rest(board: &Board, pause: Duration, cause: Error) {
    let end = Instant::now() + pause;
    // The pause is the task's: what follows it is reported to followers that wait for nothing else.
    let cause = cause.with_retry_after(Duration::ZERO);
    loop {
        board.report(None, |_, shared| shared.error = Some(cause.clone()));
        let now = Instant::now();
        if end <= now + MAX_PAUSE {
            return sleep_until(end).await;
        }
        sleep_until(now + MAX_PAUSE).await;
    }
}

/// Reports changes until a list is due, which followers request for a time `not_before` this.
///
/// `answered`: the last request before the last list.
async fn watch_on(
    slices: &mut Slices,
    board: &Board,
    not_before: Instant,
    answered: u64,
) -> Result<()> {
    let mut is_wanted = false;
    loop {
        let update = select! {
            biased;
            () = sleep_until(not_before), if is_wanted => return Ok(()),
            () = board.wanted.notified(), if !is_wanted => {
                is_wanted = board.last_request() > answered;
                continue;
            }
            update = slices.next(usize::MAX) => update,
        };
        match update {
            Update::Changed => {
                for service in &slices.take_changed() {
                    board.report(Some(service), |_, shared| {
                        if shared.answered > 0 {
                            shared.slices = slices.of(service);
                        }
                    });
                }
            }
            Update::Alive => board.report(None, |_, _| {}),
            Update::Trouble(error) => return Err(error),
            Update::Expired => return Ok(()),
        }
    }
}

/// Of lists that followers request: hundreds of them may start together.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// After failures, and between reports; below the bound of a follower's read, which then reports
/// their cause.
pub(super) const MAX_PAUSE: Duration = Duration::from_secs(20);

//! The race of a name's addresses: RFC 8305, "Happy Eyeballs", sections 4 and 5.

use std::{net::SocketAddr, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::sleep;

/// Attempts one address after the other, and returns the first success.
///
/// The next attempt starts when one has failed, or after `delay`; earlier ones go on. Failures
/// are collected in `failures`, which has all of them when the result is `None`.
pub(super) async fn race<A, T, E, F>(
    addresses: Vec<A>,
    delay: Duration,
    failures: &mut Vec<E>,
    attempt: impl Fn(A) -> F,
) -> Option<T>
where
    F: Future<Output = Result<T, E>>,
{
    let mut waiting = addresses.into_iter();
    let mut running = FuturesUnordered::new();
    loop {
        match waiting.next() {
            Some(address) => running.push(attempt(address)),
            None if running.is_empty() => return None,
            None => {}
        }
        let more = !waiting.as_slice().is_empty();
        tokio::select! {
            biased;
            Some(outcome) = running.next() => match outcome {
                Ok(connected) => return Some(connected),
                Err(failure) => failures.push(failure),
            },
            () = sleep(delay), if more => {}
        }
    }
}

/// Alternates between the families, beginning with the resolver's first choice.
pub(super) fn interleaved(mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first_is_v6) = addresses.first().map(SocketAddr::is_ipv6) else {
        return addresses;
    };
    let mut seen = Vec::new();
    addresses.retain(|address| {
        let new = !seen.contains(address);
        seen.push(*address);
        new
    });
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut mixed = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        let pair = (first.next(), second.next());
        if pair == (None, None) {
            return mixed;
        }
        mixed.extend(pair.0);
        mixed.extend(pair.1);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::Instant;

    use super::*;

    const DELAY: Duration = Duration::from_millis(250);

    #[derive(Clone, Copy)]
    enum Peer {
        Silent,
        Refuses,
        Accepts(u64),
    }

    async fn attempt(peer: Peer) -> Result<u64, &'static str> {
        match peer {
            Peer::Silent => pending().await,
            Peer::Refuses => Err("refused"),
            Peer::Accepts(after) => {
                sleep(Duration::from_millis(after)).await;
                Ok(after)
            }
        }
    }

    async fn run(peers: &[Peer]) -> (Option<u64>, usize, Duration) {
        let (mut failures, start) = (Vec::new(), Instant::now());
        let winner = race(peers.to_vec(), DELAY, &mut failures, attempt).await;
        (winner, failures.len(), start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn silent_address_costs_one_delay() {
        let (winner, _, elapsed) = run(&[Peer::Silent, Peer::Accepts(1)]).await;
        assert_eq!(winner, Some(1));
        assert!(elapsed >= DELAY && elapsed < DELAY * 2, "{elapsed:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn refused_address_costs_nothing() {
        let (winner, failed, elapsed) = run(&[Peer::Refuses, Peer::Accepts(1)]).await;
        assert_eq!((winner, failed), (Some(1), 1));
        assert!(elapsed < Duration::from_millis(10), "{elapsed:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn slow_address_goes_on_after_the_delay_and_may_win() {
        let (winner, _, elapsed) = run(&[Peer::Accepts(300), Peer::Silent, Peer::Silent]).await;
        assert_eq!(winner, Some(300));
        assert!(elapsed < Duration::from_millis(310), "{elapsed:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn failure_of_all_has_every_reason() {
        let (winner, failed, _) = run(&[Peer::Refuses; 3]).await;
        assert_eq!((winner, failed), (None, 3));
        assert_eq!(run(&[]).await.0, None);
    }

    #[test]
    fn families_alternate_from_the_first_choice_on() {
        let parse = |text: &&str| text.parse().expect("an address");
        let given = ["[::1]:1", "[::2]:1", "[::1]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"];
        let mixed = interleaved(given.iter().map(parse).collect());
        let expected = ["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"];
        assert_eq!(mixed, expected.iter().map(parse).collect::<Vec<SocketAddr>>());
    }
}

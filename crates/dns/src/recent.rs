//! The instances of earlier answers, for zones whose answers rotate.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;
use tower_sd_core::{Instance, InstanceId, Result};

/// The instances of the last answers, each with the time of the last answer that listed it.
#[derive(Debug, Default)]
pub(crate) struct Recent(BTreeMap<InstanceId, (Instance, Instant)>);

impl Recent {
    /// Adds to the entries of an answer the instances of earlier answers within `retention`.
    ///
    /// An empty answer ends all of them: it is no part of a larger set.
    pub(crate) fn complete(&mut self, entries: &mut Vec<Result<Instance>>, retention: Duration) {
        if retention.is_zero() {
            return;
        }
        if entries.is_empty() {
            self.0.clear();
        }
        let now = Instant::now();
        let known = std::mem::take(&mut self.0);
        let listed = entries.iter().flatten();
        self.0.extend(listed.map(|it| (it.id().clone(), (it.clone(), now))));
        for (id, (instance, listed_at)) in known {
            let is_over = now.duration_since(listed_at) >= retention;
            if is_over || self.0.contains_key(&id) || self.0.len() >= MAX_RECENT {
                continue;
            }
            entries.push(Ok(instance.clone()));
            self.0.insert(id, (instance, listed_at));
        }
    }
}

/// More than one answer can list; a zone that makes up addresses does not fill the memory.
const MAX_RECENT: usize = 4096;

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    /// The ports after an answer with these ports.
    fn answer(recent: &mut Recent, ports: &[u16], retention: Duration) -> Vec<u16> {
        let mut entries = ports.iter().map(|port| Ok(Instance::new("a", *port))).collect();
        recent.complete(&mut entries, retention);
        let mut ports: Vec<_> = entries.iter().flatten().map(Instance::port).collect();
        ports.sort_unstable();
        ports
    }

    #[tokio::test(start_paused = true)]
    async fn instance_stays_for_the_retention_after_its_last_answer() {
        let (mut recent, retention) = (Recent::default(), Duration::from_secs(10));
        assert_eq!(answer(&mut recent, &[1, 2], retention), [1, 2]);
        advance(Duration::from_secs(6)).await;
        assert_eq!(answer(&mut recent, &[2, 3], retention), [1, 2, 3]);
        advance(Duration::from_secs(4)).await;
        assert_eq!(answer(&mut recent, &[3], retention), [2, 3], "1 is over");
        advance(Duration::from_secs(6)).await;
        assert_eq!(answer(&mut recent, &[3], retention), [3], "2 is over");
    }

    #[tokio::test(start_paused = true)]
    async fn empty_answer_and_no_retention_keep_nothing() {
        let (mut recent, retention) = (Recent::default(), Duration::from_secs(10));
        assert_eq!(answer(&mut recent, &[1, 2], retention), [1, 2]);
        assert_eq!(answer(&mut recent, &[], retention), [0; 0]);
        assert_eq!(answer(&mut recent, &[3], retention), [3]);
        assert_eq!(answer(&mut recent, &[4], Duration::ZERO), [4]);
    }

    #[tokio::test(start_paused = true)]
    async fn instances_kept_are_bounded() {
        let (mut recent, retention) = (Recent::default(), Duration::from_secs(10));
        let many: Vec<u16> = (1..=4000).collect();
        answer(&mut recent, &many, retention);
        let others: Vec<u16> = (5001..=9000).collect();
        assert_eq!(answer(&mut recent, &others, retention).len(), MAX_RECENT);
    }
}

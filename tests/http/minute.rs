//! A minute of 100 requests a second, beside tower's balancer.

mod slow {
    use std::time::Duration;

    use tokio::time::sleep;
    use tower_sd_balance::{LeastLoaded, RoundRobin};

    use crate::{
        fleet::{Caller, Fleet, Load, Manner, load_every, tower_peak_ewma},
        judging::{endpointer, ours},
    };

    const ORDINARY: Manner = Manner::Answers(Duration::from_millis(20));
    const PERIOD: Duration = Duration::from_millis(10);

    async fn minute(client: &Caller) -> Load {
        load_every(client, 6_000, PERIOD).await
    }

    #[tokio::test]
    #[ignore = "slow: a minute of load"]
    async fn instance_that_fails_fast_gets_half_a_percent() {
        let fleet = Fleet::start(10, ORDINARY).await;
        fleet.set(3, Manner::Fails);
        let least_loaded = ours(&endpointer(fleet.instances()), LeastLoaded::new(), 1);
        let round_robin = ours(&endpointer(fleet.instances()), RoundRobin::new(), 1);
        let tower = tower_peak_ewma(fleet.instances()).await;
        let (least_loaded, round_robin, tower) =
            tokio::join!(minute(&least_loaded), minute(&round_robin), minute(&tower));
        assert!(least_loaded.n_failed <= 30, "{least_loaded:?}");
        assert!(round_robin.n_failed <= 30, "{round_robin:?}");
        // It counts a failure as a low latency.
        assert!(tower.n_failed >= 900, "{tower:?}");
    }

    /// One request is in flight at each on average: with fewer, noise decides which is fastest.
    #[tokio::test]
    #[ignore = "slow: two minutes of load"]
    async fn slow_instance_gets_two_percent_until_it_recovers() {
        let [ordinary, slow] = [100, 1_000].map(|ms| Manner::Answers(Duration::from_millis(ms)));
        let fleet = Fleet::start(10, ordinary).await;
        fleet.set(3, slow);
        let client = ours(&endpointer(fleet.instances()), LeastLoaded::new(), 1);
        let load = minute(&client).await;
        assert!(load.n_failed == 0 && load.of(3) <= 120, "{load:?}");
        fleet.set(3, ordinary);
        load_every(&client, 1_000, PERIOD).await;
        // Of 100 in 10 s, those that were never slow have 75 to 134.
        let recovered = load_every(&client, 3_000, PERIOD).await;
        assert!(recovered.of(3) >= 200, "{recovered:?}");
    }

    /// A second up, a second down.
    #[tokio::test]
    #[ignore = "slow: a minute of load"]
    async fn flapping_instance_costs_two_percent_without_retries() {
        let fleet = Fleet::start(4, ORDINARY).await;
        let least_loaded = ours(&endpointer(fleet.instances()), LeastLoaded::new(), 1);
        let round_robin = ours(&endpointer(fleet.instances()), RoundRobin::new(), 1);
        let tower = tower_peak_ewma(fleet.instances()).await;
        let flap = async {
            for manner in [ORDINARY, Manner::Fails].into_iter().cycle() {
                fleet.set(2, manner);
                sleep(Duration::from_secs(1)).await;
            }
        };
        let loads =
            async { tokio::join!(minute(&least_loaded), minute(&round_robin), minute(&tower)) };
        let (least_loaded, round_robin, tower) = tokio::select! {
            loads = loads => loads,
            () = flap => unreachable!("it has no end"),
        };
        assert!(least_loaded.n_failed <= 120, "{least_loaded:?}");
        assert!(round_robin.n_failed <= 120, "{round_robin:?}");
        assert!(tower.n_failed >= 600, "{tower:?}");
    }
}

use std::sync::Mutex;

use serde::Deserialize;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tower_sd_core::{ReadMode, ReadRequest, ReadResult, async_trait};

use super::*;
use crate::OnDelete;

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
struct Settings {
    limit: u32,
}

/// A key whose value the test sets; drops nothing and skips nothing.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    value: Option<String>,
    revision: u64,
    trouble: Option<Error>,
    unreadable: bool,
    hide_once: bool,
    reads: Vec<ReadMode>,
    wake: Option<mpsc::UnboundedSender<()>>,
}

struct Reader(Store, mpsc::UnboundedReceiver<()>);

impl Store {
    fn with<R>(&self, act: impl FnOnce(&mut Kept) -> R) -> R {
        act(&mut self.0.lock().expect("no panic"))
    }

    fn edit(&self, act: impl FnOnce(&mut Kept)) {
        self.with(|kept| {
            act(kept);
            kept.revision += 1;
            if let Some(wake) = &kept.wake {
                wake.send(()).expect("the reader lives");
            }
        });
    }

    fn put(&self, value: &str) {
        self.edit(|kept| kept.value = Some(value.to_owned()));
    }

    fn delete(&self) {
        self.edit(|kept| kept.value = None);
    }

    fn fail(&self, trouble: Option<ErrorKind>) {
        self.edit(|kept| kept.trouble = trouble.map(|kind| Error::new(kind, "test", "follow")));
    }

    fn follow(&self, options: WatchOptions<Settings>) -> WatchedConfig<Settings> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.with(|kept| kept.wake = Some(sender));
        WatchedConfig::new(Reader(self.clone(), receiver), options)
    }
}

#[async_trait]
impl Source for Reader {
    type Item = KeyValue;

    async fn read(&mut self, request: ReadRequest) -> Result<ReadResult<KeyValue>> {
        self.0.with(|kept| kept.reads.push(request.mode));
        if request.waits() {
            self.1.recv().await.expect("the test holds the store");
        }
        self.0.with(|kept| {
            if let Some(trouble) = &kept.trouble {
                return Err(trouble.clone());
            }
            if std::mem::take(&mut kept.hide_once) {
                return Ok(ReadResult::set(Vec::new()));
            }
            let text = kept.value.iter();
            let entry = |text: &String| KeyValue::new("app", text.as_bytes(), kept.revision);
            let mut entries: Vec<_> = text.map(|text| Ok(entry(text))).collect();
            if kept.unreadable {
                entries.push(Err(Error::new(ErrorKind::Protocol, "test", "decode")));
            }
            Ok(ReadResult::set(entries))
        })
    }
}

async fn ready(config: &mut WatchedConfig<Settings>) -> ConfigSnapshot<Settings> {
    config.ready(Duration::from_secs(3600)).await.expect("an answer")
}

async fn until(
    config: &mut WatchedConfig<Settings>,
    wanted: impl Fn(&ConfigSnapshot<Settings>) -> bool + Sync,
) -> ConfigSnapshot<Settings> {
    let found = async {
        while !wanted(&config.latest()) {
            config.changed().await.expect("open");
        }
        config.latest()
    };
    timeout(Duration::from_secs(3600), found).await.expect("such a value")
}

fn limit(latest: &ConfigSnapshot<Settings>) -> Option<u32> {
    latest.value().map(|settings| settings.limit)
}

#[tokio::test(start_paused = true)]
async fn value_is_there_now_and_when_it_changes() {
    let store = Store::default();
    store.put(r#"{"limit": 1}"#);
    let mut config = store.follow(WatchOptions::json());
    assert!(config.value().is_none() && !config.latest().freshness().is_synced());
    assert_eq!(limit(&ready(&mut config).await), Some(1));
    store.put(r#"{"limit": 2}"#);
    let latest = until(&mut config, |it| limit(it) == Some(2)).await;
    assert_eq!(latest.revision(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn registry_that_is_down_leaves_the_default() {
    let store = Store::default();
    store.fail(Some(ErrorKind::Unavailable));
    let mut config = store.follow(WatchOptions::json().default_value(Settings { limit: 7 }));
    assert_eq!(config.value().expect("the default").limit, 7);
    let error = config.ready(Duration::from_secs(9)).await.expect_err("down");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!((limit(&config.latest()), config.latest().revision()), (Some(7), None));
    assert!(matches!(config.latest().freshness(), Freshness::NeverSynced { error: Some(_) }));
    store.fail(None);
    store.put(r#"{"limit": 8}"#);
    assert_eq!(limit(&ready(&mut config).await), Some(8));
}

#[tokio::test(start_paused = true)]
async fn bad_value_is_reported_and_the_last_good_one_stays() {
    let store = Store::default();
    store.put("{\"limit\": 1}");
    let mut config = store.follow(WatchOptions::json());
    ready(&mut config).await;
    store.put("{\n\"limit\": \"many\"}");
    let latest = until(&mut config, |it| it.rejected().is_some()).await;
    assert_eq!((limit(&latest), latest.revision()), (Some(1), Some(1)));
    assert!(latest.freshness().is_fresh(), "it was read");
    let error = latest.rejected().expect("rejected").to_string();
    assert!(error.contains("key app, line 2, column"), "{error}");
    // Its error does not quote it: the text is the same.
    store.put("{\n\"limit\": \"much\"}");
    timeout(Duration::from_secs(1), config.changed()).await.expect("news").expect("it goes on");
    store.put("{\"limit\": 3}");
    let latest = until(&mut config, |it| limit(it) == Some(3)).await;
    assert!(latest.rejected().is_none());
}

#[tokio::test(start_paused = true)]
async fn entry_that_cannot_be_read_takes_no_part_of_the_value_away() {
    let store = Store::default();
    store.put("{\"limit\": 1}");
    let mut config = store.follow(WatchOptions::json());
    ready(&mut config).await;
    store.edit(|kept| kept.unreadable = true);
    let latest = until(&mut config, |it| it.rejected().is_some()).await;
    assert_eq!(limit(&latest), Some(1));
    store.edit(|_same| ());
    timeout(Duration::from_secs(1), config.changed()).await.expect_err("no news");
    store.edit(|kept| kept.unreadable = false);
    let latest = until(&mut config, |it| it.rejected().is_none()).await;
    assert_eq!(limit(&latest), Some(1));
}

#[tokio::test(start_paused = true)]
async fn deletion_is_confirmed_and_then_the_policy_decides() {
    let policies =
        [(OnDelete::KeepLast, Some(1)), (OnDelete::Default, Some(7)), (OnDelete::Clear, None)];
    for (policy, expected) in policies {
        let store = Store::default();
        store.put("{\"limit\": 1}");
        let options = WatchOptions::json().default_value(Settings { limit: 7 }).on_delete(policy);
        let mut config = store.follow(options);
        ready(&mut config).await;
        store.delete();
        let latest = until(&mut config, ConfigSnapshot::is_absent).await;
        assert_eq!(limit(&latest), expected, "{policy:?}");
        let reads = store.with(|kept| kept.reads.clone());
        let n_confirming = reads.iter().filter(|read| **read == ReadMode::Confirm).count();
        assert_eq!(n_confirming, 1, "{reads:?}");
        store.put("{\"limit\": 2}");
        let latest = until(&mut config, |it| limit(it) == Some(2)).await;
        assert!(!latest.is_absent());
    }
}

/// As a token that has lost its right, and an agent that has lost its servers, look for a moment.
#[tokio::test(start_paused = true)]
async fn value_that_is_missing_for_one_read_is_not_deleted() {
    let store = Store::default();
    store.put("{\"limit\": 1}");
    let mut config = store.follow(WatchOptions::json().on_delete(OnDelete::Clear));
    ready(&mut config).await;
    store.edit(|kept| kept.hide_once = true);
    let mut other = config.clone();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(limit(&other.latest()), Some(1));
    assert!(!other.latest().is_absent());
    drop(config);
    store.delete();
    until(&mut other, ConfigSnapshot::is_absent).await;
}

#[tokio::test(start_paused = true)]
async fn burst_of_a_thousand_ends_at_the_last_without_a_backlog() {
    let store = Store::default();
    let mut config = store.follow(WatchOptions::json());
    ready(&mut config).await;
    for n in 1..=1000 {
        store.put(&format!("{{\"limit\": {n}}}"));
    }
    let mut n_seen = 0;
    while limit(&config.latest()) != Some(1000) {
        config.changed().await.expect("open");
        n_seen += 1;
    }
    assert!(n_seen <= 3, "{n_seen} changes");
}

#[tokio::test(start_paused = true)]
async fn trouble_with_the_registry_shows_and_goes() {
    let store = Store::default();
    store.put("{\"limit\": 1}");
    let mut config = store.follow(WatchOptions::json());
    ready(&mut config).await;
    store.fail(Some(ErrorKind::Unavailable));
    let latest = until(&mut config, |it| !it.freshness().is_fresh()).await;
    assert_eq!(limit(&latest), Some(1));
    store.fail(None);
    until(&mut config, |it| it.freshness().is_fresh()).await;
}

#[tokio::test(start_paused = true)]
async fn same_text_again_wakes_no_reader() {
    let store = Store::default();
    store.put("{\"limit\": 1}");
    let mut config = store.follow(WatchOptions::json());
    ready(&mut config).await;
    let mut waiting = config.clone();
    store.put("{\"limit\": 1}");
    assert!(timeout(Duration::from_secs(60), waiting.changed()).await.is_err());
    assert_eq!(config.latest().revision(), Some(2), "a check-and-set needs it");
}

#[tokio::test(start_paused = true)]
async fn loop_ends_with_the_last_clone_or_when_closed() {
    let store = Store::default();
    let config = store.follow(WatchOptions::json().default_value(Settings { limit: 7 }));
    let mut clone = config.clone();
    drop(config);
    ready(&mut clone).await;
    clone.close().await;
    assert_eq!(Arc::strong_count(&store.0), 1);
    let freshness = clone.latest().freshness().clone();
    assert_eq!(freshness.error().map(Error::kind), Some(ErrorKind::Closed));
    assert_eq!(clone.value().expect("it stays").limit, 7);
    while let Ok(_last_word) = clone.changed().await {}
    let second = store.follow(WatchOptions::json());
    drop(second);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(Arc::strong_count(&store.0), 1);
}

#[tokio::test(start_paused = true)]
async fn deletion_is_confirmed_after_an_unreadable_confirmation() {
    let store = Store::default();
    store.put(r#"{"limit": 1}"#);
    let mut config = store.follow(WatchOptions::json().on_delete(OnDelete::Clear));
    ready(&mut config).await;
    store.edit(|kept| (kept.hide_once, kept.unreadable) = (true, true));
    until(&mut config, |it| it.rejected().is_some()).await;
    store.edit(|kept| (kept.value, kept.unreadable) = (None, false));
    let latest = until(&mut config, ConfigSnapshot::is_absent).await;
    assert_eq!(limit(&latest), None);
}

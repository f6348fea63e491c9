//! The differences between two lists of checks.

use std::{
    borrow::Cow,
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};

use serde::Deserialize;

/// The last list of checks.
#[derive(Debug, Default)]
pub(super) struct Checks {
    hasher: RandomState,
    /// By service, in lower case; the nodes' own under the empty name.
    known: Option<HashMap<String, u64>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check<'a> {
    #[serde(borrow)]
    node: Cow<'a, str>,
    #[serde(borrow, rename = "CheckID")]
    id: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow, default)]
    service_name: Cow<'a, str>,
    #[serde(borrow, default, rename = "ServiceID")]
    service_id: Cow<'a, str>,
}

impl Checks {
    /// The services whose checks differ from those of the list before; `None`: any may differ.
    pub(super) fn read(&mut self, body: &[u8]) -> Option<Vec<String>> {
        let checks: Vec<Check<'_>> = serde_json::from_slice(body).ok()?;
        let mut found: HashMap<String, u64> = HashMap::new();
        for check in &checks {
            let Check { node, id, status, service_name, service_id } = check;
            let hash = self.hasher.hash_one((node, id, status, service_id));
            // A sum does not depend on the order, which changes.
            let sum = found.entry(service_name.to_lowercase()).or_default();
            *sum = sum.wrapping_add(hash);
        }
        let known = self.known.replace(found);
        let (known, found) = (known?, self.known.as_ref()?);
        if known.get("") != found.get("") {
            return None;
        }
        let changed = |name: &&String| known.get(*name) != found.get(*name);
        let gone = known.keys().filter(|name| !found.contains_key(*name));
        Some(found.keys().filter(changed).chain(gone).cloned().collect())
    }
}

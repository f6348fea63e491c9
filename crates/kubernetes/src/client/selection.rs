//! Which slices are read, and how: a selector of labels, page by page.

use std::sync::Arc;

use tower_sd_core::{Error, Result};

use super::{
    groups::{Groups, Known},
    object::{EndpointSlice, List, Object, SERVICE_NAME},
    wire::{Failure, Wire},
};
use crate::error;

/// Whether a service is followed.
pub(super) type Wanted = Box<dyn Fn(&str) -> bool + Send + Sync>;

type Slice = Result<Arc<EndpointSlice>>;

/// A part of the namespace's slices.
pub(super) struct Selection {
    pub(super) wire: Arc<Wire>,
    /// Of labels.
    selector: String,
    /// `None`: all slices are of one group.
    wanted: Option<Wanted>,
}

/// A complete list.
pub(crate) struct Listed {
    pub(super) known: Groups,
    pub(super) version: String,
}

impl Selection {
    /// The slices of one service.
    pub(super) fn of_service(wire: Arc<Wire>, service: &str) -> Self {
        Self { wire, selector: format!("{SERVICE_NAME}={service}"), wanted: None }
    }

    /// The slices of all services in the namespace that are `wanted`; the others are dropped.
    pub(super) fn of_namespace(wire: Arc<Wire>, wanted: Wanted) -> Self {
        Self { wire, selector: SERVICE_NAME.to_owned(), wanted: Some(wanted) }
    }

    /// Reads all slices as they are now, page by page.
    ///
    /// A list without a version is a consistent read. `None`: the position was lost between two
    /// pages.
    ///
    /// # Errors
    ///
    /// The server refuses, or cannot be reached; there are more than `max_entries` endpoints.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn list(&self, max_entries: usize) -> Result<Option<Listed>> {
        let (mut known, mut next, mut limit) = (Groups::default(), None::<String>, PAGE);
        let mut n_endpoints = 0usize;
        loop {
            let mut query = self.query();
            query.push(("limit", limit.to_string()));
            query.extend(next.iter().map(|next| ("continue", next.clone())));
            let max_body = match limit {
                1 => self.max_line(),
                _ => self.wire.config.max_object.saturating_mul(limit).min(MAX_PAGE),
            };
            let page: List = match self.wire.list(&query, max_body).await {
                Ok(page) => page,
                Err(Failure::Expired) => return Ok(None),
                // Slices may be large: fewer of them fit.
                Err(Failure::TooLong(_)) if limit > 1 => {
                    limit /= 4;
                    limit = limit.max(1);
                    continue;
                }
                Err(Failure::TooLong(error) | Failure::Other(error)) => return Err(error),
            };
            for item in page.items.unwrap_or_default() {
                let object: Object = parsed(item.get())?;
                n_endpoints += self.insert(&mut known, &object, item.get());
            }
            if n_endpoints > max_entries {
                return Err(error::garbled(format!("more than {max_entries} endpoints")));
            }
            next = page.metadata.next.filter(|next| !next.is_empty());
            if next.is_none() {
                let version = page.metadata.resource_version;
                return Ok(Some(Listed { known, version }));
            }
        }
    }

    /// Adds a slice, or drops one that is not wanted; returns its size.
    pub(super) fn insert(&self, known: &mut Groups, object: &Object, text: &str) -> usize {
        let Some((group, slice)) = self.read(object, text) else {
            known.remove(&object.metadata.name);
            return 0;
        };
        let size = slice.as_ref().map_or(0, |slice| slice.endpoints.len());
        known.insert(group, &object.metadata.name, slice);
        size
    }

    /// The slice of an object, and its group; `None` if its service is not wanted.
    fn read<'a>(&self, object: &'a Object, text: &str) -> Option<(&'a str, Slice)> {
        let Object { metadata } = object;
        let group = match (&self.wanted, metadata.labels.get(SERVICE_NAME)) {
            (None, _) => ONLY,
            (Some(wanted), Some(service)) if wanted(service) => service,
            (Some(_), _) => return None,
        };
        let max = self.wire.config.max_object;
        let slice = match text.len() > max {
            true => {
                let name = &metadata.name;
                let message = format!("slice {name:?} is longer than max_object = {max} bytes");
                Err(error::garbled(message))
            }
            false => parsed::<EndpointSlice>(text).map(Arc::new),
        };
        Some((group, slice.map_err(Error::permanent)))
    }

    /// Of an object in its envelope: one that is too long is skipped, and not all that is read.
    pub(super) fn max_line(&self) -> usize {
        self.wire.config.max_object.max(MAX_PAGE).saturating_add(ENVELOPE)
    }

    pub(super) fn query(&self) -> Vec<(&'static str, String)> {
        vec![("labelSelector", self.selector.clone())]
    }
}

impl Listed {
    /// The slices of the only service.
    pub(crate) fn known(&self) -> Arc<Known> {
        self.known.of(ONLY)
    }
}

pub(super) fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|cause| {
        error::garbled("an object is not as an API server writes it").with_source(cause)
    })
}

/// The group of slices that all are of one service.
pub(super) const ONLY: &str = "";
/// Slices of a page: ordinary ones have 100 endpoints, some 40 KB.
const PAGE: usize = 256;
/// A page above it is read again in smaller ones; one object may have as much.
const MAX_PAGE: usize = 16 << 20;
/// Around the objects of a list, and around that of an event.
const ENVELOPE: usize = 16 << 10;

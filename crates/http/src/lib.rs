//! HTTP endpoints for tower-sd: one pool of owned connections per instance.

//! Service discovery and client-side load balancing for tower.

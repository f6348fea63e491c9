//! etcd v3 for tower-sd: register under a lease, follow a prefix by list and watch.

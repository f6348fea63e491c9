//! The contracts of tower-sd: instances, instancers, registrars and the two shared loops.

//! The conformance suite of tower-sd, scripted servers, a fault proxy and real servers for tests.

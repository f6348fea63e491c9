//! Consul for tower-sd: register with the agent, follow a service by blocking queries.

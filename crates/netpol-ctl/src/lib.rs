//! Turns the verdict on an AgentCard into a NetworkPolicy.

//! A2A documents, canonical payloads, SPIFFE IDs, trust bundles and the verification of signed agent cards.

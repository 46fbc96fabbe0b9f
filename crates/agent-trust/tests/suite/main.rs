//! What the trust crate promises, from outside: the vectors, hostile cards, mutations, signing, TLS peers.

mod fixtures;
mod hostile;
mod mint;
mod mutation;
mod peers;
mod properties;
mod signing;
mod vectors;

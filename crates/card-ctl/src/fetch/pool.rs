//! Plain connections kept for the next fetch from the same host (card §6.5: at most 30 s).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::connection::Connection;

/// Connections kept at most. Agents are polled every 30 s by default, so few are worth a socket here and there.
const CAPACITY: usize = 256;

/// Where a connection leads to: the address it was really made to, and the host it was made for.
type Key = (SocketAddr, String);

#[derive(Default)]
pub(super) struct Pool {
    idle: Mutex<HashMap<Key, Connection>>,
}

impl Pool {
    /// A connection that may serve one more exchange.
    pub(super) fn take(&self, address: SocketAddr, host: &str) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = idle.remove(&(address, host.to_owned()))?;
        connection.is_reusable(Instant::now()).then_some(connection)
    }

    /// Keeps a connection on which nothing is under way, if there is room. One whose peer was attested is
    /// never kept: its certificate was judged by the bundle of that moment.
    pub(super) fn keep(&self, mut connection: Connection, host: &str) {
        let now = Instant::now();
        if connection.attested().is_some() || !connection.is_reusable(now) {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() >= CAPACITY {
            idle.retain(|_, kept| kept.is_reusable(now));
        }
        if idle.len() < CAPACITY {
            connection.mark_used();
            idle.insert((connection.address(), host.to_owned()), connection);
        }
    }
}

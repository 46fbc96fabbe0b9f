//! A cluster that a few tests share beside the shared one, because they need the same unusual set-up.
//!
//! It starts with the first test of the group and ends with the last one that uses it, so an unused set-up costs
//! nothing. Tests that change something global in it take it [alone](Group::alone).

use std::ops::Deref;
use std::sync::{Arc, Weak};

use anyhow::Result;
use tokio::sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::suite::{Options, Suite};

/// The set-up and, while a test uses it, the cluster.
pub struct Group {
    options: fn() -> Options,
    suite: Mutex<Weak<Suite>>,
    turn: RwLock<()>,
}

/// The cluster of a group, beside other tests of it.
pub struct Shared {
    suite: Arc<Suite>,
    _turn: RwLockReadGuard<'static, ()>,
}

/// The cluster of a group, without any other test.
pub struct Alone {
    suite: Arc<Suite>,
    _turn: RwLockWriteGuard<'static, ()>,
}

impl Group {
    /// A group whose cluster looks like this.
    pub const fn new(options: fn() -> Options) -> Self {
        Self { options, suite: Mutex::const_new(Weak::new()), turn: RwLock::const_new(()) }
    }

    /// The cluster, for a test that keeps to its own namespaces.
    pub async fn share(&'static self) -> Result<Shared> {
        let suite = self.suite().await?;
        Ok(Shared { suite, _turn: self.turn.read().await })
    }

    /// The cluster, for a test that changes what others would notice; it leaves everything as it found it.
    pub async fn alone(&'static self) -> Result<Alone> {
        let suite = self.suite().await?;
        Ok(Alone { suite, _turn: self.turn.write().await })
    }

    /// Whoever waits for a turn holds the cluster already, so it does not end in between.
    async fn suite(&self) -> Result<Arc<Suite>> {
        let mut known = self.suite.lock().await;
        if let Some(suite) = known.upgrade() {
            return Ok(suite);
        }
        let suite = Arc::new(Suite::own((self.options)()).await?);
        *known = Arc::downgrade(&suite);
        Ok(suite)
    }
}

impl Deref for Shared {
    type Target = Suite;

    fn deref(&self) -> &Suite {
        &self.suite
    }
}

impl Deref for Alone {
    type Target = Suite;

    fn deref(&self) -> &Suite {
        &self.suite
    }
}

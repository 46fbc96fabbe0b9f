//! What time may do to a signature (card §8.4).

use std::str::FromStr;
use std::time::Duration;

use super::reason::ReasonCode;
use crate::certificate::Certificate;

/// What an expired signing certificate means (`--x5c-leaf-expiry-policy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LeafExpiry {
    /// Valid for a grace period after its end.
    #[default]
    Grace,
    /// Invalid at its end, but for the clock skew.
    Deny,
    /// Certificates are judged just after their start, whatever the clock says. A stolen key or an old card stays good
    /// as long as its authority is in the bundle.
    Ignore,
}

/// A text that names no policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown leaf expiry policy; known are grace, deny and ignore")]
pub struct UnknownLeafExpiry;

impl FromStr for LeafExpiry {
    type Err = UnknownLeafExpiry;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "grace" => Ok(Self::Grace),
            "deny" => Ok(Self::Deny),
            "ignore" => Ok(Self::Ignore),
            _ => Err(UnknownLeafExpiry),
        }
    }
}

/// The rules of time (card §8.4). Part of the key under which a verdict may be kept (card §8.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// What an expired signing certificate means.
    pub leaf_expiry: LeafExpiry,
    /// How long an expired certificate stays good under [`LeafExpiry::Grace`]; whole seconds count.
    pub grace: Duration,
    /// How far the clocks may differ; whole seconds count.
    pub skew: Duration,
}

impl Default for Policy {
    /// Grace of 24 hours, skew of 5 minutes.
    fn default() -> Self {
        Self {
            leaf_expiry: LeafExpiry::Grace,
            grace: Duration::from_secs(86_400),
            skew: Duration::from_secs(300),
        }
    }
}

/// A leaf that time allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InTime {
    /// The instant at which the chain is judged, Unix seconds.
    pub(super) evaluate_at: i64,
    /// Past its end, inside the grace period.
    pub(super) expired: bool,
}

impl Policy {
    /// Judges a leaf by the clock (`now` in Unix seconds).
    pub(super) fn judge(&self, leaf: &Certificate, now: i64) -> Result<InTime, ReasonCode> {
        let (start, end) = (leaf.not_before, leaf.not_after);
        if self.leaf_expiry == LeafExpiry::Ignore {
            return Ok(InTime { evaluate_at: start.saturating_add(1).min(end), expired: false });
        }
        if now < start.saturating_sub(seconds(self.skew)) {
            return Err(ReasonCode::NotYetValid);
        }
        if now > end.saturating_add(self.tolerance()) {
            return Err(ReasonCode::Expired);
        }
        Ok(InTime { evaluate_at: now.max(start).min(end), expired: now > end })
    }

    /// The seconds, Unix time, at which [`Policy::judge`] may begin to answer differently for this leaf.
    pub(super) fn boundaries(&self, leaf: &Certificate) -> [i64; 4] {
        let past = |end: i64| end.saturating_add(1);
        [
            leaf.not_before.saturating_sub(seconds(self.skew)),
            leaf.not_before,
            past(leaf.not_after),
            past(leaf.not_after.saturating_add(self.tolerance())),
        ]
    }

    fn tolerance(&self) -> i64 {
        seconds(match self.leaf_expiry {
            LeafExpiry::Grace => self.grace,
            LeafExpiry::Deny | LeafExpiry::Ignore => self.skew,
        })
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

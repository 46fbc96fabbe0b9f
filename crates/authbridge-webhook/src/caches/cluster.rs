//! Two facts about the cluster: is SPIRE's CSI driver there, which release is the API server.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// First minor release with native sidecars on by default (webhook §10.4).
const NATIVE_SIDECARS: u32 = 29;

/// Facts that hold for the whole cluster.
#[derive(Debug, Default)]
pub struct ClusterFacts {
    csi_driver: AtomicBool,
    minor: AtomicU32,
}

impl ClusterFacts {
    /// CSIDriver `csi.spiffe.io` exists.
    pub fn csi_driver(&self) -> bool {
        self.csi_driver.load(Ordering::Relaxed)
    }

    /// Sets whether CSIDriver `csi.spiffe.io` exists.
    pub fn set_csi_driver(&self, present: bool) {
        self.csi_driver.store(present, Ordering::Relaxed);
    }

    /// The API server is 1.29 or newer. False while its version is unknown: a regular container
    /// works everywhere, a native sidecar does not.
    pub fn native_sidecars(&self) -> bool {
        self.minor.load(Ordering::Relaxed) >= NATIVE_SIDECARS
    }

    /// Sets the version from `/version`; minor versions such as `29+` are understood.
    pub fn set_version(&self, major: &str, minor: &str) {
        let digits: String = minor.chars().take_while(char::is_ascii_digit).collect();
        let minor = digits.parse().unwrap_or(0);
        let newer = major.parse::<u32>().is_ok_and(|m| m > 1);
        self.minor.store(if newer { u32::MAX } else { minor }, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("1", "28", false)]
    #[case("1", "29+", true)]
    #[case("1", "36", true)]
    #[case("2", "0", true)]
    #[case("1", "", false)]
    fn native_sidecars_begin_with_1_29(#[case] major: &str, #[case] minor: &str, #[case] want: bool) {
        let facts = ClusterFacts::default();
        assert!(!facts.native_sidecars());
        facts.set_version(major, minor);
        assert_eq!(facts.native_sidecars(), want);
    }
}

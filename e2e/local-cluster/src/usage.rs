//! What a process used so far, read from `/proc`.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// Processor time and memory of a running process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time in user and kernel mode, of all its threads.
    pub cpu: Duration,
    /// Resident memory now, in bytes.
    pub resident: u64,
    /// The most resident memory it ever had, in bytes.
    pub peak_resident: u64,
}

impl Usage {
    /// Reads the figures of a process; an error when it does not run (a zombie does not).
    pub fn of(pid: i32) -> Result<Self> {
        let read = |file: &str| {
            std::fs::read_to_string(format!("/proc/{pid}/{file}"))
                .with_context(|| format!("process {pid} does not run"))
        };
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)
            .ok()
            .flatten()
            .and_then(|ticks| u64::try_from(ticks).ok())
            .unwrap_or(100);
        let (state, used) =
            parse_stat(&read("stat")?).with_context(|| format!("reading /proc/{pid}/stat"))?;
        ensure!(state != 'Z' && state != 'X', "process {pid} has ended");
        let status = read("status")?;
        Ok(Self {
            cpu: Duration::from_millis(used * 1000 / ticks.max(1)),
            resident: kilobytes(&status, "VmRSS:") * 1024,
            peak_resident: kilobytes(&status, "VmHWM:") * 1024,
        })
    }
}

/// State and used clock ticks. The name in parentheses may contain anything, also parentheses.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some((fields.first()?.chars().next()?, ticks(11)? + ticks(12)?))
}

fn kilobytes(status: &str, key: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_are_no_trap() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 15 25 0 0 20 0 4 0 100 1000 200";
        assert_eq!(parse_stat(stat), Some(('S', 40)));
    }

    #[test]
    fn the_own_process_is_measured() {
        let usage = Usage::of(i32::try_from(std::process::id()).expect("a pid")).expect("running");
        assert!(usage.peak_resident >= usage.resident && usage.resident > 0);
        assert!(Usage::of(i32::MAX).is_err());
    }
}

//! Conditions keep their transition time unless the status flips (runtime §2.7).

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody knows.
    Unknown,
}

impl Truth {
    /// The wire form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// Puts `next` into `list`, sorted by type. Its transition time becomes `now` when the condition is new or its
/// status flips, else the old one stays. True = a reader could see a change.
pub fn set_condition(list: &mut Vec<Condition>, mut next: Condition, now: Timestamp) -> bool {
    next.last_transition_time = Time(now);
    if let Some(old) = list.iter_mut().find(|old| old.type_ == next.type_) {
        if old.status == next.status {
            next.last_transition_time = old.last_transition_time.clone();
        }
        let changed = *old != next;
        *old = next;
        return changed;
    }
    list.push(next);
    list.sort_by(|a, b| a.type_.cmp(&b.type_));
    true
}

/// Removes a condition; true = it was there.
pub fn remove_condition(list: &mut Vec<Condition>, condition_type: &str) -> bool {
    let before = list.len();
    list.retain(|condition| condition.type_ != condition_type);
    list.len() != before
}

/// The condition of a type.
pub fn condition<'a>(list: &'a [Condition], condition_type: &str) -> Option<&'a Condition> {
    list.iter().find(|condition| condition.type_ == condition_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(type_: &str, status: &str, reason: &str) -> Condition {
        Condition {
            type_: type_.into(),
            status: status.into(),
            reason: reason.into(),
            message: String::new(),
            observed_generation: Some(1),
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    /// Runtime §2.7.
    #[test]
    fn the_transition_time_moves_only_when_the_status_flips() {
        let mut list = Vec::new();
        assert!(set_condition(&mut list, of("Ready", "False", "A"), at(10)));
        assert_eq!(list[0].last_transition_time, Time(at(10)));
        assert!(!set_condition(&mut list, of("Ready", "False", "A"), at(20)), "no difference, no change");
        assert!(set_condition(&mut list, of("Ready", "False", "B"), at(30)));
        assert_eq!((list[0].reason.as_str(), list[0].last_transition_time.0), ("B", at(10)));
        assert!(set_condition(&mut list, of("Ready", "True", "C"), at(40)));
        assert_eq!(list[0].last_transition_time, Time(at(40)));
    }

    #[test]
    fn conditions_are_sorted_by_type_and_found_by_it() {
        let mut list = Vec::new();
        for type_ in ["Ready", "ConfigResolved", "TargetResolved"] {
            set_condition(&mut list, of(type_, "True", "R"), at(1));
        }
        let types: Vec<&str> = list.iter().map(|c| c.type_.as_str()).collect();
        assert_eq!(types, ["ConfigResolved", "Ready", "TargetResolved"]);
        assert!(condition(&list, "Ready").is_some());
        assert!(remove_condition(&mut list, "Ready"));
        assert!(!remove_condition(&mut list, "Ready"));
        assert!(condition(&list, "Ready").is_none());
    }
}

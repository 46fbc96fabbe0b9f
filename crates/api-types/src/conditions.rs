//! Conditions keep their transition time unless the status flips (runtime §2.7).

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

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

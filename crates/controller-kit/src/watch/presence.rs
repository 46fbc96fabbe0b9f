//! Whether the one object of a watch exists.

use kube::runtime::watcher::Event;

/// What the events of a watch for one name say about its object.
#[derive(Debug, Default)]
pub struct Presence {
    listed: bool,
}

impl Presence {
    /// Whether the object exists after `event`; `None` = the list is not complete yet.
    pub fn after<K>(&mut self, event: &Event<K>) -> Option<bool> {
        match event {
            Event::Init => {
                self.listed = false;
                None
            }
            Event::InitApply(_) => {
                self.listed = true;
                None
            }
            Event::InitDone => Some(self.listed),
            Event::Apply(_) => Some(true),
            Event::Delete(_) => Some(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_counts_when_it_is_complete() {
        let mut presence = Presence::default();
        let said: Vec<_> = [
            Event::Init,
            Event::InitApply(()),
            Event::InitDone,
            Event::Delete(()),
            Event::Apply(()),
            Event::Init,
            Event::InitDone,
        ]
        .iter()
        .map(|event| presence.after(event))
        .collect();
        assert_eq!(said, [None, None, Some(true), Some(false), Some(true), None, Some(false)]);
    }
}

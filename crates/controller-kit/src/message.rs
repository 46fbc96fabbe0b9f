//! What went wrong, in words for logs, Events and conditions.

use std::error::Error as StdError;

use kube::runtime::watcher;

/// The message of the API server verbatim, or the error and its causes in words. For logs and conditions: the
/// `Display` of an API error repeats its whole `Status`.
pub fn message_of(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        let (words, last) = match cause.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) if !status.message.is_empty() => (status.message.clone(), true),
            _ => (own_words(cause), false),
        };
        if text.is_empty() {
            text = words;
        } else if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = if last { None } else { cause.source() };
    }
    text
}

/// A watcher's error says its source itself; its source says it better.
fn own_words(error: &(dyn StdError + 'static)) -> String {
    match error.downcast_ref::<watcher::Error>() {
        Some(watcher::Error::InitialListFailed(_)) => "list".to_owned(),
        Some(watcher::Error::WatchStartFailed(_) | watcher::Error::WatchFailed(_)) => "watch".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot patch Deployment a/b")]
    struct Tried(#[source] kube::Error);

    #[test]
    fn an_api_error_says_its_message_and_not_its_whole_status() {
        let status = kube::core::Status::failure("no room", "Forbidden").with_code(403).boxed();
        assert_eq!(message_of(&Tried(kube::Error::Api(status))), "cannot patch Deployment a/b: no room");
    }
}

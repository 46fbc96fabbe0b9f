//! Who may read `/metrics`: a bearer token that TokenReview knows, of a user whom
//! SubjectAccessReview lets get the URL (packaging §11).
//!
//! Answers are remembered, 60 s for yes and 10 s for no, so a scrape costs no request. When the
//! reviews cannot be made, nobody gets in and the answer is "unavailable", never "allowed".

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

const ALLOWED_FOR: Duration = Duration::from_mins(1);
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// Both reviews of one caller together.
const REVIEW_LIMIT: Duration = Duration::from_secs(5);
/// Tokens remembered at most.
const CAPACITY: usize = 1024;
/// Callers reviewed at the same time; strangers must not turn us into a load on the API server.
const REVIEWS: usize = 4;

/// Whether a caller gets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Yes.
    Allowed,
    /// The token is not known: 401.
    Unauthenticated,
    /// The user is known and has no right: 403.
    Forbidden,
    /// The reviews could not be made: 503.
    Unavailable,
}

/// Reviews callers and remembers the answers.
pub struct Reviewer {
    client: Client,
    path: &'static str,
    answers: Mutex<HashMap<[u8; 32], (Access, Instant)>>,
    reviews: Semaphore,
}

impl Reviewer {
    /// A reviewer for `GET <path>`.
    pub fn new(client: Client, path: &'static str) -> Self {
        Self { client, path, answers: Mutex::default(), reviews: Semaphore::new(REVIEWS) }
    }

    /// Whether the holder of `token` gets in. The token itself is not kept, only its digest.
    pub async fn review(&self, token: &str) -> Access {
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(access) = self.remembered(&key) {
            return access;
        }
        let work = async {
            let _permit = self.reviews.acquire().await;
            // Somebody may have asked about the same token while this one waited.
            match self.remembered(&key) {
                Some(access) => Ok(access),
                None => self.ask(token).await,
            }
        };
        match timeout(REVIEW_LIMIT, work).await {
            Ok(Ok(access)) => {
                self.remember(key, access);
                access
            }
            Ok(Err(error)) => {
                tracing::warn!(
                    error = %crate::message::message_of(&error),
                    "callers of {} cannot be reviewed: grant create on tokenreviews and subjectaccessreviews, or set --metrics-secure=false",
                    self.path
                );
                Access::Unavailable
            }
            Err(_) => Access::Unavailable,
        }
    }

    async fn ask(&self, token: &str) -> kube::Result<Access> {
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.to_owned(), audiences: None },
            ..TokenReview::default()
        };
        let review = Api::all(self.client.clone()).create(&PostParams::default(), &review).await?;
        let status = review.status.unwrap_or_default();
        let (true, Some(user)) = (status.authenticated.unwrap_or(false), status.user) else {
            return Ok(Access::Unauthenticated);
        };
        let review =
            Api::all(self.client.clone()).create(&PostParams::default(), &self.access_review(user)).await?;
        let allowed = review.status.is_some_and(|status| status.allowed && !status.denied.unwrap_or(false));
        Ok(if allowed { Access::Allowed } else { Access::Forbidden })
    }

    fn access_review(&self, user: UserInfo) -> SubjectAccessReview {
        SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: user.username,
                uid: user.uid,
                groups: user.groups,
                extra: user.extra.map(|extra| extra.into_iter().collect::<BTreeMap<_, _>>()),
                non_resource_attributes: Some(NonResourceAttributes {
                    path: Some(self.path.to_owned()),
                    verb: Some("get".to_owned()),
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        }
    }

    fn remembered(&self, key: &[u8; 32]) -> Option<Access> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(key).filter(|(_, until)| Instant::now() < *until).map(|(access, _)| *access)
    }

    fn remember(&self, key: [u8; 32], access: Access) {
        let now = Instant::now();
        let until = now + if access == Access::Allowed { ALLOWED_FOR } else { REFUSED_FOR };
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= CAPACITY {
            answers.retain(|_, (_, until)| now < *until);
            if answers.len() >= CAPACITY {
                // Only a flood of different tokens gets here; the scraper is reviewed once more.
                answers.clear();
            }
        }
        answers.insert(key, (access, until));
    }
}

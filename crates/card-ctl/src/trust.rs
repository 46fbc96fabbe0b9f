//! The platform's trust domain and bundle, as they are now (card §4.3, §8.6).

use std::sync::{Arc, PoisonError, RwLock};

use agent_trust::{TrustBundle, TrustDomain, verify::Policy};
use tokio::time::Instant;

use crate::evaluation::Check;

/// What is known.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The operator's trust domain.
    pub domain: Option<TrustDomain>,
    /// The last good bundle.
    pub bundle: Option<Arc<TrustBundle>>,
    /// Its fingerprint.
    pub fingerprint: Option<Arc<str>>,
    /// Why there is no bundle.
    pub problem: Option<String>,
    /// When the bundle was last read well.
    pub loaded: Option<Instant>,
}

/// Shared between watches and passes.
#[derive(Debug)]
pub struct Trust {
    known: RwLock<Known>,
    /// Text of the last bundle value, to be parsed again when the trust domain becomes known.
    text: RwLock<Option<String>>,
    policy: Policy,
    required: bool,
}

/// What reading a bundle did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// The same roots as before.
    Unchanged,
    /// Other roots: everything is to be verified again.
    Changed,
    /// It cannot be used; the label of the metric.
    Failed(&'static str),
}

impl Trust {
    /// Nothing is known yet. `required` = signatures are to be verified.
    pub fn new(domain: Option<TrustDomain>, policy: Policy, required: bool) -> Self {
        let problem = Some("the trust bundle was not read yet".to_owned());
        Self {
            known: RwLock::new(Known { domain, problem, ..Known::default() }),
            text: RwLock::default(),
            policy,
            required,
        }
    }

    /// What is known.
    pub fn known(&self) -> Known {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The trust domain.
    pub fn domain(&self) -> Option<TrustDomain> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).domain.clone()
    }

    /// How signatures are judged now.
    pub fn check(&self) -> Check {
        if !self.required {
            return Check::Off;
        }
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        match (&known.bundle, &known.fingerprint) {
            (Some(_), Some(_)) if known.domain.is_none() => Check::Unavailable(
                "the trust domain of the platform is not known: set --spire-trust-domain".into(),
            ),
            (Some(bundle), Some(fingerprint)) => Check::Bundle {
                bundle: bundle.clone(),
                fingerprint: fingerprint.clone(),
                policy: self.policy,
            },
            _ => {
                let why = known.problem.as_deref().unwrap_or("the trust bundle was not read yet");
                Check::Unavailable(format!("trust bundle unavailable: {why}"))
            }
        }
    }

    /// Notes the trust domain; true when that is news.
    pub fn set_domain(&self, domain: &TrustDomain) -> bool {
        let news = {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            known.domain.replace(domain.clone()).as_ref() != Some(domain)
        };
        let text = self.text.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let (true, Some(text)) = (news, text) {
            // Roots without a domain of their own are the operator's.
            self.load(&text);
        }
        news
    }

    /// Reads a bundle. A bad one leaves the last good one in place.
    pub fn load(&self, text: &str) -> Loaded {
        *self.text.write().unwrap_or_else(PoisonError::into_inner) = Some(text.to_owned());
        let domain = self.domain();
        match TrustBundle::parse(text, domain.as_ref()) {
            Ok(bundle) => {
                let fingerprint: Arc<str> = bundle.fingerprint().into();
                let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
                known.problem = None;
                known.loaded = Some(Instant::now());
                // Not the fingerprint alone: the domain of a root may have become known.
                if known.bundle.as_deref() == Some(&bundle) {
                    return Loaded::Unchanged;
                }
                known.bundle = Some(Arc::new(bundle));
                known.fingerprint = Some(fingerprint);
                Loaded::Changed
            }
            Err(error) => self.failed(error.label(), error.to_string()),
        }
    }

    /// Notes that there is no bundle to read.
    pub fn failed(&self, label: &'static str, why: String) -> Loaded {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.problem = Some(why);
        Loaded::Failed(label)
    }
}

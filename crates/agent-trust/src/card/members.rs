//! The members of an A2A card that this suite knows (card §2.3): one table for type checks, storage, the legacy field
//! set and the presence rules of A2A 1.0.

use std::fmt::Display;

use crate::json::Value;

/// What a member holds.
#[derive(Debug)]
pub(crate) enum Kind {
    /// A string.
    Text,
    /// A boolean.
    Flag,
    /// An array whose elements are of one kind.
    List(&'static Kind),
    /// An object whose members are free names with values of one kind.
    Map(&'static Kind),
    /// An object with the members of a table.
    Object(&'static [Member]),
    /// An object that is stored whole; its table serves the presence rules of A2A 1.0 only.
    Open(&'static [Member]),
    /// Any JSON.
    Any,
}

/// When A2A 1.0 lets a signer leave a member out (card §8.2, profile `a2a-strict`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// REQUIRED or explicitly `optional`: an empty value stays.
    Explicit,
    /// Implicit: the empty value of its type (`""`, `[]`, `{}`, `false`) is left out.
    Implicit,
}

/// A known member.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// In the field set that profile `legacy` keeps.
    pub(crate) legacy: bool,
    pub(crate) presence: Presence,
}

const fn legacy(name: &'static str, kind: Kind) -> Member {
    Member { name, kind, legacy: true, presence: Presence::Explicit }
}

const fn newer(name: &'static str, kind: Kind) -> Member {
    Member { name, kind, legacy: false, presence: Presence::Explicit }
}

/// The same member, left out by A2A 1.0 signers when empty.
const fn implicit(member: Member) -> Member {
    Member { presence: Presence::Implicit, ..member }
}

const TEXTS: Kind = Kind::List(&Kind::Text);
const SCOPES: Kind = Kind::Map(&TEXTS);

/// The card itself.
pub(crate) const CARD: &[Member] = &[
    legacy("name", Kind::Text),
    legacy("description", Kind::Text),
    legacy("version", Kind::Text),
    legacy("url", Kind::Text),
    legacy("documentationUrl", Kind::Text),
    legacy("iconUrl", Kind::Text),
    legacy("provider", Kind::Object(PROVIDER)),
    legacy("capabilities", Kind::Object(CAPABILITIES)),
    legacy("defaultInputModes", TEXTS),
    legacy("defaultOutputModes", TEXTS),
    legacy("skills", Kind::List(&Kind::Object(SKILL))),
    legacy("supportsAuthenticatedExtendedCard", Kind::Flag),
    legacy("signatures", Kind::List(&Kind::Object(SIGNATURE))),
    newer("protocolVersion", Kind::Text),
    newer("preferredTransport", Kind::Text),
    newer("additionalInterfaces", Kind::List(&Kind::Object(ADDITIONAL_INTERFACE))),
    newer("supportedInterfaces", Kind::List(&Kind::Object(INTERFACE))),
    implicit(newer("securitySchemes", Kind::Map(&SCHEME))),
    newer("security", Kind::List(&SCOPES)),
    implicit(newer("securityRequirements", REQUIREMENTS)),
];

const PROVIDER: &[Member] = &[legacy("organization", Kind::Text), legacy("url", Kind::Text)];

const CAPABILITIES: &[Member] = &[
    legacy("streaming", Kind::Flag),
    legacy("pushNotifications", Kind::Flag),
    implicit(legacy("extensions", Kind::List(&Kind::Object(EXTENSION)))),
    newer("stateTransitionHistory", Kind::Flag),
    newer("extendedAgentCard", Kind::Flag),
];

const EXTENSION: &[Member] = &[
    implicit(legacy("uri", Kind::Text)),
    implicit(legacy("description", Kind::Text)),
    implicit(legacy("required", Kind::Flag)),
    legacy("params", Kind::Map(&Kind::Any)),
];

const SKILL: &[Member] = &[
    legacy("id", Kind::Text),
    legacy("name", Kind::Text),
    legacy("description", Kind::Text),
    legacy("tags", TEXTS),
    implicit(legacy("examples", TEXTS)),
    implicit(legacy("inputModes", TEXTS)),
    implicit(legacy("outputModes", TEXTS)),
    legacy("parameters", Kind::List(&Kind::Object(PARAMETER))),
    newer("security", Kind::List(&SCOPES)),
    implicit(newer("securityRequirements", REQUIREMENTS)),
];

const PARAMETER: &[Member] = &[
    legacy("name", Kind::Text),
    legacy("type", Kind::Text),
    legacy("description", Kind::Text),
    legacy("required", Kind::Flag),
    legacy("default", Kind::Text),
];

const SIGNATURE: &[Member] = &[
    legacy("protected", Kind::Text),
    legacy("signature", Kind::Text),
    legacy("header", Kind::Map(&Kind::Any)),
];

const ADDITIONAL_INTERFACE: &[Member] = &[newer("url", Kind::Text), newer("transport", Kind::Text)];

const INTERFACE: &[Member] = &[
    newer("url", Kind::Text),
    newer("protocolBinding", Kind::Text),
    implicit(newer("tenant", Kind::Text)),
    newer("protocolVersion", Kind::Text),
];

const REQUIREMENTS: Kind = Kind::List(&Kind::Object(REQUIREMENT));

const REQUIREMENT: &[Member] = &[newer("schemes", Kind::Map(&Kind::Object(STRING_LIST)))];

const STRING_LIST: &[Member] = &[implicit(newer("list", TEXTS))];

/// A security scheme is stored whatever it holds (card §2.3, "preserve unknown").
const SCHEME: Kind = Kind::Open(SCHEME_OF_V1);

const SCHEME_OF_V1: &[Member] = &[
    newer("apiKeySecurityScheme", Kind::Object(SCHEME_FIELDS)),
    newer("httpAuthSecurityScheme", Kind::Object(SCHEME_FIELDS)),
    newer("oauth2SecurityScheme", Kind::Object(SCHEME_FIELDS)),
    newer("openIdConnectSecurityScheme", Kind::Object(SCHEME_FIELDS)),
    newer("mtlsSecurityScheme", Kind::Object(SCHEME_FIELDS)),
];

const SCHEME_FIELDS: &[Member] = &[
    implicit(newer("description", Kind::Text)),
    implicit(newer("bearerFormat", Kind::Text)),
    implicit(newer("oauth2MetadataUrl", Kind::Text)),
    newer("location", Kind::Text),
    newer("name", Kind::Text),
    newer("scheme", Kind::Text),
    newer("openIdConnectUrl", Kind::Text),
    newer("flows", Kind::Object(FLOWS)),
];

const FLOWS: &[Member] = &[
    newer("authorizationCode", Kind::Object(FLOW)),
    newer("clientCredentials", Kind::Object(FLOW)),
    newer("deviceCode", Kind::Object(FLOW)),
    newer("implicit", Kind::Object(FLOW)),
    newer("password", Kind::Object(FLOW)),
];

const FLOW: &[Member] = &[
    newer("authorizationUrl", Kind::Text),
    newer("deviceAuthorizationUrl", Kind::Text),
    newer("tokenUrl", Kind::Text),
    implicit(newer("refreshUrl", Kind::Text)),
    newer("scopes", Kind::Map(&Kind::Text)),
    implicit(newer("pkceRequired", Kind::Flag)),
];

/// The entry of `name` in a table.
pub(crate) fn find(members: &'static [Member], name: &str) -> Option<&'static Member> {
    members.iter().find(|member| member.name == name)
}

/// A member of the wrong kind: its JSON pointer, which names known members and indexes only, and what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WrongKind {
    pub(crate) pointer: String,
    pub(crate) expected: &'static str,
}

impl WrongKind {
    fn here(expected: &'static str) -> Self {
        Self { pointer: String::new(), expected }
    }

    fn below(self, step: &dyn Display) -> Self {
        Self { pointer: format!("/{step}{}", self.pointer), ..self }
    }
}

/// Checks that every known member below `value` is of its kind; `null` counts as absent (card §6.6).
pub(crate) fn check(value: &Value, kind: &Kind) -> Result<(), WrongKind> {
    match (kind, value) {
        (Kind::Any, _)
        | (Kind::Text, Value::String(_))
        | (Kind::Flag, Value::Bool(_))
        | (Kind::Open(_), Value::Object(_)) => Ok(()),
        (Kind::Text, _) => Err(WrongKind::here("a string")),
        (Kind::Flag, _) => Err(WrongKind::here("true or false")),
        (Kind::List(of), Value::Array(elements)) => elements
            .iter()
            .enumerate()
            .try_for_each(|(n, element)| check(element, of).map_err(|wrong| wrong.below(&n))),
        (Kind::List(_), _) => Err(WrongKind::here("an array")),
        (Kind::Map(of), Value::Object(members)) => members
            .iter()
            .filter(|(_, member)| !member.is_null())
            .try_for_each(|(_, member)| check(member, of).map_err(|wrong| wrong.below(&"*"))),
        (Kind::Object(known), Value::Object(members)) => members
            .iter()
            .filter(|(_, member)| !member.is_null())
            .filter_map(|(name, member)| find(known, name).map(|entry| (entry, member)))
            .try_for_each(|(entry, member)| {
                check(member, &entry.kind).map_err(|wrong| wrong.below(&entry.name))
            }),
        (Kind::Map(_) | Kind::Object(_) | Kind::Open(_), _) => Err(WrongKind::here("an object")),
    }
}

/// Which members [`reduce`] keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fields {
    /// Everything in the table: what is stored (card §2.3).
    Known,
    /// The legacy field set (card §8.2).
    Legacy,
}

/// `value` reduced to members of the table, `null` members left out. Content of free kind stays as it is.
pub(crate) fn reduce(value: &Value, kind: &Kind, fields: Fields) -> Value {
    match (kind, value) {
        (Kind::List(of), Value::Array(elements)) => {
            Value::Array(elements.iter().map(|element| reduce(element, of, fields)).collect())
        }
        (Kind::Map(of), Value::Object(members)) => Value::Object(
            members
                .iter()
                .filter(|(_, member)| matches!(of, Kind::Any) || !member.is_null())
                .map(|(name, member)| (name.clone(), reduce(member, of, fields)))
                .collect(),
        ),
        (Kind::Object(known), Value::Object(members)) => Value::Object(
            members
                .iter()
                .filter(|(_, member)| !member.is_null())
                .filter_map(|(name, member)| {
                    let entry = find(known, name).filter(|entry| entry.legacy || fields == Fields::Known)?;
                    Some((name.clone(), reduce(member, &entry.kind, fields)))
                })
                .collect(),
        ),
        _ => value.clone(),
    }
}

//! Who owns an environment variable, and what has to change in each container (MLflow §7.1, §7.2). Pure.
//!
//! The rule that everything here serves: a container never ends up with half of the set. Either it has server and
//! experiment from us, all of them with one meaning, or it has none of them from us.

use api_types::mlflow::Field;
use rest_client::base_url::BaseUrl;

/// One value per [`Field`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Values {
    uri: Option<String>,
    auth: Option<String>,
    id: Option<String>,
    name: Option<String>,
}

impl Values {
    /// The value of a field.
    pub fn get(&self, field: Field) -> Option<&str> {
        match field {
            Field::TrackingUri => self.uri.as_deref(),
            Field::TrackingAuth => self.auth.as_deref(),
            Field::ExperimentId => self.id.as_deref(),
            Field::ExperimentName => self.name.as_deref(),
        }
    }

    /// Sets or clears a field.
    pub fn set(&mut self, field: Field, value: Option<String>) {
        let slot = match field {
            Field::TrackingUri => &mut self.uri,
            Field::TrackingAuth => &mut self.auth,
            Field::ExperimentId => &mut self.id,
            Field::ExperimentName => &mut self.name,
        };
        *slot = value;
    }

    /// The same with one field set.
    #[must_use]
    pub fn with(mut self, field: Field, value: impl Into<String>) -> Self {
        self.set(field, Some(value.into()));
        self
    }

    /// True without any value.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a container says about one variable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Held {
    /// Nothing.
    #[default]
    Absent,
    /// A literal value; `at` is its index in `env`.
    Literal {
        /// The value.
        value: Box<str>,
        /// Index in `env`.
        at: u16,
    },
    /// `valueFrom`, at this index.
    Reference {
        /// Index in `env`.
        at: u16,
    },
    /// The variable is listed more than once, which only its user can put right.
    Repeated,
}

/// A regular container as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Container {
    /// Its name.
    pub name: Box<str>,
    /// It has a list `env`.
    pub has_env: bool,
    held: [Held; 4],
}

impl Container {
    /// Reads the entries of `env`: name, and the literal value or `None` for a reference.
    pub fn new<'e>(
        name: &str,
        has_env: bool,
        env: impl IntoIterator<Item = (&'e str, Option<&'e str>)>,
    ) -> Self {
        let mut container = Self { name: name.into(), has_env, held: Default::default() };
        for (at, (variable, value)) in env.into_iter().enumerate() {
            let Some(field) = Field::of_variable(variable) else { continue };
            let at = at as u16;
            let slot = container.slot(field);
            *slot = match (&*slot, value) {
                (Held::Absent, Some(value)) => Held::Literal { value: value.into(), at },
                (Held::Absent, None) => Held::Reference { at },
                _ => Held::Repeated,
            };
        }
        container
    }

    fn slot(&mut self, field: Field) -> &mut Held {
        let [uri, auth, id, name] = &mut self.held;
        match field {
            Field::TrackingUri => uri,
            Field::TrackingAuth => auth,
            Field::ExperimentId => id,
            Field::ExperimentName => name,
        }
    }

    /// What it says about a variable.
    pub fn held(&self, field: Field) -> &Held {
        let [uri, auth, id, name] = &self.held;
        match field {
            Field::TrackingUri => uri,
            Field::TrackingAuth => auth,
            Field::ExperimentId => id,
            Field::ExperimentName => name,
        }
    }
}

/// `--mlflow-env-policy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Policy {
    /// A variable that the user set is never changed.
    #[default]
    Preserve,
    /// As the previous operator: everything is overwritten.
    Overwrite,
}

/// `--mlflow-inject-mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Variables in the pod template.
    #[default]
    Template,
    /// Annotations only; the webhook adds the variables to Pods.
    Annotations,
}

/// Who a variable of a container belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// It is absent.
    Nobody,
    /// We (or the previous operator) wrote it, or it says what we would write.
    Ours,
    /// Its user wrote it.
    User,
}

/// What to do with one variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Set the desired literal; true = take a `valueFrom` away with it.
    Set(bool),
    /// Remove the entry.
    Remove,
}

/// Changes of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerChange {
    /// Index of the container.
    pub index: usize,
    /// In the order of [`Field::ALL`]; never empty.
    pub actions: Vec<(Field, Action)>,
}

/// What to do with the containers of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Only containers that change.
    pub changes: Vec<ContainerChange>,
    /// How many containers get (or already have, or will get at admission) the set.
    pub configured: usize,
    /// Containers in which something of the user's was left alone.
    pub preserved: Vec<String>,
    /// Names of the containers annotation that no container has.
    pub unknown: Vec<String>,
}

/// The settings of one plan.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules<'a> {
    /// What to do with variables of the user.
    pub policy: Policy,
    /// Where the variables go.
    pub mode: Mode,
    /// Only these containers (annotation `mlflow.kagenti.io/containers`); `None` = all.
    pub only: Option<&'a str>,
}

/// Owner of one variable, given what was recorded on the template before this change.
pub fn owner(field: Field, held: &Held, recorded: &Values, desired: &Values) -> Owner {
    let value = match held {
        Held::Absent => return Owner::Nobody,
        Held::Reference { .. } | Held::Repeated => return Owner::User,
        Held::Literal { value, .. } => &**value,
    };
    let ours = [recorded, desired].into_iter().any(|known| says(field, value, known.get(field)));
    if ours { Owner::Ours } else { Owner::User }
}

/// Two spellings of one address are one address (MLflow §4).
fn says(field: Field, value: &str, wanted: Option<&str>) -> bool {
    wanted
        .is_some_and(|wanted| value == wanted || (field == Field::TrackingUri && same_address(value, wanted)))
}

/// Equal in the normal form of addresses.
pub fn same_address(a: &str, b: &str) -> bool {
    a == b || matches!((BaseUrl::parse(a), BaseUrl::parse(b)), (Ok(a), Ok(b)) if a == b)
}

/// What has to change so that the containers have `desired`. A field without desired value is wanted nowhere.
pub fn plan(containers: &[Container], recorded: &Values, desired: &Values, rules: Rules<'_>) -> Plan {
    let only: Option<Vec<&str>> =
        rules.only.map(|list| list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect());
    let mut plan = Plan::default();
    if let Some(only) = &only {
        let known = |name: &&&str| containers.iter().any(|container| *container.name == ***name);
        plan.unknown = only.iter().filter(|name| !known(name)).map(|name| (*name).to_owned()).collect();
    }
    for (index, container) in containers.iter().enumerate() {
        let wanted = only.as_ref().is_none_or(|only| only.contains(&&*container.name));
        let owner_of = |field: Field| owner(field, container.held(field), recorded, desired);
        let users = |field: Field| match rules.policy {
            Policy::Preserve => owner_of(field) == Owner::User,
            // A patch names an entry by its variable, so it cannot tell two of them apart.
            Policy::Overwrite => *container.held(field) == Held::Repeated,
        };
        let taken = wanted && Field::ALL.into_iter().any(|field| field.must_agree() && users(field));
        if wanted && Field::ALL.into_iter().any(users) {
            plan.preserved.push(container.name.to_string());
        }
        let configured = wanted && !taken;
        plan.configured += usize::from(configured);
        let inject = configured && rules.mode == Mode::Template;
        // In annotations mode a lone variable may be the user's own; only the set is certainly ours.
        let leaves = configured
            && rules.mode == Mode::Annotations
            && Field::ALL.into_iter().any(|field| field.must_agree() && owner_of(field) != Owner::Ours);
        let actions: Vec<_> = Field::ALL
            .into_iter()
            .filter_map(|field| {
                let value = desired.get(field).filter(|_| inject);
                let removable = || !leaves && certainly_ours(field, owner_of);
                action(container.held(field), owner_of(field), value, rules.policy, removable)
                    .map(|action| (field, action))
            })
            .collect();
        if !actions.is_empty() {
            plan.changes.push(ContainerChange { index, actions });
        }
    }
    plan
}

fn action(
    held: &Held,
    owner: Owner,
    value: Option<&str>,
    policy: Policy,
    removable: impl FnOnce() -> bool,
) -> Option<Action> {
    let Some(value) = value else {
        // Not wanted here: what we wrote goes, what merely says the same stays the user's.
        return (owner == Owner::Ours && removable()).then_some(Action::Remove);
    };
    match (held, owner) {
        (Held::Absent, _) => Some(Action::Set(false)),
        (Held::Literal { value: now, .. }, _) if **now == *value => None,
        (Held::Literal { value: now, .. }, Owner::Ours) => {
            (!same_address(now, value)).then_some(Action::Set(false))
        }
        (Held::Literal { .. }, _) => (policy == Policy::Overwrite).then_some(Action::Set(false)),
        (Held::Reference { .. }, _) => (policy == Policy::Overwrite).then_some(Action::Set(true)),
        (Held::Repeated, _) => None,
    }
}

/// Ours beyond doubt. A short number, or the usual way to authenticate, may be the user's by chance: they count only
/// beside an address or a name of ours.
fn certainly_ours(field: Field, owner_of: impl Fn(Field) -> Owner) -> bool {
    let ours = |field| owner_of(field) == Owner::Ours;
    let strong = [Field::TrackingUri, Field::ExperimentName];
    ours(field) && (strong.contains(&field) || strong.into_iter().any(ours))
}

/// What un-enrolment removes: the variables whose literal is the recorded one (MLflow §9).
pub fn withdrawal(containers: &[Container], recorded: &Values) -> Vec<ContainerChange> {
    let nothing = Values::default();
    let change = |(index, container): (usize, &Container)| {
        let owner_of = |field: Field| owner(field, container.held(field), recorded, &nothing);
        let actions: Vec<_> = Field::ALL
            .into_iter()
            .filter(|field| certainly_ours(*field, owner_of))
            .map(|field| (field, Action::Remove))
            .collect();
        (!actions.is_empty()).then_some(ContainerChange { index, actions })
    };
    containers.iter().enumerate().filter_map(change).collect()
}

#[cfg(test)]
mod tests;

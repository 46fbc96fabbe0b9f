use super::*;
use proptest::prelude::*;
use rstest::rstest;

const URI: &str = "https://m.example.com/mlflow";

fn desired() -> Values {
    Values::default()
        .with(Field::TrackingUri, URI)
        .with(Field::TrackingAuth, "kubernetes-namespaced")
        .with(Field::ExperimentId, "12")
        .with(Field::ExperimentName, "weather")
}

fn former() -> Values {
    Values::default()
        .with(Field::TrackingUri, "https://old.example.com")
        .with(Field::TrackingAuth, "kubernetes-namespaced")
        .with(Field::ExperimentId, "3")
        .with(Field::ExperimentName, "weather")
}

fn container(name: &str, env: &[(&str, Option<&str>)]) -> Container {
    Container::new(name, !env.is_empty(), env.iter().copied())
}

/// The whole set as a list of variables.
fn set_of(values: &Values) -> Vec<(&'static str, Option<&str>)> {
    Field::ALL.into_iter().filter_map(|f| values.get(f).map(|v| (f.variable(), Some(v)))).collect()
}

/// What the containers hold once the plan is carried out.
fn applied(containers: &[Container], desired: &Values, plan: &Plan) -> Vec<Container> {
    let mut after = containers.to_vec();
    for change in &plan.changes {
        for (field, action) in &change.actions {
            *after[change.index].slot(*field) = match action {
                Action::Remove => Held::Absent,
                Action::Set(_) => Held::Literal { value: desired.get(*field).unwrap().into(), at: 0 },
            };
        }
    }
    after
}

fn actions(plan: &Plan) -> Vec<(Field, Action)> {
    plan.changes.iter().flat_map(|change| change.actions.clone()).collect()
}

/// MLflow §7.2, the table: one variable, nothing else there.
#[rstest]
#[case::absent(Held::Absent, Owner::Nobody)]
#[case::desired(Held::Literal { value: "12".into(), at: 0 }, Owner::Ours)]
#[case::recorded(Held::Literal { value: "3".into(), at: 0 }, Owner::Ours)]
#[case::other(Held::Literal { value: "99".into(), at: 0 }, Owner::User)]
#[case::empty(Held::Literal { value: "".into(), at: 0 }, Owner::User)]
#[case::reference(Held::Reference { at: 0 }, Owner::User)]
#[case::repeated(Held::Repeated, Owner::User)]
fn ownership(#[case] held: Held, #[case] want: Owner) {
    assert_eq!(owner(Field::ExperimentId, &held, &former(), &desired()), want);
}

/// MLflow §7.1: every regular container, in the fixed order.
#[test]
fn an_empty_container_gets_the_set_in_order() {
    let plan = plan(&[container("agent", &[])], &Values::default(), &desired(), Rules::default());
    let fields: Vec<_> = actions(&plan).into_iter().map(|(field, _)| field).collect();
    assert_eq!(fields, Field::ALL);
    assert_eq!((plan.configured, plan.preserved.len()), (1, 0));
}

/// MLflow §7.1: with auth `none` there is no auth variable, and one of ours goes.
#[test]
fn without_auth_there_is_no_auth_variable() {
    let mut without = desired();
    without.set(Field::TrackingAuth, None);
    let fresh = plan(&[container("a", &[])], &Values::default(), &without, Rules::default());
    assert!(actions(&fresh).iter().all(|(field, _)| *field != Field::TrackingAuth));
    let written = container("a", &set_of(&desired()));
    let change = plan(&[written], &desired(), &without, Rules::default());
    assert_eq!(actions(&change), [(Field::TrackingAuth, Action::Remove)]);
    let own = container("a", &[("MLFLOW_TRACKING_AUTH", Some("mine"))]);
    let kept = plan(&[own], &desired(), &without, Rules::default());
    assert!(actions(&kept).iter().all(|(field, _)| *field != Field::TrackingAuth));
}

/// Scenario 7 and the group rule: a user's server with our experiment would break the SDK.
#[rstest]
#[case::uri("MLFLOW_TRACKING_URI", Some("http://mine"))]
#[case::uri_reference("MLFLOW_TRACKING_URI", None)]
#[case::id("MLFLOW_EXPERIMENT_ID", Some("99"))]
#[case::name("MLFLOW_EXPERIMENT_NAME", Some("mine"))]
fn a_users_value_keeps_ours_out(#[case] variable: &str, #[case] value: Option<&str>) {
    let containers = [container("agent", &[(variable, value)]), container("helper", &[])];
    let plan = plan(&containers, &Values::default(), &desired(), Rules::default());
    assert_eq!(plan.changes.iter().map(|change| change.index).collect::<Vec<_>>(), [1]);
    assert_eq!(plan.configured, 1);
    assert_eq!(plan.preserved, ["agent"]);
}

/// Ours goes from a container whose user takes one of the three over.
#[test]
fn a_user_who_takes_over_gets_ours_removed() {
    let before = former();
    let mut env = set_of(&before);
    env[0].1 = Some("http://mine");
    let plan = plan(&[container("agent", &env)], &former(), &desired(), Rules::default());
    assert_eq!(
        actions(&plan),
        [
            (Field::TrackingAuth, Action::Remove),
            (Field::ExperimentId, Action::Remove),
            (Field::ExperimentName, Action::Remove)
        ]
    );
    assert_eq!(plan.configured, 0);
}

#[test]
fn a_users_auth_is_kept_and_the_rest_added() {
    let own = container("agent", &[("MLFLOW_TRACKING_AUTH", Some("mine"))]);
    let plan = plan(&[own], &Values::default(), &desired(), Rules::default());
    let fields: Vec<_> = actions(&plan).into_iter().map(|(field, _)| field).collect();
    assert_eq!(fields, [Field::TrackingUri, Field::ExperimentId, Field::ExperimentName]);
    assert_eq!(plan.preserved, ["agent"]);
}

/// Scenario 7, second half: the variable becomes a literal and `valueFrom` is gone.
#[test]
fn overwrite_takes_everything() {
    let rules = Rules { policy: Policy::Overwrite, ..Rules::default() };
    let own = container(
        "agent",
        &[
            ("MLFLOW_TRACKING_URI", None),
            ("MLFLOW_EXPERIMENT_ID", Some("99")),
            ("MLFLOW_EXPERIMENT_NAME", Some("weather")),
        ],
    );
    let plan = plan(&[own], &Values::default(), &desired(), rules);
    assert_eq!(
        actions(&plan),
        [
            (Field::TrackingUri, Action::Set(true)),
            (Field::TrackingAuth, Action::Set(false)),
            (Field::ExperimentId, Action::Set(false))
        ]
    );
    assert!(plan.preserved.is_empty());
}

/// A variable listed twice cannot be patched by its name: nothing of the set is written beside it.
#[rstest]
#[case(Policy::Preserve)]
#[case(Policy::Overwrite)]
fn a_repeated_variable_keeps_ours_out(#[case] policy: Policy) {
    let twice = container("a", &[("MLFLOW_EXPERIMENT_ID", Some("1")), ("MLFLOW_EXPERIMENT_ID", Some("12"))]);
    let plan = plan(&[twice], &Values::default(), &desired(), Rules { policy, ..Rules::default() });
    assert_eq!((plan.changes.len(), plan.configured), (0, 0));
    assert_eq!(plan.preserved, ["a"]);
}

/// MLflow §4: the previous operator wrote the address with a slash; nothing rolls because of it.
#[test]
fn another_spelling_of_the_address_is_left() {
    let recorded = desired().with(Field::TrackingUri, "https://M.example.com:443/mlflow/");
    let plan = plan(&[container("a", &set_of(&recorded))], &recorded, &desired(), Rules::default());
    assert_eq!(plan.changes, []);
    assert_eq!(plan.configured, 1);
}

/// MLflow §7.1: the annotation that limits the containers; ours goes from the others.
#[test]
fn only_the_named_containers() {
    let containers = [container("a", &[]), container("b", &set_of(&desired())), container("c", &[])];
    let rules = Rules { only: Some(" a, x,, "), ..Rules::default() };
    let plan = plan(&containers, &desired(), &desired(), rules);
    assert_eq!(plan.changes.iter().map(|change| change.index).collect::<Vec<_>>(), [0, 1]);
    assert!(plan.changes[1].actions.iter().all(|(_, action)| *action == Action::Remove));
    assert_eq!((plan.configured, plan.unknown), (1, vec!["x".to_owned()]));
}

/// MLflow §7.3: in annotations mode our variables go, a lone one of the user's stays.
#[test]
fn annotations_mode_leaves_no_variable_of_ours() {
    let rules = Rules { mode: Mode::Annotations, ..Rules::default() };
    let lone = container("lone", &[("MLFLOW_TRACKING_URI", Some(URI))]);
    let containers = [container("ours", &set_of(&desired())), container("none", &[]), lone];
    let plan = plan(&containers, &desired(), &desired(), rules);
    assert_eq!(plan.changes.iter().map(|change| change.index).collect::<Vec<_>>(), [0]);
    assert_eq!((actions(&plan).len(), plan.configured), (4, 3));
}

/// The user's own server may have an experiment of the same number, and authenticate alike.
#[test]
fn values_that_are_equal_by_chance_stay() {
    let env = [
        ("MLFLOW_TRACKING_URI", Some("http://mine")),
        ("MLFLOW_EXPERIMENT_ID", Some("12")),
        ("MLFLOW_TRACKING_AUTH", Some("kubernetes-namespaced")),
    ];
    let plan = plan(&[container("a", &env)], &desired(), &desired(), Rules::default());
    assert_eq!((plan.changes, plan.configured), (vec![], 0));
    assert_eq!(withdrawal(&[container("a", &env)], &desired()), []);
}

/// Scenario 15: a value that the user changed stays.
#[test]
fn withdrawal_takes_what_was_recorded() {
    let written = desired();
    let mut env = set_of(&written);
    env[3].1 = Some("mine");
    let changes = withdrawal(&[container("a", &env), container("b", &[("X", Some("12"))])], &desired());
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].actions.len(), 3);
    assert!(changes[0].actions.iter().all(|(field, _)| *field != Field::ExperimentName));
}

fn held() -> impl Strategy<Value = Option<Option<&'static str>>> {
    prop_oneof![
        Just(None),
        Just(Some(None)),
        prop::sample::select(vec!["12", "3", "weather", "kubernetes-namespaced", URI, "http://mine", ""])
            .prop_map(|value| Some(Some(value))),
    ]
}

fn some_container() -> impl Strategy<Value = Container> {
    prop::collection::vec(held(), 4).prop_map(|held| {
        let env: Vec<_> = Field::ALL
            .into_iter()
            .zip(held)
            .filter_map(|(field, held)| held.map(|value| (field.variable(), value)))
            .collect();
        container("c", &env)
    })
}

proptest! {
    /// Never a half-updated container: afterwards the three are all as desired, or none of them is one that we
    /// wrote, now or before; and a second look changes nothing.
    #[test]
    fn a_container_is_whole_or_the_users(
        containers in prop::collection::vec(some_container(), 1..4),
        overwrite: bool,
        known: bool,
    ) {
        let policy = if overwrite { Policy::Overwrite } else { Policy::Preserve };
        let rules = Rules { policy, ..Rules::default() };
        let recorded = if known { former() } else { Values::default() };
        let first = plan(&containers, &recorded, &desired(), rules);
        let after = applied(&containers, &desired(), &first);
        for (before, after) in containers.iter().zip(&after) {
            let three = || Field::ALL.into_iter().filter(|field| field.must_agree());
            let whole = three().all(|field| owner(field, after.held(field), &Values::default(), &desired()) == Owner::Ours);
            let untouched = three().all(|field| {
                *after.held(field) == Held::Absent || after.held(field) == before.held(field)
            });
            // An address or a name of ours never stays beside a user's value; a number may be there by chance.
            let none_of_ours = [Field::TrackingUri, Field::ExperimentName]
                .into_iter()
                .all(|field| owner(field, after.held(field), &recorded, &desired()) != Owner::Ours);
            prop_assert!(whole || (untouched && none_of_ours), "{:?} -> {:?}", before, after);
        }
        let second = plan(&after, &desired(), &desired(), rules);
        prop_assert_eq!(&second.changes, &[]);
        prop_assert_eq!(second.configured, first.configured);
    }
}

//! One agent: experiment, then permission, then the workload (MLflow §7.3).

use std::{sync::Arc, time::Duration};

use api_types::{injection::PodFacts, mlflow::Field};
use controller_kit::backoff::jitter;
use tokio::time::Instant;

use crate::{
    announce,
    conditions::{Report, reason},
    context::Context,
    env::{self, Mode, Plan, Rules, Values},
    error::Error,
    granting::{self, Granted},
    leaving, naming,
    reconcile::Next,
    server::{NoServer, Server},
    sources::{Source, State},
    template::{Written, write_template},
    track::{Identity, Known, Track},
    tracking::{Code, Failure, Found, Pace, Problem, Usage},
    workload::Workload,
    write,
};

/// When to look again at what somebody has to put right in Kubernetes.
pub(crate) const BLOCKED: Duration = Duration::from_secs(300);

/// How a pass over an agent ended.
pub(crate) struct Done {
    report: Option<Report>,
    next: Next,
    /// It waits for the limiter, in which it has a place.
    queued: bool,
}

impl Done {
    pub(crate) fn with(report: Report, next: Next) -> Self {
        Self { report: Some(report), next, queued: false }
    }

    /// Look again, without anything to say.
    pub(crate) fn again(after: Duration) -> Self {
        Self { report: None, next: Some(after), queued: false }
    }

    /// The same, with a place in the limiter to be kept.
    pub(crate) fn in_queue(self) -> Self {
        Self { queued: true, ..self }
    }
}

/// Configures an agent.
///
/// # Errors
/// What a retry may fix.
pub async fn configure(ctx: &Context, workload: Arc<Workload>, mode: Mode) -> Result<Next, Error> {
    ctx.tracks.with(&workload, |track| track.leaving_since = None);
    let done = attempt(ctx, &workload, mode).await?;
    if !done.queued {
        // Nothing is left to write, or something else is waited for: nobody waits behind it.
        ctx.limiter.forget(&workload.key);
    }
    if let Some(report) = &done.report {
        ctx.tracks.with(&workload, |track| track.state = Some(report.state()));
        write::condition(ctx, &workload.key, Some(report)).await?;
    }
    Ok(done.next)
}

async fn attempt(ctx: &Context, workload: &Arc<Workload>, mode: Mode) -> Result<Done, Error> {
    let recorded = workload.recorded();
    if ctx.settings.mlflow_tracking_uri.is_none() {
        match ctx.sources.state(Source::Servers, &workload.key.namespace) {
            State::Synced => {}
            State::Pending => return Err(Error::NotSynced("mlflows")),
            State::Troubled(why) => {
                return Ok(Done::with(
                    unavailable(&format!("MLflow objects cannot be read: {why}")),
                    Some(BLOCKED),
                ));
            }
        }
    }
    let server = match ctx.index.servers.choose(recorded.get(Field::TrackingUri)) {
        Ok(server) => server,
        Err(why) => return Ok(Done::with(no_server(why), None)),
    };
    let held = ctx.tracks.with(workload, |track| track.held(workload, &server.url, Instant::now()));
    if let Some((problem, rest)) = held {
        let report = problem_report(&problem, is_settled(&recorded, &server));
        return Ok(Done { report, next: Some(rest), queued: false });
    }
    // Twice at most: a server that turns out to have no workspaces is used without.
    for _ in 0..2 {
        match on_server(ctx, workload, mode, &server, &recorded).await? {
            Ok(done) => return Ok(done),
            Err(Failure::NoWorkspaces) => {}
            Err(Failure::Problem(problem)) => return Ok(failed(ctx, workload, &server, &recorded, &problem)),
        }
    }
    let text = format!("MLflow server {} has workspaces switched on and off in turn", server.url);
    Ok(failed(ctx, workload, &server, &recorded, &Problem::new(Code::ServerUnavailable, text)))
}

fn unavailable(text: &str) -> Report {
    Report::new(reason::UNAVAILABLE, text)
}

fn no_server(why: NoServer) -> Report {
    unavailable(match why {
        NoServer::Nothing => {
            "No MLflow object is Available with a usable address: install MLflow, or set --mlflow-tracking-uri"
        }
        NoServer::OwnUnavailable => "The MLflow object of this workload is not Available; nothing is changed",
    })
}

/// Notes what went wrong with the server, and says it.
fn failed(
    ctx: &Context,
    workload: &Arc<Workload>,
    server: &Server,
    recorded: &Values,
    problem: &Problem,
) -> Done {
    let now = Instant::now();
    let next = ctx.tracks.with(workload, |track| track.failed(workload, &server.url, problem, now));
    let report = problem_report(problem, is_settled(recorded, server));
    // An agent that has its experiment works on, whatever the server does meanwhile.
    if report.is_some() {
        announce::experiment_failed(ctx, workload, problem);
    }
    Done { report, next: Some(next), queued: false }
}

/// The workload has an experiment on this server.
fn is_settled(recorded: &Values, server: &Server) -> bool {
    recorded.get(Field::ExperimentId).is_some()
        && recorded.get(Field::TrackingUri).is_some_and(|uri| env::same_address(uri, &server.text))
}

/// What a problem means for the condition; `None` = what was said before stays true.
fn problem_report(problem: &Problem, settled: bool) -> Option<Report> {
    match (problem.code, problem.code.pace()) {
        (_, Pace::Transient) if settled => None,
        (_, Pace::Transient) => Some(Report::new(reason::PENDING, format!("{problem}; it is tried again"))),
        (Code::ExperimentNameTaken, _) => {
            Some(Report::new(reason::EXPERIMENT_NAME_TAKEN, problem.to_string()))
        }
        _ => Some(Report::new(reason::EXPERIMENT_FAILED, problem.to_string())),
    }
}

async fn on_server(
    ctx: &Context,
    workload: &Arc<Workload>,
    mode: Mode,
    server: &Server,
    recorded: &Values,
) -> Result<Result<Done, Failure>, Error> {
    let usage = match ctx.tracking.usage(server).await {
        Ok(usage) => usage,
        Err(problem) => return Ok(Err(problem.into())),
    };
    let template = &ctx.settings.mlflow_experiment_name_template;
    let name = match naming::experiment(workload, template, usage.workspaces) {
        Ok(name) => name,
        Err(error) => return Ok(Err(Problem::new(Code::InvalidRequest, error.to_string()).into())),
    };
    let rules = rules(ctx, workload, mode);
    let mut desired =
        Values::default().with(Field::TrackingUri, &server.text).with(Field::ExperimentName, &name);
    desired.set(Field::TrackingAuth, usage.auth.clone());
    let before = env::plan(&workload.containers, recorded, &desired, rules);
    if before.configured == 0 {
        return user_managed(ctx, workload, &before).await.map(Ok);
    }
    // Making an experiment is a write, too.
    ctx.may_write()?;
    let identity = Identity { server: server.url.clone(), workspaces: usage.workspaces, name };
    let experiment =
        match experiment(ctx, workload, server, &usage, identity, (recorded, &desired, rules)).await {
            Ok(experiment) => experiment,
            Err(failure) => return Ok(Err(failure)),
        };
    desired.set(Field::ExperimentId, Some(experiment.id.clone()));
    apply(ctx, workload, mode, &usage, &desired, &experiment).await.map(Ok)
}

pub(crate) fn rules<'w>(ctx: &Context, workload: &'w Workload, mode: Mode) -> Rules<'w> {
    Rules { policy: ctx.settings.mlflow_env_policy, mode, only: workload.only.as_deref() }
}

/// The experiment of this pass.
struct Experiment {
    id: String,
    /// What went wrong when it was looked for; it is used nevertheless.
    problem: Option<Problem>,
    /// When to look for it again.
    next: Next,
}

/// The experiment that is known, or one from the server.
async fn experiment(
    ctx: &Context,
    workload: &Arc<Workload>,
    server: &Server,
    usage: &Usage,
    identity: Identity,
    (recorded, desired, rules): (&Values, &Values, Rules<'_>),
) -> Result<Experiment, Failure> {
    let period = ctx.settings.mlflow_resync_period;
    let key = &workload.key;
    let known = ctx.tracks.with(workload, |track| track.known.clone());
    let known = known.filter(|known| known.identity == identity).or_else(|| {
        let id = trusted(ctx, workload, &identity, recorded, desired, rules)?;
        // After a restart the looks are spread over the whole period.
        let verify_at = (!period.is_zero()).then(|| Instant::now() + period.mul_f64(fastrand::f64()));
        Some(Known { identity: identity.clone(), id, verify_at })
    });
    let (mut known, mut problem) = (known, None);
    if let Some(held) = &known
        && held.verify_at.is_some_and(|at| at <= Instant::now())
    {
        match ctx.tracking.verify(server, usage, key, &identity.name, &held.id).await {
            Ok(found @ (Found::There | Found::Restored)) => {
                if found == Found::Restored {
                    tracing::info!(workload = %key, experiment = %held.id, "a deleted experiment is restored");
                }
                ctx.tracks.with(workload, Track::succeeded);
                known = Some(Known { verify_at: next_look(period), ..held.clone() });
            }
            Ok(Found::Lost) => {
                tracing::warn!(workload = %key, experiment = %held.id, "the MLflow server lost the experiment");
                ctx.tracks.with(workload, |track| track.lost = true);
                known = None;
            }
            Err(Failure::NoWorkspaces) => return Err(Failure::NoWorkspaces),
            // The workload has its experiment; its own parts are kept in order meanwhile.
            Err(Failure::Problem(found)) => problem = Some(found),
        }
    }
    let known = if let Some(known) = known {
        known
    } else {
        let id = ctx.tracking.provision(server, usage, key, &identity.name).await?;
        ctx.tracks.with(workload, Track::succeeded);
        Known { identity, id, verify_at: next_look(period) }
    };
    let mut next = known.verify_at.map(|at| at.saturating_duration_since(Instant::now()));
    let id = known.id.clone();
    ctx.tracks.with(workload, |track| {
        track.known = Some(known);
        if let Some(problem) = &problem {
            next = Some(track.failed(workload, &server.url, problem, Instant::now()));
            // A hold would keep the next pass from repairing what is ours.
            track.hold = None;
            if let (Some(known), Some(delay)) = (&mut track.known, next) {
                known.verify_at = Some(Instant::now() + delay);
            }
        }
    });
    Ok(Experiment { id, problem, next })
}

fn next_look(period: Duration) -> Option<Instant> {
    (!period.is_zero()).then(|| Instant::now() + jitter(period, 0.2))
}

/// The recorded id, when it may be believed without asking: everything on the workload agrees with it, and the
/// workload is older than the work of this process. Annotations of a new workload may be anybody's idea.
fn trusted(
    ctx: &Context,
    workload: &Workload,
    identity: &Identity,
    recorded: &Values,
    desired: &Values,
    rules: Rules<'_>,
) -> Option<String> {
    let id = recorded.get(Field::ExperimentId).filter(|id| !id.is_empty())?;
    let same = recorded.get(Field::ExperimentName) == Some(&*identity.name)
        && recorded.get(Field::TrackingUri) == desired.get(Field::TrackingUri)
        && recorded.get(Field::TrackingAuth) == desired.get(Field::TrackingAuth);
    let started = ctx.started();
    let older = workload.created.is_some_and(|created| created < started);
    let wanted = desired.clone().with(Field::ExperimentId, id);
    let in_place = || env::plan(&workload.containers, recorded, &wanted, rules).changes.is_empty();
    (same && older && in_place()).then(|| id.to_owned())
}

/// Every container has a user's own settings: nothing of ours belongs there, and no experiment is made.
async fn user_managed(ctx: &Context, workload: &Arc<Workload>, plan: &Plan) -> Result<Done, Error> {
    let removed = granting::withdraw(ctx, workload).await?;
    let mut next = None;
    if workload.is_marked() {
        let uid = workload.uid.clone();
        next = leaving::strip(ctx, workload.clone(), |live| live.uid == uid).await?;
    }
    announce::oddities(ctx, workload, plan, None, removed);
    let text = "Every container has MLflow settings of its user's own; nothing is added";
    let done = Done::with(Report::new(reason::USER_MANAGED, text), next);
    Ok(if next.is_some() { done.in_queue() } else { done })
}

/// Permission, then the workload.
async fn apply(
    ctx: &Context,
    workload: &Arc<Workload>,
    mode: Mode,
    usage: &Usage,
    desired: &Values,
    experiment: &Experiment,
) -> Result<Done, Error> {
    let mut workload = workload.clone();
    let name = desired.get(Field::ExperimentName).unwrap_or_default();
    let mut wrote;
    let mut account = None;
    if usage.auth.is_some() {
        if granting::is_missing(ctx, &workload.key) {
            // A live read: the workload may be gone, or another one of the same name, since its experiment was asked
            // for. Only before something is created.
            match write::read_workload(ctx, &workload.key).await? {
                Some(live) if live.uid == workload.uid && live.same_for_us(&workload) => workload = live,
                _ => return Ok(Done::again(Duration::ZERO)),
            }
        }
        let subject = service_account(ctx, &workload)?;
        match granting::ensure(ctx, &workload, name, &subject).await? {
            Granted::Done(done) => wrote = done,
            Granted::Foreign(object) => {
                let note = format!("{object} belongs to somebody else: rename or delete it");
                announce::trouble(ctx, &workload, "MLflowRBACConflict", &note);
                return Ok(Done::with(Report::new(reason::RBAC_CONFLICT, note), Some(BLOCKED)));
            }
            Granted::Forbidden(text) => {
                let note = format!(
                    "{text}: the controller itself needs get and update on experiments (mlflow.kubeflow.org)"
                );
                announce::trouble(ctx, &workload, "MLflowRBACForbidden", &note);
                return Ok(Done::with(Report::new(reason::RBAC_FORBIDDEN, note), Some(BLOCKED)));
            }
        }
        account = Some(subject);
    } else {
        wrote = granting::withdraw(ctx, &workload).await?;
    }
    let written = match write_template(ctx, workload, mode, desired).await? {
        Written::Yes(workload, patched) => (workload, patched),
        Written::No(done) => return Ok(done),
    };
    let (workload, patched) = written;
    wrote |= patched;
    let id = &experiment.id;
    let server = desired.get(Field::TrackingUri).unwrap_or_default();
    let note = format!("Experiment {name:?} (id {id}) on {server}");
    if wrote {
        announce::configured(ctx, &workload, &note);
    }
    let plan = env::plan(&workload.containers, &workload.recorded(), desired, rules(ctx, &workload, mode));
    announce::oddities(ctx, &workload, &plan, account.as_deref(), wrote);
    let report = experiment.problem.as_ref().and_then(|problem| problem_report(problem, true));
    if let (Some(problem), true) = (&experiment.problem, report.is_some()) {
        announce::experiment_failed(ctx, &workload, problem);
    }
    Ok(Done::with(report.unwrap_or_else(|| Report::new(reason::CONFIGURED, note)), experiment.next))
}

/// The ServiceAccount that the Pods will have (MLflow §6.3).
fn service_account(ctx: &Context, workload: &Workload) -> Result<String, Error> {
    let runtime = ctx.index.runtime_of(&workload.key);
    let (labels, annotations) = (workload.template_labels.to_map(), workload.template_annotations.to_map());
    let pod = PodFacts {
        workload: &workload.key.name,
        labels: Some(&labels),
        annotations: Some(&annotations),
        // runtime-ctl labels the template at the same time; its Pods are what counts.
        enrolled_as: runtime.as_ref().map(|runtime| runtime.spec.workload_type.as_str()),
        service_account: workload.service_account.as_deref(),
        host_network: workload.host_network,
        ..PodFacts::default()
    };
    let spec = runtime.as_ref().map(|runtime| &runtime.spec);
    Ok(ctx.around.decide(&workload.key.namespace, pod, spec)?.service_account)
}

//! The order in which requests are used: find or make an experiment, and look whether it is still there
//! (MLflow §5.3, §9).

use rest_client::{Request, RestClient};

use super::{
    answers::{self, Answer, Code, Experiment, Problem, Reply, Sent},
    requests::{Destination, Operation},
};

/// The experiment that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its name.
    pub name: &'a str,
    /// The namespace it is for.
    pub namespace: &'a str,
    /// Kind and name of the workload it is for.
    pub workload: &'a str,
    /// A deleted one is restored.
    pub restore: bool,
}

/// Why there is no experiment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server has workspaces switched off although the request named one: ask again without.
    NoWorkspaces,
    /// Anything else.
    Problem(Problem),
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// What became of an experiment that was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is there.
    There,
    /// It was deleted and is restored.
    Restored,
    /// The id is unknown, or names another experiment: the server was set up anew.
    Lost,
}

/// Requests to one server on behalf of one workload.
#[derive(Debug)]
pub struct Session<'a> {
    /// Where they go.
    pub to: Destination<'a>,
}

impl Session<'_> {
    fn sent(&self, operation: Operation) -> Sent<'_> {
        Sent { operation, base: self.to.base, workspace: self.to.workspace, token: self.to.token }
    }

    /// Sends one request and reads the answer.
    ///
    /// # Errors
    /// [`Failure::NoWorkspaces`], or no answer.
    pub async fn ask(
        &self,
        client: &RestClient,
        operation: Operation,
        request: Request,
    ) -> Result<Answer, Failure> {
        let response =
            client.send(&request).await.map_err(|error| Problem::unanswered(&error, self.to.base))?;
        match answers::interpret(Reply::of(&response), self.sent(operation)) {
            Answer::FeatureDisabled if self.to.workspace.is_some() => Err(Failure::NoWorkspaces),
            Answer::FeatureDisabled => {
                let text = format!("MLflow server {}: {} is switched off", self.to.base, operation.path());
                Err(Problem::new(Code::RequestRejected, text).into())
            }
            answer => Ok(answer),
        }
    }

    /// Creates the experiment, or finds the one that has the name, or restores it. Gives its id.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn provision(&self, client: &RestClient, asked: Asked<'_>) -> Result<String, Failure> {
        let mut refused = None;
        // A second attempt only when the name is "taken" and then nobody has it.
        for _ in 0..2 {
            let request = self.to.create(asked.name, asked.namespace, asked.workload);
            match self.ask(client, Operation::Create, request).await? {
                Answer::Success(body) => return Ok(answers::created(&body, self.sent(Operation::Create))?),
                Answer::AlreadyExists => {}
                // It may exist and be ours to use although we may not create.
                Answer::Problem(problem) if problem.code == Code::PermissionDenied => refused = Some(problem),
                Answer::Problem(problem) => return Err(problem.into()),
                Answer::Missing | Answer::FeatureDisabled => {
                    return Err(self.odd(Operation::Create).into());
                }
            }
            match (self.look_up(client, asked).await, refused.take()) {
                (Ok(Some(experiment)), _) => return self.take(client, experiment, asked).await,
                (Ok(None) | Err(Failure::Problem(_)), Some(problem)) => return Err(problem.into()),
                (Ok(None), None) => {}
                (Err(failure), _) => return Err(failure),
            }
        }
        let text = format!(
            "MLflow server {} says that experiment {:?} exists, and then that it does not",
            self.to.base, asked.name
        );
        Err(Problem::new(Code::ServerUnavailable, text).into())
    }

    async fn look_up(&self, client: &RestClient, asked: Asked<'_>) -> Result<Option<Experiment>, Failure> {
        let answer = self.ask(client, Operation::LookUp, self.to.look_up(asked.name)).await?;
        let Some(experiment) = self.experiment(Operation::LookUp, answer)? else { return Ok(None) };
        if experiment.name == asked.name {
            Ok(Some(experiment))
        } else {
            Err(self.odd(Operation::LookUp).into())
        }
    }

    fn experiment(&self, operation: Operation, answer: Answer) -> Result<Option<Experiment>, Problem> {
        match answer {
            Answer::Success(body) => answers::experiment(&body, self.sent(operation)).map(Some),
            Answer::Missing => Ok(None),
            Answer::Problem(problem) => Err(problem),
            Answer::AlreadyExists | Answer::FeatureDisabled => Err(self.odd(operation)),
        }
    }

    /// Takes an experiment that was there already.
    async fn take(
        &self,
        client: &RestClient,
        experiment: Experiment,
        asked: Asked<'_>,
    ) -> Result<String, Failure> {
        self.may_use(&experiment, asked)?;
        if experiment.deleted {
            self.restore(client, &experiment.id, asked).await?;
        }
        Ok(experiment.id)
    }

    /// An experiment that was made for another namespace is never used. Without workspaces all namespaces share one set
    /// of names, and with them a server too old to know workspaces may ignore that one was named.
    fn may_use(&self, experiment: &Experiment, asked: Asked<'_>) -> Result<(), Problem> {
        let theirs = experiment.namespace.as_deref().filter(|namespace| *namespace != asked.namespace);
        match theirs {
            Some(namespace) => Err(Problem::new(
                Code::ExperimentNameTaken,
                format!(
                    "experiment {:?} on MLflow server {} belongs to namespace {namespace:?} (its tag \
                     kagenti.io/namespace): give this workload another name with annotation \
                     mlflow.kagenti.io/experiment",
                    asked.name, self.to.base
                ),
            )),
            None => Ok(()),
        }
    }

    async fn restore(&self, client: &RestClient, id: &str, asked: Asked<'_>) -> Result<(), Failure> {
        let deleted = |text: &str| {
            let text =
                format!("experiment {:?} on MLflow server {} is deleted {text}", asked.name, self.to.base);
            Problem::new(Code::ExperimentDeleted, text)
        };
        if !asked.restore {
            let text = "and --mlflow-restore-deleted is false: restore it in MLflow, or give this workload another \
                        name with annotation mlflow.kagenti.io/experiment";
            return Err(deleted(text).into());
        }
        match self.ask(client, Operation::Restore, self.to.restore(id)).await? {
            Answer::Success(_) => Ok(()),
            Answer::Problem(problem) => Err(problem.into()),
            Answer::AlreadyExists | Answer::FeatureDisabled => Err(self.odd(Operation::Restore).into()),
            // Somebody restored it first, which is as good.
            Answer::Missing => {
                let answer = self.ask(client, Operation::LookUp, self.to.look_up(asked.name)).await?;
                match self.experiment(Operation::LookUp, answer)? {
                    Some(experiment) if !experiment.deleted && experiment.id == id => Ok(()),
                    _ => Err(Problem::new(
                        Code::ServerUnavailable,
                        format!(
                            "experiment {:?} on MLflow server {} changes while it is restored",
                            asked.name, self.to.base
                        ),
                    )
                    .into()),
                }
            }
        }
    }

    /// Looks whether an experiment still is what it was.
    ///
    /// # Errors
    /// Why that cannot be said.
    pub async fn verify(&self, client: &RestClient, id: &str, asked: Asked<'_>) -> Result<Found, Failure> {
        let experiment = match self.ask(client, Operation::Verify, self.to.verify(id)).await? {
            // The server's ids are numbers now, or it never had this one.
            Answer::Problem(problem) if problem.code == Code::InvalidRequest => return Ok(Found::Lost),
            answer => match self.experiment(Operation::Verify, answer)? {
                Some(experiment) if experiment.name == asked.name => experiment,
                Some(_) | None => return Ok(Found::Lost),
            },
        };
        self.may_use(&experiment, asked)?;
        if !experiment.deleted {
            return Ok(Found::There);
        }
        self.restore(client, id, asked).await?;
        Ok(Found::Restored)
    }

    fn odd(&self, operation: Operation) -> Problem {
        let text = format!(
            "MLflow server {}: {} gives an answer that makes no sense",
            self.to.base,
            operation.path()
        );
        Problem::new(Code::UnexpectedResponse, text)
    }
}

//! `admin/tsdb/*`: what operators do to stored data, where the configuration has turned it on.

use std::sync::Arc;

use chronolith_model::TenantId;
use chronolith_storage::{Admin, StorageError};
use tokio::{sync::Semaphore, task::spawn_blocking};

use super::{ApiResult, in_turn, labels::read_selectors, string_object, success};
use crate::{
    error::{ApiError, ErrorKind},
    notices::cut,
    params::go_quoted,
    routes::ApiRequest,
};

/// What is said of `{}`, which selects everything or nothing depending on whom one asks.
const NO_MATCHER: &str = "match[] must contain at least one matcher";

pub(super) async fn delete_series(request: ApiRequest) -> ApiResult {
    let operator = Operator::of(&request)?;
    // All parameters are judged before anything is deleted.
    let (selectors, range) = in_turn(request, |request, _| {
        request.params.well_formed()?;
        if request.params.all("match[]").next().is_none() {
            return Err(ApiError::bad_data("no match[] parameter provided"));
        }
        let range = request.params.time_range()?;
        let mut selectors = request.state.engine().selectors();
        let of_match = |error: ApiError| match error.kind {
            ErrorKind::BadData => ApiError::parameter("match[]", error.message),
            _ => error,
        };
        read_selectors(request, &mut selectors).map_err(of_match)?;
        if selectors.sets().iter().any(Vec::is_empty) {
            return Err(of_match(ApiError::bad_data(NO_MATCHER)));
        }
        Ok((selectors, range))
    })
    .await?;
    operator
        .run("delete series", move |admin| admin.delete_series(&TenantId::default(), selectors.sets(), range))
        .await?;
    Ok(None)
}

pub(super) async fn clean_tombstones(request: ApiRequest) -> ApiResult {
    Operator::of(&request)?.run("clean tombstones", |admin| admin.clean_tombstones()).await?;
    Ok(None)
}

pub(super) async fn snapshot(request: ApiRequest) -> ApiResult {
    let operator = Operator::of(&request)?;
    let skip_head = match request.params.get("skip_head") {
        "" => false,
        text => parse_bool(text).ok_or_else(|| {
            let quoted = go_quoted(text);
            let cause =
                format!("unable to parse boolean: strconv.ParseBool: parsing {quoted}: invalid syntax");
            ApiError::parameter("skip_head", cause)
        })?,
    };
    let name = operator.run("snapshot", move |admin| admin.snapshot(skip_head)).await?;
    Ok(Some(success(|json| string_object(json, [("name", name.as_str())])).into()))
}

/// Who may do it, and what is told of it in the log.
struct Operator {
    admin: Arc<dyn Admin>,
    gate: Arc<Semaphore>,
    peer: String,
    parameters: String,
}

impl Operator {
    /// # Errors
    /// Where it is turned off, as Prometheus says it.
    fn of(request: &ApiRequest) -> Result<Self, ApiError> {
        let Some(admin) = &request.backend.admin else {
            return Err(ApiError::new(ErrorKind::Unavailable, "admin APIs disabled"));
        };
        let told = ["match[]", "start", "end", "skip_head"];
        let told = told.iter().flat_map(|name| {
            request.params.all(name).take(SELECTORS_TOLD_MAX).map(move |value| format!("{name}={value}"))
        });
        Ok(Self {
            admin: Arc::clone(admin),
            gate: Arc::clone(&request.state.gates().admin),
            peer: request.origin.client_ip(),
            parameters: cut(&told.collect::<Vec<_>>().join(" ")),
        })
    }

    /// Does `work` when its turn has come, on a thread that may block: it may take as long as all data take to be copied,
    /// and goes on when the client has gone away.
    async fn run<T: Send + 'static>(
        self,
        action: &'static str,
        work: impl FnOnce(&dyn Admin) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let Self { admin, gate, peer, parameters } = self;
        let turn = gate.acquire_owned().await.map_err(|_| ApiError::task_died())?;
        let task = spawn_blocking(move || {
            let _turn = turn;
            let done = work(&*admin);
            match &done {
                Ok(_) => tracing::info!(action, parameters, peer, "admin API"),
                Err(error) => tracing::error!(action, parameters, peer, %error, "admin API"),
            }
            done
        });
        Ok(task.await.map_err(|_| ApiError::task_died())??)
    }
}

/// How many values of a parameter the log has.
const SELECTORS_TOLD_MAX: usize = 16;

/// A boolean as Go's `strconv.ParseBool` reads it.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

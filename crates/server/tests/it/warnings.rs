//! What storage lacks is said in answers.

use std::sync::Arc;

use chronolith_model::{Labels, MetricMetadata, TenantId, TimeRange};
use chronolith_promql::EngineOptions;
use chronolith_server::{Backend, HttpLimits};
use chronolith_storage::{
    BoxFuture, LabelQuery, Limited, Querier, Queryable, SelectRequest, SeriesSet, StorageError, StorageStats,
};

use crate::harness::{NOW, Server, TestStorage, one_series};

/// Storage that lacks something.
struct Lacking(Arc<TestStorage>);

struct LackingQuerier(Arc<dyn Querier>);

impl Queryable for Lacking {
    fn querier(&self, tenant: &TenantId, range: TimeRange) -> Result<Arc<dyn Querier>, StorageError> {
        Ok(Arc::new(LackingQuerier(self.0.querier(tenant, range)?)))
    }
}

impl Querier for LackingQuerier {
    fn select<'a>(
        &'a self,
        request: &'a SelectRequest,
    ) -> BoxFuture<'a, Result<Arc<dyn SeriesSet>, StorageError>> {
        self.0.select(request)
    }

    fn label_names<'a>(
        &'a self,
        query: &'a LabelQuery,
    ) -> BoxFuture<'a, Result<Limited<String>, StorageError>> {
        self.0.label_names(query)
    }

    fn label_values<'a>(
        &'a self,
        name: &'a str,
        query: &'a LabelQuery,
    ) -> BoxFuture<'a, Result<Limited<String>, StorageError>> {
        self.0.label_values(name, query)
    }

    fn series<'a>(&'a self, query: &'a LabelQuery) -> BoxFuture<'a, Result<Limited<Labels>, StorageError>> {
        self.0.series(query)
    }

    fn metadata<'a>(
        &'a self,
        metric: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<MetricMetadata>, StorageError>> {
        self.0.metadata(metric)
    }

    fn stats(&self, limit: usize) -> StorageStats {
        self.0.stats(limit)
    }

    fn warnings(&self) -> Vec<String> {
        vec!["damaged block a is not part of the answer".to_owned()]
    }
}

#[tokio::test]
async fn answers_say_what_storage_lacks() {
    let server = Server::starting(HttpLimits::default(), EngineOptions::default());
    let queryable = Arc::new(Lacking(Arc::clone(&server.storage)));
    server.state.set_ready(Backend { queryable, ..server.backend() });
    for job in ["a", "b"] {
        let body = one_series(&[("__name__", "up"), ("job", job)], &[(NOW, 1.0)]);
        assert_eq!(server.write(body).await.status, 204);
    }
    let lacks = r#","warnings":["damaged block a is not part of the answer"]}"#;
    for target in [
        "query?query=up",
        "query?query=nosuch",
        "query_range?query=up&start=1795221262&end=1795221262&step=1",
        "labels",
        "label/job/values",
        "series?match[]=up",
    ] {
        let answer = server.get(&format!("/api/v1/{target}")).await;
        assert_eq!(answer.status, 200, "{target}");
        assert!(answer.text().ends_with(lacks), "{target}: {}", answer.text());
    }
    let both =
        r#","warnings":["damaged block a is not part of the answer","results truncated due to limit"]}"#;
    for target in ["query?query=up&limit=1", "label/job/values?limit=1", "series?match[]=up&limit=1"] {
        let answer = server.get(&format!("/api/v1/{target}")).await;
        assert!(answer.text().ends_with(both), "{target}: {}", answer.text());
    }
}

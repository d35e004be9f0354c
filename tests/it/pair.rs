//! Prometheus and Chronolith with the same features and the same data.

use anyhow::{Context, Result, ensure};
use chronolith_e2e::api::Answer;
use chronolith_e2e::http::{Client, Response};
use chronolith_e2e::peers::{Peers, chronolith_bin};
use chronolith_e2e::servers::{Kind, Server, ServerSpec};

/// Two servers that are to say the same.
pub(crate) struct Pair {
    pub(crate) reference: Server,
    pub(crate) subject: Server,
    /// Removed when the servers are gone.
    _dir: tempfile::TempDir,
}

impl Pair {
    /// Starts them with `features` on, by Prometheus' names separated by commas.
    pub(crate) fn start(peers: &Peers, features: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut reference =
            ServerSpec::new(Kind::Prometheus, &peers.prometheus(), &dir.path().join("reference"));
        reference.extra_args = vec![format!("--enable-feature=native-histograms,{features}").into()];
        let mut subject = ServerSpec::new(Kind::Chronolith, chronolith_bin(), &dir.path().join("subject"));
        let config = dir.path().join("chronolith.yml");
        std::fs::write(&config, format!("query: {{features: [{features}]}}\n"))?;
        subject.extra_args = vec!["--config".into(), config.into()];
        Ok(Self { reference: reference.start()?, subject: subject.start()?, _dir: dir })
    }

    /// Writes `bodies` to both.
    pub(crate) fn write(&self, bodies: &[Vec<u8>]) -> Result<()> {
        for server in [&self.reference, &self.subject] {
            let mut client = server.client();
            for (i, body) in bodies.iter().enumerate() {
                let response = server.write(&mut client, body)?;
                let name = server.process().name();
                ensure!(response.ok(), "{name} refused request {i}: {} {}", response.status, response.text());
            }
        }
        Ok(())
    }

    /// Clients of the reference and of the subject.
    pub(crate) fn clients(&self) -> [Client; 2] {
        [self.reference.client(), self.subject.client()]
    }
}

/// Asks `client`, and parses the answer.
pub(crate) fn ask(client: &mut Client, path: &str, form: &[(&str, &str)]) -> Result<(Answer, Response)> {
    let response = client.post_form(path, form).with_context(|| format!("{form:?}"))?;
    Ok((Answer::parse(&response).with_context(|| format!("{form:?}"))?, response))
}

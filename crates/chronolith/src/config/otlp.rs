//! `otlp`: how OpenTelemetry's metrics become samples. Keys but `enabled` are those of Prometheus' section of this name.

use std::fmt;

use anyhow::bail;
use chronolith_remote::otlp::NameStrategy;
use serde::Deserialize;

use super::quoted;

/// How metrics of OTLP become samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OtlpConfig {
    /// Whether the route answers.
    pub(crate) enabled: bool,
    /// How names are made.
    pub(crate) names: NameStrategy,
    /// Attributes of the resource that become labels of all its series.
    pub(crate) promoted: Vec<String>,
    /// All of them do but `ignored`.
    pub(crate) promote_all: bool,
    /// Those that do not.
    pub(crate) ignored: Vec<String>,
    /// `target_info` has what `job` and `instance` are made of too.
    pub(crate) keep_identifying: bool,
    /// Name, version and attributes of the scope become labels.
    pub(crate) promote_scope: bool,
}

impl Default for OtlpConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            names: NameStrategy::default(),
            promoted: Vec::new(),
            promote_all: false,
            ignored: Vec::new(),
            keep_identifying: false,
            promote_scope: false,
        }
    }
}

/// As YAML.
impl fmt::Display for OtlpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &[String]| names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
        writeln!(f, "otlp:")?;
        writeln!(f, "  enabled: {}", self.enabled)?;
        writeln!(f, "  translation_strategy: {}", self.names.name())?;
        writeln!(f, "  promote_resource_attributes: [{}]", list(&self.promoted))?;
        writeln!(f, "  promote_all_resource_attributes: {}", self.promote_all)?;
        writeln!(f, "  ignore_resource_attributes: [{}]", list(&self.ignored))?;
        writeln!(f, "  keep_identifying_resource_attributes: {}", self.keep_identifying)?;
        writeln!(f, "  promote_scope_metadata: {}", self.promote_scope)
    }
}

/// What the user wrote.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawOtlp {
    enabled: Option<bool>,
    translation_strategy: Option<String>,
    promote_resource_attributes: Vec<String>,
    promote_all_resource_attributes: bool,
    ignore_resource_attributes: Vec<String>,
    keep_identifying_resource_attributes: bool,
    promote_scope_metadata: bool,
}

impl RawOtlp {
    pub(super) fn validate(self) -> anyhow::Result<OtlpConfig> {
        let mut config = OtlpConfig {
            promoted: self.promote_resource_attributes,
            promote_all: self.promote_all_resource_attributes,
            ignored: self.ignore_resource_attributes,
            keep_identifying: self.keep_identifying_resource_attributes,
            promote_scope: self.promote_scope_metadata,
            ..OtlpConfig::default()
        };
        config.enabled = self.enabled.unwrap_or(config.enabled);
        if let Some(name) = self.translation_strategy {
            let Some(strategy) = NameStrategy::from_name(&name) else {
                let known: Vec<_> = NameStrategy::ALL.iter().map(|strategy| strategy.name()).collect();
                bail!("otlp.translation_strategy: unknown strategy {name:?}; known: {}", known.join(", "));
            };
            config.names = strategy;
        }
        if config.promote_all && !config.promoted.is_empty() {
            bail!("otlp.promote_resource_attributes: all are promoted by promote_all_resource_attributes");
        }
        if !config.promote_all && !config.ignored.is_empty() {
            bail!("otlp.ignore_resource_attributes: only with promote_all_resource_attributes: true");
        }
        for (key, names) in [
            ("otlp.promote_resource_attributes", &config.promoted),
            ("otlp.ignore_resource_attributes", &config.ignored),
        ] {
            if names.iter().any(String::is_empty) {
                bail!("{key}: a name is empty");
            }
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    #[test]
    fn keys_are_those_of_prometheus() {
        let text = concat!(
            "otlp:\n  enabled: false\n  translation_strategy: NoTranslation\n",
            "  promote_all_resource_attributes: true\n  ignore_resource_attributes: [host.id, \"a'b\"]\n",
            "  keep_identifying_resource_attributes: true\n  promote_scope_metadata: true\n"
        );
        let config = Config::parse(text).expect("valid");
        let expected = OtlpConfig {
            enabled: false,
            names: NameStrategy::Untranslated,
            promoted: Vec::new(),
            promote_all: true,
            ignored: vec!["host.id".to_owned(), "a'b".to_owned()],
            keep_identifying: true,
            promote_scope: true,
        };
        assert_eq!(config.otlp, expected);
        assert_eq!(Config::parse(&config.to_string()).expect("printed"), config);
        for strategy in NameStrategy::ALL {
            assert_eq!(NameStrategy::from_name(strategy.name()), Some(strategy));
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for (text, told) in [
            ("otlp: {translation_strategy: none}", "known: UnderscoreEscapingWithSuffixes, "),
            (
                "otlp: {promote_resource_attributes: [a], promote_all_resource_attributes: true}",
                "otlp.promote_resource_attributes: all are promoted",
            ),
            ("otlp: {ignore_resource_attributes: [a]}", "only with promote_all_resource_attributes: true"),
            ("otlp: {promote_resource_attributes: ['']}", "a name is empty"),
        ] {
            let error = format!("{:#}", Config::parse(text).expect_err(text));
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}

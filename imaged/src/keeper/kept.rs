//! What imaged must not forget: images, leases, what was removed. One file, written whole.

use crate::image::BootFiles;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use xvm_model::images::Removed;
use xvm_model::lease::Leases;
use xvm_model::{ConfigName, Outcome};

/// What is known of the volumes of a config.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "image", rename_all = "kebab-case")]
pub enum Image {
    /// There are none: nothing was made yet, or what was being made when imaged died was swept away.
    #[default]
    None,
    /// They are whole.
    Ready {
        /// What the image boots with; none: by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        boot: Option<BootFiles>,
    },
}

/// One config's part.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KeptConfig {
    /// Its image.
    #[serde(flatten)]
    pub image: Image,
    /// Who may use its volumes.
    pub leases: Leases,
    /// Where its volumes are exported.
    pub port: u16,
    /// Its disk was taken away from a server that is down, and it is to be started elsewhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restart: bool,
    /// How the last job ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Box<Outcome>>,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Kept {
    /// By config.
    pub configs: BTreeMap<ConfigName, KeptConfig>,
    /// What can be restored.
    #[serde(default)]
    pub removed: BTreeMap<ConfigName, KeptRemoved>,
}

/// A removed config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptRemoved {
    /// Until when it can be restored.
    #[serde(flatten)]
    pub removed: Removed,
    /// What was known of it.
    pub config: KeptConfig,
}

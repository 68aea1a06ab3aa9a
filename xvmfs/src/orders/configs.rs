//! Orders to imaged. Whether a config's state allows a command, imaged decides; here only whether it is heard, and whether a value is
//! one at all.

use super::answered;
use crate::cluster::Cluster;
use crate::rights::Who;
use crate::row::Scene;
use crate::trouble;
use xvm_model::config::settings::Setting;
use xvm_model::outbox::Addressee;
use xvm_model::{Code, ConfigCommand, ConfigName, Failure, Order, Reach};

/// The mode of a config that was made by a command; mkdir(1) says its own.
const MODE: u16 = 0o755;

impl Cluster {
    /// Sends a command to imaged, and waits for its answer within the bound of every order.
    pub(crate) async fn order_config(
        &self,
        name: &ConfigName,
        command: ConfigCommand,
    ) -> Result<String, Failure> {
        let order = Order::Config { name: name.clone(), command };
        let (view, now, what) = (self.view(), self.now(), order.what());
        self.linked()?;
        let down = |why: String| Failure::new(Code::HostDown, format!("cannot {what}: {why}"));
        let Some(images) = view.images() else { return Err(down("no imaged is heard".into())) };
        if view.images_reach(images, now.mono) == Reach::Down {
            let who = format!("imaged on {}", images.name);
            return Err(down(trouble::down(who, images.heard, now)));
        }
        let to = Addressee::Images(images.name.clone());
        let heard = (images.at, images.heard.mono);
        answered(self.client().order(to, images.stamp.boot, heard, order).await?)
    }
}

/// A command with the owner of what it makes.
pub(super) fn owned(mut command: ConfigCommand, who: Who) -> ConfigCommand {
    if let ConfigCommand::Create { rights, .. } | ConfigCommand::Clone { rights, .. } = &mut command {
        *rights = who.owns(MODE);
    }
    command
}

/// The order that sets a value; the error says what is allowed.
pub(super) fn set(scene: &Scene, setting: &Setting, text: &str) -> Result<Order, String> {
    let record = &scene.config().ok_or("there is no such config")?.record;
    let value = text.trim();
    (setting.set)(&mut record.config.clone(), value)?;
    let command = ConfigCommand::Set { key: setting.key.into(), value: value.into() };
    Ok(Order::Config { name: record.name.clone(), command })
}

//! Domains that are made from a config: there while they run.

use super::{core::Core, spec::DomainSpec, store::Record};
use crate::hypervisor::{HvError, HvResult};
use xvm_model::Spec;

impl Core {
    /// Makes a domain that wants a wandering share of its vCPUs, and boots it.
    pub fn create(&self, spec: &Spec) -> HvResult<()> {
        let name = &spec.name;
        self.change(|st| {
            if let Some(record) = st.kept.domains.get(name) {
                return Err(HvError::WrongState(format!(
                    "there is a domain {name}, which is {}",
                    record.shown().0
                )));
            }
            if st.coming.contains_key(name) {
                return Err(HvError::WrongState(format!("a migration brings {name} here")));
            }
            if let Some((other, _)) = st.kept.domains.iter().find(|(_, r)| r.uuid == spec.uuid) {
                return Err(HvError::WrongState(format!("{other} has the identity {}", spec.uuid)));
            }
            st.admit(name, spec.memory, self.config.memory)?;
            let plain =
                DomainSpec { vcpus: spec.vcpus, memory: spec.memory, ..DomainSpec::new(name.clone()) };
            let record = Record {
                uuid: spec.uuid,
                settings: spec.settings.clone(),
                transient: true,
                ..Record::new(&plain, self.config.seed, self.wall())
            };
            st.sample.forget(name);
            st.kept.domains.insert(name.clone(), record);
            Ok(())
        })?;
        self.changed(name);
        Ok(())
    }
}

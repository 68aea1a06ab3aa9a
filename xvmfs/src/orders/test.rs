//! Commands to schedules of tests: this mount carries them out itself.

use crate::cluster::Cluster;
use crate::schedules::driver::Seen;
use xvm_model::schedule::ScheduleCommand;
use xvm_model::{Failure, TestName};

impl Cluster {
    /// Starts or cancels a schedule.
    pub(super) fn order_test(&self, name: &TestName, command: ScheduleCommand) -> Result<String, Failure> {
        match command {
            ScheduleCommand::Start => {
                self.linked()?;
                let balance = self.view().balance().mode.word();
                self.schedules().start(name, balance, &Seen::of(self), self.now())
            }
            ScheduleCommand::Cancel => self.schedules().cancel(name, self.now().wall),
        }
    }
}

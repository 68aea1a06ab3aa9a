//! LVM's own tools: run with a bound, their reports read as JSON, their complaints told apart.

use super::names::{Role, lv_name, parse_name};
use crate::store::{StoreError, Volume};
use serde::Deserialize;
use std::{process::Stdio, time::Duration};
use tokio::process::Command;
use xvm_model::ConfigName;

/// How long a tool may take: it changes metadata only, but waits for LVM's own lock.
const LIMIT: Duration = Duration::from_secs(60);

/// One logical volume of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lv {
    pub role: Role,
    pub config: ConfigName,
    pub volume: Volume,
    /// Its size.
    pub bytes: u64,
    /// It is a thin volume of this pool.
    pub pool: Option<String>,
    /// There is a device for it.
    pub active: bool,
    /// Its bytes from here on were not made zero yet.
    pub dirty: Option<u64>,
}

impl Lv {
    pub fn name(&self) -> String {
        lv_name(self.role, &self.config, self.volume)
    }
}

/// What a group holds.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Ours.
    pub ours: Vec<Lv>,
    /// All others.
    pub others: Vec<Other>,
}

impl Contents {
    /// One of ours.
    pub fn find(&self, config: &ConfigName, role: Role, volume: Volume) -> Option<&Lv> {
        self.of(config, role).find(|lv| lv.volume == volume)
    }

    /// Those of one config that have a role, the disk first.
    pub fn of(&self, config: &ConfigName, role: Role) -> impl DoubleEndedIterator<Item = &Lv> {
        let find = move |volume: &Volume| {
            self.ours.iter().find(|lv| lv.config == *config && lv.role == role && lv.volume == *volume)
        };
        Volume::ALL.iter().filter_map(find)
    }
}

/// A logical volume that is not ours.
#[derive(Debug)]
pub(super) struct Other {
    pub name: String,
    /// What LVM calls its kind: `linear`, `thin-pool`.
    kind: String,
    /// When it is an active thin pool.
    pool: Option<Pool>,
}

/// A thin pool.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pool {
    /// Its bytes.
    pub bytes: u64,
    /// How full it is, 0 to 1: its data or its metadata, whichever is fuller.
    pub full: f64,
    /// How much of its data is in use, 0 to 1.
    pub used: f64,
    /// Whether a volume's new blocks read as zeros.
    pub zero: bool,
}

/// The tag of all that is ours.
pub(super) const TAG: &str = "xvm";

/// The tag of one whose bytes from here on are not zero yet.
pub(super) fn dirty_tag(from: u64) -> String {
    format!("xvm.dirty={from}")
}

#[derive(Deserialize)]
struct Report {
    report: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    lv: Vec<LvRow>,
    #[serde(default)]
    vg: Vec<VgRow>,
}

#[derive(Deserialize)]
struct LvRow {
    #[serde(default)]
    lv_name: String,
    lv_size: String,
    #[serde(default)]
    lv_tags: String,
    #[serde(default)]
    lv_active: String,
    #[serde(default)]
    pool_lv: String,
    #[serde(default)]
    segtype: String,
    #[serde(default)]
    zero: String,
    #[serde(default)]
    data_percent: String,
    #[serde(default)]
    metadata_percent: String,
}

#[derive(Deserialize)]
struct VgRow {
    vg_size: String,
    vg_free: String,
}

/// What is in the way of reading a report.
const ODD: &str = "its report is not understood";

/// The tools for one group; `doing` of each call is what an error says that could not be done.
#[derive(Debug, Clone)]
pub(super) struct Tools {
    pub group: String,
}

impl Tools {
    /// Runs a tool; its standard output.
    pub async fn run(&self, doing: &str, program: &str, args: &[&str]) -> Result<String, StoreError> {
        let failed = |why: String| StoreError::Failed { doing: doing.into(), why };
        let mut command = Command::new(program);
        command.args(args).env("LC_ALL", "C").env("LVM_SUPPRESS_FD_WARNINGS", "1");
        command.stdin(Stdio::null()).kill_on_drop(true);
        let out = tokio::time::timeout(LIMIT, command.output())
            .await
            .map_err(|_| failed(format!("{program} did not end within {} s", LIMIT.as_secs())))?
            .map_err(|e| failed(format!("{program} does not run: {e}; it is in the package lvm2")))?;
        if out.status.success() {
            return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
        }
        let text = String::from_utf8_lossy(&out.stderr);
        if is_full(&text) {
            return Err(StoreError::NoSpace { doing: doing.into(), place: self.place() });
        }
        if text.contains(&format!("Volume group \"{}\" not found", self.group)) {
            return Err(failed(format!(
                "there is no volume group {}; vgs shows those of this machine",
                self.group
            )));
        }
        let why = text.lines().map(str::trim).rfind(|l| !l.is_empty() && !l.starts_with("WARNING"));
        Err(failed(format!("{program}: {}", why.unwrap_or(&out.status.to_string()))))
    }

    fn place(&self) -> String {
        format!("the volume group {}", self.group)
    }

    async fn report(
        &self,
        doing: &str,
        program: &str,
        columns: &str,
        what: &str,
    ) -> Result<Part, StoreError> {
        let args = ["--reportformat", "json", "--units", "b", "--nosuffix", "--options", columns, what];
        let text = self.run(doing, program, &args).await?;
        let read = serde_json::from_str(&text).ok().and_then(|r: Report| r.report.into_iter().next());
        read.ok_or_else(|| odd(doing, program))
    }

    /// All logical volumes of the group.
    pub async fn contents(&self, doing: &str) -> Result<Contents, StoreError> {
        let columns = "lv_name,lv_size,lv_tags,lv_active,pool_lv,segtype,zero,data_percent,metadata_percent";
        let part = self.report(doing, "lvs", columns, &self.group).await?;
        let mut contents = Contents::default();
        for row in part.lv {
            match ours(&row) {
                Some(lv) => contents.ours.push(lv),
                None => {
                    let pool = thin_pool(&row);
                    contents.others.push(Other { name: row.lv_name, kind: row.segtype, pool });
                }
            }
        }
        Ok(contents)
    }

    /// All bytes of the group, and those that no logical volume has.
    pub async fn group_room(&self, doing: &str) -> Result<(u64, u64), StoreError> {
        let part = self.report(doing, "vgs", "vg_size,vg_free", &self.group).await?;
        let row = part.vg.first().and_then(|r| Some((r.vg_size.parse().ok()?, r.vg_free.parse().ok()?)));
        row.ok_or_else(|| odd(doing, "vgs"))
    }

    /// A thin pool of the group.
    pub fn pool(&self, doing: &str, contents: &Contents, pool: &str) -> Result<Pool, StoreError> {
        let (group, doing) = (&self.group, doing.into());
        let why = match contents.others.iter().find(|other| other.name == pool) {
            Some(Other { pool: Some(pool), .. }) => return Ok(*pool),
            Some(Other { kind, .. }) if kind == "thin-pool" => {
                format!("the thin pool {group}/{pool} is not active")
            }
            Some(Other { kind, .. }) => format!("{group}/{pool} is no thin pool but {kind}"),
            None => format!("there is no thin pool {pool} in the volume group {group}"),
        };
        Err(StoreError::Failed { doing, why })
    }

    /// `GROUP/NAME`.
    pub fn full(&self, name: &str) -> String {
        format!("{}/{name}", self.group)
    }

    pub async fn remove(&self, doing: &str, lv: &Lv) -> Result<(), StoreError> {
        self.run(doing, "lvremove", &["--yes", "--quiet", &self.full(&lv.name())]).await.map(drop)
    }

    /// Gives one another role. One of that role must not be there.
    pub async fn turn(&self, doing: &str, lv: &Lv, role: Role) -> Result<(), StoreError> {
        let (from, to) = (lv.name(), lv_name(role, &lv.config, lv.volume));
        self.run(doing, "lvrename", &["--yes", "--quiet", &self.group, &from, &to]).await.map(drop)
    }

    /// Changes properties of one.
    pub async fn change(&self, doing: &str, lv: &Lv, flag: &str, value: &str) -> Result<(), StoreError> {
        self.run(doing, "lvchange", &["--yes", "--quiet", flag, value, &self.full(&lv.name())])
            .await
            .map(drop)
    }
}

/// Whether a tool says that the group has no room, or that its pool takes nothing more.
fn is_full(text: &str) -> bool {
    [
        "insufficient free",
        "Insufficient",
        "not enough free",
        "No space left",
        "free extents",
        "free space in pool",
    ]
    .iter()
    .any(|w| text.contains(w))
}

fn odd(doing: &str, program: &str) -> StoreError {
    StoreError::Failed { doing: doing.into(), why: format!("{program}: {ODD}") }
}

/// A row as one of ours: it has the tag and a name of ours.
fn ours(row: &LvRow) -> Option<Lv> {
    let mut tags = row.lv_tags.split(',');
    tags.clone().find(|tag| *tag == TAG)?;
    let (role, config, volume) = parse_name(&row.lv_name)?;
    let dirty = tags.find_map(|tag| tag.strip_prefix("xvm.dirty=")?.parse().ok());
    let pool = Some(row.pool_lv.clone()).filter(|p| !p.is_empty());
    let (bytes, active) = (row.lv_size.parse().ok()?, row.lv_active == "active");
    Some(Lv { role, config, volume, bytes, pool, active, dirty })
}

/// A row as an active thin pool.
fn thin_pool(row: &LvRow) -> Option<Pool> {
    let share = |text: &str| text.parse::<f64>().ok().map(|p| (p / 100.0).clamp(0.0, 1.0));
    let (used, meta) = (share(&row.data_percent)?, share(&row.metadata_percent)?);
    let zero = row.zero == "zero";
    let is = row.segtype == "thin-pool";
    is.then_some(Pool { bytes: row.lv_size.parse().ok()?, used, full: used.max(meta), zero })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_are_those_with_our_tag_and_our_name() {
        let text = r#"{"report": [{"lv": [
            {"lv_name":"xvm.a.disk", "lv_size":"4194304", "lv_tags":"mine,xvm", "lv_active":"active", "pool_lv":"p"},
            {"lv_name":"xvm.a.swap.removed", "lv_size":"8", "lv_tags":"xvm,xvm.dirty=4", "lv_active":"", "pool_lv":""},
            {"lv_name":"xvm.b.disk", "lv_size":"8", "lv_tags":"xvmx", "lv_active":"active", "pool_lv":""},
            {"lv_name":"root", "lv_size":"8", "lv_tags":"xvm", "lv_active":"active", "pool_lv":""}]}]}"#;
        let report: Report = serde_json::from_str(text).expect("a report");
        let found: Vec<Option<Lv>> = report.report[0].lv.iter().map(ours).collect();
        let a = ConfigName::parse("a").expect("name");
        let lv = |role, volume, bytes, pool: Option<&str>, active, dirty| {
            let pool = pool.map(str::to_owned);
            Some(Lv { role, config: a.clone(), volume, bytes, pool, active, dirty })
        };
        assert_eq!(found[0], lv(Role::Whole, Volume::Disk, 4_194_304, Some("p"), true, None));
        assert_eq!(found[1], lv(Role::Removed, Volume::Swap, 8, None, false, Some(4)));
        assert_eq!(found[2..], [None, None]);
    }
}

//! Builder `image/NAME`: a cloud image that somebody made. It boots by itself, and grows itself to its disk when it does.
//!
//! Its name, address and keys are a NoCloud seed of cloud-init in its root file system (`/var/lib/cloud/seed/nocloud`), where that is
//! ext4. With a new instance id cloud-init makes new host keys too.

use super::{
    BootFiles, BuildError, Builder, Paths, Site, debs,
    edit::{self, Edit},
    ext4, guestd,
    job::Job,
    partition,
    tool::{Tool, Trouble},
};
use async_trait::async_trait;
use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};
use xvm_model::{
    ConfigName,
    config::{Address, Config, Os},
};

/// See the file's head.
#[derive(Debug)]
pub struct Import;

const ENDINGS: &[&str] = &["qcow2", "raw", "img"];

#[async_trait]
impl Builder for Import {
    fn word(&self) -> &'static str {
        "image"
    }

    fn systems(&self, paths: &Paths, _: &Site) -> Vec<Box<str>> {
        let entries = fs::read_dir(&paths.images).into_iter().flatten().flatten();
        let images = entries.filter_map(|e| {
            let path = e.path();
            let ending = path.extension()?.to_str()?;
            let os = format!("image/{}", path.file_stem()?.to_str()?);
            (ENDINGS.contains(&ending) && path.is_file() && Os::parse(&os).is_ok()).then(|| os.into())
        });
        let mut all: Vec<Box<str>> = images.collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    async fn build(&self, job: &Job<'_>, what: &str) -> Result<Option<BootFiles>, BuildError> {
        let order = job.order;
        job.volumes().await?;
        job.stage("base", convert(job, what)).await?;
        job.stage("customise", async {
            let root = partition::root(order.disk).map_err(|e| Trouble::of(order.disk, &e))?;
            let Some(image) = root else {
                job.say("it has no ext4 file system: name, address and keys are not written into it");
                return Ok(());
            };
            ext4::settle(job.cage(), &image).await?;
            let identity = self.identity(job.site, order.name, order.config);
            let edits = [self.forget(), identity, guestd::unit(job).await?].concat();
            edit::in_image(job.cage(), &image, &edits).await
        })
        .await?;
        job.stage("check", async {
            let whole = ext4::Fs { disk: order.disk.to_owned(), offset: 0 };
            match partition::root(order.disk).map_err(|e| Trouble::of(order.disk, &e))? {
                Some(image) if image == whole => ext4::fill(job.cage(), &image).await,
                Some(image) => ext4::check(job.cage(), &image).await,
                None => Ok(()),
            }
        })
        .await?;
        Ok(None)
    }

    fn identity(&self, site: &Site, name: &ConfigName, config: &Config) -> Vec<Edit> {
        let text = |path, text| Edit::File(path, 0o600, text);
        let about = format!("instance-id: {}\nlocal-hostname: {name}\n", config.uuid);
        let mut edits = vec![
            Edit::Dir("var/lib/cloud", 0o755),
            Edit::Dir("var/lib/cloud/seed", 0o755),
            Edit::Dir("var/lib/cloud/seed/nocloud", 0o755),
            text("var/lib/cloud/seed/nocloud/meta-data", about),
            text("var/lib/cloud/seed/nocloud/user-data", user_data(config)),
            text("var/lib/cloud/seed/nocloud/network-config", network(site, config)),
        ];
        edits.extend(site.guestd.iter().flat_map(|g| g.options(name)));
        edits.extend(site.guestd.iter().flat_map(|g| g.key_file(config)));
        edits
    }

    fn forget(&self) -> Vec<Edit> {
        let keys = debs::FORGET.iter().map(|p| Edit::Gone(p));
        keys.chain([Edit::File("etc/machine-id", 0o444, String::new())]).collect()
    }
}

/// Copies the image to the disk. The form is that of the file's first bytes, for qcow2 and no other: what a raw image holds must not
/// decide which files of this machine are read.
async fn convert(job: &Job<'_>, what: &str) -> Result<(), Trouble> {
    let disk = job.order.disk;
    let source =
        find(&job.paths.images, what).ok_or_else(|| Trouble::Failed(format!("there is no image {what}")))?;
    let mut magic = [0; 4];
    let read =
        File::open(&source).and_then(|mut f| f.read(&mut magic)).map_err(|e| Trouble::of(&source, &e))?;
    let form = if read == 4 && &magic == b"QFI\xfb" { "qcow2" } else { "raw" };
    let info =
        job.run(Tool::new("qemu-img").args(["info", "--output=json", "-f", form]).arg(&source)).await?;
    let info: serde_json::Value =
        serde_json::from_str(&info).map_err(|e| Trouble::Failed(format!("qemu-img: {e}")))?;
    let outside = info.get("backing-filename").or_else(|| info.pointer("/format-specific/data/data-file"));
    if let Some(file) = outside {
        return Err(Trouble::Failed(format!("the image {what} is not whole: it needs {file}")));
    }
    let needs = info["virtual-size"].as_u64().unwrap_or(u64::MAX).div_ceil(1 << 20);
    let has = ext4::length(disk).map_err(|e| Trouble::of(disk, &e))? >> 20;
    if needs > has {
        return Err(Trouble::Failed(format!(
            "a disk of {has} MiB is too small for the image {what} of {needs} MiB"
        )));
    }
    // a new sparse file reads as zeros: the image's zeros need not be written
    let empty = fs::metadata(disk).is_ok_and(|m| m.is_file() && m.blocks() == 0);
    let zero = empty.then_some("--target-is-zero");
    let tool = Tool::new("qemu-img").args(["convert", "-n"]).args(zero).args(["-f", form, "-O", "raw"]);
    job.run(tool.args([&*source, disk])).await.map(drop)
}

fn find(images: &Path, name: &str) -> Option<PathBuf> {
    ENDINGS.iter().map(|e| images.join(format!("{name}.{e}"))).find(|p| p.is_file())
}

/// JSON is YAML: no value can be taken for anything else.
fn user_data(config: &Config) -> String {
    let keys: Vec<&str> = config.keys.iter().map(|k| &**k).collect();
    let mut data = serde_json::json!({
        "disable_root": false,
        "ssh_pwauth": false,
        "users": [{ "name": "root", "lock_passwd": true, "ssh_authorized_keys": keys }],
        "mounts": [["LABEL=swap", "none", "swap", "nofail", "0", "0"]],
    });
    if !config.packages.is_empty() {
        let packages: Vec<&str> = config.packages.iter().map(|p| &**p).collect();
        data["packages"] = serde_json::json!(packages);
        data["package_update"] = true.into();
    }
    format!("#cloud-config\n{data:#}\n")
}

fn network(site: &Site, config: &Config) -> String {
    let mut card = serde_json::json!({ "match": { "macaddress": config.mac.to_string() } });
    match &config.address {
        Address::None => card = serde_json::Value::Null,
        Address::Dhcp => card["dhcp4"] = true.into(),
        Address::Static { ip, prefix, via } => {
            card["addresses"] = serde_json::json!([format!("{ip}/{prefix}")]);
            if let Some(via) = via {
                let key = if via.is_ipv4() { "gateway4" } else { "gateway6" };
                card[key] = via.to_string().into();
            }
            let dns: Vec<String> = site.dns.iter().map(ToString::to_string).collect();
            card["nameservers"] = serde_json::json!({ "addresses": dns });
        }
    }
    let cards = if card.is_null() { serde_json::json!({}) } else { serde_json::json!({ "card": card }) };
    format!("{:#}\n", serde_json::json!({ "version": 2, "ethernets": cards }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn keys_cannot_become_anything_else() {
        let mut config = Config::new(Uuid::from_u128(1));
        config.keys = vec!["ssh-ed25519 AAAA \"]}\nruncmd: [x]".into()];
        let text = user_data(&config);
        let data: serde_json::Value =
            serde_json::from_str(text.strip_prefix("#cloud-config\n").expect("its head")).expect("JSON");
        assert_eq!(data["users"][0]["ssh_authorized_keys"][0], *config.keys[0]);
        assert_eq!(data["runcmd"], serde_json::Value::Null);
    }
}

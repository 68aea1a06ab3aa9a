//! From what a daemon exports to what is wanted: first removes, then adds.
//!
//! An export's id in the daemon is its name with [`MARK`] before it. A volume's node has a name made of what it is (path, file, whether it
//! may be written), so a node that is there under the wanted name is the wanted one, and a volume that was made anew in the same place
//! is another.

use super::{
    ADDING, ExportError, FENCE, Key, Place, Volume, Wanted,
    files::SERVERS,
    qmp::{Qmp, QmpError},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::{FileTypeExt, MetadataExt},
    time::Duration,
};

/// An id must begin with a letter, a name need not.
const MARK: &str = "x.";

/// What an export is in the daemon: its node, and whether it is being removed already.
type Now = BTreeMap<String, (String, bool)>;

/// The names of what the daemon exports.
pub(super) async fn exported(place: &Place, key: &Key) -> Result<Vec<String>, ExportError> {
    let silent = |e: QmpError| ExportError::Silent { key: key.to_string(), why: e.to_string() };
    let mut qmp = Qmp::connect(&place.file(key, "qmp"), FENCE).await.map_err(silent)?;
    let now = look(&mut qmp).await.map_err(silent)?;
    let names = now.iter().filter(|(_, (_, ending))| !ending);
    Ok(names.map(|(id, _)| id.strip_prefix(MARK).unwrap_or(id).to_owned()).collect())
}

/// Makes a daemon that runs serve exactly `wanted`. [`ExportError::Silent`] when it is not known that all is gone that is not wanted.
pub(super) async fn converge(place: &Place, key: &Key, wanted: &Wanted) -> Result<(), ExportError> {
    let silent = |e: QmpError| ExportError::Silent { key: key.to_string(), why: e.to_string() };
    let mut qmp = Qmp::connect(&place.file(key, "qmp"), FENCE).await.map_err(silent)?;
    // by name alone, before anything else can fail
    let names: BTreeSet<String> = wanted.exports.iter().map(|(name, _)| format!("{MARK}{name}")).collect();
    let now = fence(&mut qmp, |id, _| names.contains(id)).await.map_err(silent)?;
    wanted.check(key)?;

    let mut first_error = None;
    let mut nodes = BTreeMap::new();
    for volume in &wanted.volumes {
        if wanted.exports.iter().any(|(_, node)| *node == volume.node) {
            match node(volume).await {
                Ok(node) => drop(nodes.insert(volume.node.as_str(), node)),
                Err(e) => drop(first_error.get_or_insert(e)),
            }
        }
    }
    let of: BTreeMap<String, &Node> = wanted
        .exports
        .iter()
        .filter_map(|(name, node)| Some((format!("{MARK}{name}"), nodes.get(node.as_str())?)))
        .collect();
    // those whose volume is another now; one whose volume cannot be looked at stays as it is
    qmp.until(FENCE);
    let right = |id: &str, node: &str| of.get(id).is_none_or(|n| n.name == node);
    let now = if now.iter().all(|(id, (node, _))| right(id, node)) {
        now
    } else {
        fence(&mut qmp, |id, node| names.contains(id) && right(id, node)).await.map_err(silent)?
    };

    qmp.until(ADDING);
    if let Some(servers) = &wanted.servers {
        let_in(&mut qmp, servers).await.map_err(|e| slow("the list of servers", e))?;
    }
    let used: BTreeSet<&str> = now.values().map(|(node, _)| node.as_str()).collect();
    let mut open = close_unused(&mut qmp, &used).await.map_err(|e| slow("its volumes", e))?;
    for (id, node) in of.iter().filter(|(id, _)| !now.contains_key(*id)) {
        let name = &id[MARK.len()..];
        qmp.until(ADDING);
        if let Err(e) = add(&mut qmp, name, id, node, &mut open).await {
            let hopeless = matches!(e, QmpError::Silent(_));
            first_error.get_or_insert(slow(name, e));
            if hopeless {
                break;
            }
        }
    }
    first_error.map_or(Ok(()), Err)
}

/// Sets which servers are let in: those whose certificate's distinguished name is `CN=SERVER` and nothing else.
async fn let_in(qmp: &mut Qmp, servers: &[String]) -> Result<(), QmpError> {
    let rule = |s: &String| json!({ "match": format!("CN={s}"), "format": "exact", "policy": "allow" });
    let rules: Value = servers.iter().map(rule).collect();
    let list = json!({ "path": format!("/objects/{SERVERS}"), "property": "rules", "value": rules });
    match qmp.ask("qom-set", list).await {
        // there is none yet
        Err(QmpError::Refused(_)) => {
            let new = json!({ "qom-type": "authz-list", "id": SERVERS, "policy": "deny", "rules": rules });
            qmp.ask("object-add", new).await.map(drop)
        }
        done => done.map(drop),
    }
}

/// What refused or was slow after all that is not wanted had gone.
fn slow(what: &str, e: QmpError) -> ExportError {
    match e {
        QmpError::Silent(why) => ExportError::Slow { what: what.into(), why },
        QmpError::Refused(why) => ExportError::Refused { what: what.into(), why },
    }
}

/// Removes all exports but those that may stay, and waits until they have gone: their clients are cut off at once, and an export is in the
/// list as long as one of its writes is under way. Gives what is left.
async fn fence(qmp: &mut Qmp, stays: impl Fn(&str, &str) -> bool) -> Result<Now, QmpError> {
    let mut now = look(qmp).await?;
    for (id, (node, ending)) in &now {
        if !stays(id, node) && !ending {
            match qmp.ask("block-export-del", json!({ "id": id, "mode": "hard" })).await {
                // what it refuses is seen in the list
                Ok(_) | Err(QmpError::Refused(_)) => {}
                Err(e) => return Err(e),
            }
        }
    }
    loop {
        now = look(qmp).await?;
        let left = now.iter().find(|(id, (node, ending))| *ending || !stays(id, node));
        let Some((id, _)) = left else { return Ok(now) };
        if qmp.over() {
            return Err(QmpError::Silent(format!("{id} is not removed in time")));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn look(qmp: &mut Qmp) -> Result<Now, QmpError> {
    let list = qmp.ask("query-block-exports", json!({})).await?;
    let strange = || QmpError::Silent("query-block-exports was answered in another form".into());
    list.as_array()
        .ok_or_else(strange)?
        .iter()
        .map(|e| {
            let text = |k: &str| e.get(k).and_then(Value::as_str).map(str::to_owned).ok_or_else(strange);
            let ending = e.get("shutting-down").and_then(Value::as_bool).ok_or_else(strange)?;
            Ok((text("id")?, (text("node-name")?, ending)))
        })
        .collect()
}

/// A volume as the daemon opens it.
struct Node {
    name: String,
    options: Value,
}

/// Looks at a volume.
async fn node(volume: &Volume) -> Result<Node, ExportError> {
    let refused = |why: String| ExportError::Refused {
        what: format!("the volume {} ({})", volume.node, volume.path.display()),
        why,
    };
    let path = volume.path.to_str().filter(|p| p.starts_with('/'));
    let path = path.ok_or_else(|| refused("its path is not absolute, or not UTF-8".into()))?;
    let meta = match tokio::time::timeout(FENCE, tokio::fs::metadata(path)).await {
        Ok(Ok(meta)) => meta,
        Ok(Err(e)) => return Err(refused(e.to_string())),
        Err(_) => return Err(refused(format!("its disk does not answer within {} s", FENCE.as_secs()))),
    };
    let (driver, device) = match meta.file_type() {
        t if t.is_file() => ("file", (meta.dev(), meta.ino())),
        t if t.is_block_device() => ("host_device", (meta.rdev(), 0)),
        _ => return Err(refused("it is neither a file nor a block device".into())),
    };
    let what = format!("{path}\n{driver} {device:?} {}", volume.writable);
    let digest = Sha256::digest(what.as_bytes());
    // 31 characters are allowed
    let name = digest[..15].iter().fold("v".to_owned(), |name, byte| format!("{name}{byte:02x}"));
    let options = json!({
        "driver": driver,
        "node-name": name,
        "filename": path,
        "read-only": !volume.writable,
        "locking": "auto",
        // a guest's TRIM gives room back; zeros that it writes stay written: looking for them costs a pass over each block
        "discard": "unmap",
        // through the page cache, flushed to the disk when the guest flushes
        "cache": { "direct": false, "no-flush": false },
    });
    Ok(Node { name, options })
}

/// Closes the volumes that no export shows, so that one that has grown meanwhile is opened with its new size. Gives those that are open.
async fn close_unused(qmp: &mut Qmp, used: &BTreeSet<&str>) -> Result<BTreeSet<String>, QmpError> {
    let list = qmp.ask("query-named-block-nodes", json!({ "flat": true })).await?;
    let names = list.as_array().into_iter().flatten().filter_map(|n| n.get("node-name")?.as_str());
    let mut open = BTreeSet::new();
    for name in names {
        if used.contains(name) {
            open.insert(name.to_owned());
        } else {
            match qmp.ask("blockdev-del", json!({ "node-name": name })).await {
                Ok(_) => {}
                Err(QmpError::Refused(_)) => drop(open.insert(name.to_owned())),
                Err(e) => return Err(e),
            }
        }
    }
    Ok(open)
}

async fn add(
    qmp: &mut Qmp,
    name: &str,
    id: &str,
    node: &Node,
    open: &mut BTreeSet<String>,
) -> Result<(), QmpError> {
    if !open.contains(&node.name) {
        qmp.ask("blockdev-add", node.options.clone()).await?;
        open.insert(node.name.clone());
    }
    let writable = node.options["read-only"] == Value::Bool(false);
    let export =
        json!({ "type": "nbd", "id": id, "name": name, "node-name": node.name, "writable": writable });
    qmp.ask("block-export-add", export).await.map(drop)
}

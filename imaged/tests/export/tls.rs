//! By TLS a volume is served to the servers that hold a lease, and to nobody else.

use crate::rig::{Rig, listed_by, output, port, wanted};
use std::path::{Path, PathBuf};
use std::process::Command;
use xvm_imaged::export::{Exports, Place, Wanted};

/// Certificates as a site makes them: of kerby, which exports, and of servers.
fn certificates(rig: &Rig, servers: &[&str]) -> PathBuf {
    let dir = rig.dir.path().join("certificates");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/certificates.sh");
    let dir_ = dir.to_str().expect("a path");
    let args = [&[dir_, "kerby", "127.0.0.1"], servers].concat();
    output(script.to_str().expect("a path"), &args);
    dir
}

fn by_tls(rig: &Rig, certificates: &Path) -> Exports {
    Exports::new(Place { tls: Some(certificates.join("kerby")), ..rig.place() })
}

fn let_in(want: Wanted, servers: &[&str]) -> Wanted {
    Wanted { servers: Some(servers.iter().map(|s| (*s).into()).collect()), ..want }
}

/// What is listed to whom has the certificate in that directory; none: it is not let in.
fn seen(port: u16, certificate: &Path) -> Option<Vec<String>> {
    listed_by(&format!("nbds://127.0.0.1:{port}/?tls-certificates={}", certificate.display()))
}

#[tokio::test]
async fn who_holds_a_lease_is_let_in_and_nobody_else() {
    let rig = Rig::new();
    let dir = certificates(&rig, &["ferby", "gerby"]);
    let (exports, port, disk) = (by_tls(&rig, &dir), port(), rig.file("disk", 1 << 20));
    let to = |names: &[&str], servers: &[&str]| let_in(wanted(port, &disk, names), servers);
    exports.set("small-6", &to(&["small-6.ferby.1"], &["ferby"])).await.expect("served");
    let pid = rig.pid("small-6");
    assert_eq!(seen(port, &dir.join("ferby")), Some(vec!["small-6.ferby.1".into()]));
    assert_eq!(seen(port, &dir.join("gerby")), None, "a certificate of the cluster is not enough");
    assert_eq!(listed_by(&format!("nbd://127.0.0.1:{port}")), None, "nor is a connection");
    let io = ["-f", "raw", "-c", "read 0 512", &format!("nbd://127.0.0.1:{port}/small-6.ferby.1")];
    assert!(!Command::new("qemu-io").args(io).output().expect("qemu-io").status.success(), "to anybody");

    // a migration: both, then the other one; the daemon stays
    let both = ["small-6.ferby.1", "small-6.gerby.2"];
    exports.set("small-6", &to(&both, &["ferby", "gerby"])).await.expect("served");
    assert_eq!(seen(port, &dir.join("gerby")), Some(both.map(String::from).into()));
    exports.set("small-6", &to(&both[1..], &["gerby"])).await.expect("served");
    assert_eq!(seen(port, &dir.join("ferby")), None, "its lease is over");
    assert_eq!(seen(port, &dir.join("gerby")), Some(vec!["small-6.gerby.2".into()]));
    assert_eq!(rig.pid("small-6"), pid, "the same daemon");
}

/// If this fails, servers do not take imaged for who it is, or nobody learns why there is no certificate.
#[test]
fn the_certificate_is_of_the_name_or_the_address_that_was_given() {
    let rig = Rig::new();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/certificates.sh");
    for (host, kind) in [("abc.de", "DNS:"), ("10.0.0.9", "IP Address:"), ("fd00::9", "IP Address:FD00")] {
        let dir = rig.dir.path().join(host);
        output(script.to_str().expect("a path"), &[dir.to_str().expect("a path"), "kerby", host]);
        let certificate = dir.join("kerby/server-cert.pem");
        let file = certificate.to_str().expect("a path");
        let said = output("openssl", &["x509", "-in", file, "-noout", "-ext", "subjectAltName"]);
        assert!(said.contains(kind), "{host}: {said}");
    }
    let dir = rig.dir.path().join("wrong");
    let made = Command::new(script).arg(&dir).args(["kerby", "10.0.0.999"]).output().expect("sh");
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(!made.status.success() && said.contains("10.0.0.999"), "{said}");
    assert!(!dir.join("kerby/server-cert.pem").exists());
}

#[tokio::test]
async fn another_authority_or_a_name_that_only_looks_alike_is_refused() {
    let rig = Rig::new();
    let dir = certificates(&rig, &["ferby"]);
    let (exports, port) = (by_tls(&rig, &dir), port());
    let want = let_in(wanted(port, &rig.file("disk", 1 << 20), &["small-6.ferby.1"]), &["ferby"]);
    exports.set("small-6", &want).await.expect("served");
    // ferby by another authority
    let other = Rig::new();
    let foreign = certificates(&other, &["ferby"]).join("ferby");
    std::fs::copy(dir.join("ca-cert.pem"), foreign.join("ca-cert.pem")).expect("ours");
    assert_eq!(seen(port, &foreign), None);
    // this authority, and ferby is not all of the name
    for subject in ["/O=evil/CN=ferby", "/CN=ferby/O=evil", "/O=x,CN=ferby/CN=evil"] {
        let to = rig.dir.path().join("alike");
        let script = "set -e; umask 077; mkdir -p \"$2\"; cd \"$1\"; openssl req -newkey rsa:2048 -nodes -keyout \"$2\"/client-key.pem \
                      -out \"$2\"/csr -subj \"$3\"; openssl x509 -req -in \"$2\"/csr -CA ca-cert.pem -CAkey ca-key.pem \
                      -CAcreateserial -days 9 -out \"$2\"/client-cert.pem; cp ca-cert.pem \"$2\"";
        let (from, at) = (dir.to_str().expect("a path"), to.to_str().expect("a path"));
        output("sh", &["-c", script, "sh", from, at, subject]);
        assert_eq!(seen(port, &to), None, "{subject}");
    }
    assert_eq!(seen(port, &dir.join("ferby")), Some(vec!["small-6.ferby.1".into()]));
}

#[tokio::test]
async fn a_new_life_goes_on_and_without_certificates_nothing_is_served() {
    let rig = Rig::new();
    let dir = certificates(&rig, &["ferby"]);
    let (port, disk) = (port(), rig.file("disk", 1 << 20));
    let want = let_in(wanted(port, &disk, &["small-6.ferby.1"]), &["ferby"]);
    by_tls(&rig, &dir).set("small-6", &want).await.expect("served");
    let pid = rig.pid("small-6");
    by_tls(&rig, &dir).set("small-6", &want).await.expect("served by the one that runs");
    assert_eq!(rig.pid("small-6"), pid);
    // without --tls the leases that began with it go on while the daemon does, and are served plainly by none
    let plain = rig.exports();
    plain.set("small-6", &want).await.expect("it runs");
    plain.end("small-6").await.expect("ended");
    let why = plain.set("small-6", &want).await.expect_err("nobody is let in").to_string();
    assert!(why.contains("its lease wants TLS, and there are no certificates (--tls)"), "{why}");
    assert_eq!(listed_by(&format!("nbd://127.0.0.1:{port}")), None);
    // a lease without it is served without
    plain.set("small-6", &wanted(port, &disk, &["small-6.ferby.2"])).await.expect("served");
    assert_eq!(listed_by(&format!("nbd://127.0.0.1:{port}")), Some(vec!["small-6.ferby.2".into()]));
}

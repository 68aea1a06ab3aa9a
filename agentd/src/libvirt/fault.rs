//! libvirt's errors in the words of [`HvError`].

use crate::hypervisor::{HvError, HvResult};
use virt::error::{Error, ErrorDomain, ErrorNumber};
use xvm_model::DomainName;

/// libvirt's sentence as one line.
pub fn line(e: &Error) -> String {
    let words: Vec<&str> = e.message().split_whitespace().collect();
    words.join(" ")
}

/// Whether the connection broke, so that nobody knows whether the call had an effect.
pub fn broken(e: &Error) -> bool {
    let net = [ErrorDomain::Rpc, ErrorDomain::Remote];
    let code =
        [ErrorNumber::SystemError, ErrorNumber::InternalError, ErrorNumber::Rpc, ErrorNumber::NoConnect];
    e.code().is_known_and(|c| c == ErrorNumber::Rpc || c == ErrorNumber::NoConnect)
        || (e.domain().is_known_and(|d| net.contains(&d)) && e.code().is_known_and(|c| code.contains(&c)))
}

/// What an error of libvirt means for a call about `name`.
pub fn of(e: &Error, name: &DomainName) -> HvError {
    let text = line(e);
    if broken(e) {
        return HvError::Unreachable(format!("{text}; outcome unknown, `virsh domstate {name}` tells"));
    }
    if ["Cannot allocate memory", "No space left", "cannot set up guest memory"]
        .iter()
        .any(|w| text.contains(w))
    {
        return HvError::NoRoom(text);
    }
    match e.code().unwrap_or(ErrorNumber::InternalError) {
        ErrorNumber::NoDomain => HvError::NoDomain(name.clone()),
        ErrorNumber::NoMemory => HvError::NoRoom(text),
        ErrorNumber::OperationAborted => HvError::Cancelled,
        // a job lock that somebody else holds shows as a time-out
        ErrorNumber::OperationInvalid | ErrorNumber::OperationTimeout | ErrorNumber::ResourceBusy => {
            HvError::WrongState(text)
        }
        ErrorNumber::NoSupport
        | ErrorNumber::ArgumentUnsupported
        | ErrorNumber::OperationUnsupported
        | ErrorNumber::ConfigUnsupported => HvError::NotSupported(text),
        _ => HvError::Refused(explained(text)),
    }
}

/// How a call about `name` ended.
pub fn said<T>(result: Result<T, Error>, name: &DomainName) -> HvResult<()> {
    result.map(drop).map_err(|e| of(&e, name))
}

/// QEMU's words about a disk that is served by TLS, with where to look.
fn explained(text: String) -> String {
    if text.contains("nbd") && (text.contains("TLS") || text.contains("credentials")) {
        return format!(
            "a disk of it is served by TLS, and the certificate here did not open it; libvirt's nbd_tls_x509_cert_dir names its folder, \
             and TLS in imaged(8) says what belongs there: {text}"
        );
    }
    text
}

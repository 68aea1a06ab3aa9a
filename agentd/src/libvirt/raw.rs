//! What the `virt` crate lacks or does unsafely, on its `sys` layer: events, bulk statistics, job statistics, and a few small calls.
//! All unsafe code of xvm is in this file.
//!
//! Every function copies what libvirt gives into owned values and frees it before it returns; no pointer leaves this file.
#![allow(unsafe_code)]

use std::{
    collections::HashMap,
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    sync::{Arc, Once},
    thread,
    time::Duration,
};
use uuid::Uuid;
use virt::{connect::Connect, domain::Domain, error::Error, sys};

/// A value of libvirt's typed parameters.
#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    /// Any number; a negative one is 0.
    Num(u64),
    /// Text.
    Text(String),
}

/// Typed parameters by name.
pub type Fields = HashMap<String, Field>;

/// The number of that name.
pub fn num(fields: &Fields, name: &str) -> Option<u64> {
    match fields.get(name) {
        Some(Field::Num(n)) => Some(*n),
        _ => None,
    }
}

/// The text of that name.
pub fn text<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    match fields.get(name) {
        Some(Field::Text(t)) => Some(t),
        _ => None,
    }
}

/// The statistics of one domain, by libvirt's names (`vcpu.0.time`).
pub struct Record {
    /// The domain's name, which may be one that xvm refuses.
    pub name: String,
    /// Its identity.
    pub uuid: Uuid,
    /// A handle for further calls.
    pub domain: Domain,
    /// What the driver told; any field may lack.
    pub fields: Fields,
}

/// What libvirt tells by itself of a domain.
pub enum News {
    /// Its state changed.
    Changed,
    /// Its definition, devices or metadata changed, maybe with its state.
    Redefined,
    /// A job ended; its last statistics.
    JobDone(Fields),
}

/// Where news go: called on the thread of libvirt's event loop, so that it must not wait for anything.
pub type Sink = dyn Fn(&str, Uuid, News) + Send + Sync;

/// Starts libvirt's event loop on a thread of its own, once a process, and silences libvirt's words to stderr.
///
/// Must run before the first connection is opened: a connection opened without an event loop never gets events nor keepalive.
pub fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        virt::error::clear_error_callback();
        if let Err(e) = virt::event::event_register_default_impl() {
            tracing::error!("cannot start libvirt's event loop: {}", e.message());
            return;
        }
        let turn = || {
            loop {
                if virt::event::event_run_default_impl().is_err() {
                    thread::sleep(Duration::from_millis(100)); // rather a late event than a spinning core
                }
            }
        };
        if let Err(e) = thread::Builder::new().name("libvirt-events".into()).spawn(turn) {
            tracing::error!("cannot start libvirt's event loop: {e}");
        }
    });
}

/// Registered callbacks; dropping it ends them.
pub struct Registration {
    conn: Connect,
    ids: Vec<c_int>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        for id in self.ids.drain(..) {
            // SAFETY: the connection is held by `self`; an id that is gone already is only an error value.
            unsafe { sys::virConnectDomainEventDeregisterAny(self.conn.as_ptr(), id) };
        }
    }
}

/// Asks for the events of all domains. An event that the driver lacks is left out; an error when it has none at all.
pub fn register(conn: &Connect, sink: &Arc<Sink>) -> Result<Registration, Error> {
    type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
    // SAFETY: libvirt calls each of these with the arguments of its event id, which are those of the function's own type; the
    // generic type only carries them through registration, as libvirt's VIR_DOMAIN_EVENT_CALLBACK does.
    let table: [(c_uint, Generic); 6] = unsafe {
        [
            (
                sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE,
                mem::transmute::<
                    unsafe extern "C" fn(
                        sys::virConnectPtr,
                        sys::virDomainPtr,
                        c_int,
                        c_int,
                        *mut c_void,
                    ) -> c_int,
                    Generic,
                >(on_lifecycle),
            ),
            (sys::VIR_DOMAIN_EVENT_ID_REBOOT, on_plain),
            (sys::VIR_DOMAIN_EVENT_ID_CONTROL_ERROR, on_plain),
            (
                sys::VIR_DOMAIN_EVENT_ID_IO_ERROR,
                mem::transmute::<
                    unsafe extern "C" fn(
                        sys::virConnectPtr,
                        sys::virDomainPtr,
                        *const c_char,
                        *const c_char,
                        c_int,
                        *mut c_void,
                    ),
                    Generic,
                >(on_io_error),
            ),
            (
                sys::VIR_DOMAIN_EVENT_ID_METADATA_CHANGE,
                mem::transmute::<
                    unsafe extern "C" fn(
                        sys::virConnectPtr,
                        sys::virDomainPtr,
                        c_int,
                        *const c_char,
                        *mut c_void,
                    ),
                    Generic,
                >(on_metadata),
            ),
            (
                sys::VIR_DOMAIN_EVENT_ID_JOB_COMPLETED,
                mem::transmute::<
                    unsafe extern "C" fn(
                        sys::virConnectPtr,
                        sys::virDomainPtr,
                        sys::virTypedParameterPtr,
                        c_int,
                        *mut c_void,
                    ),
                    Generic,
                >(on_job_done),
            ),
        ]
    };
    let mut made = Registration { conn: conn.clone(), ids: Vec::new() };
    let mut refused = None;
    for (event, callback) in table {
        let opaque = Box::into_raw(Box::new(sink.clone()));
        // SAFETY: `opaque` is a box of its own for each registration; libvirt hands it to `free_sink` when the registration ends,
        // and calls no callback after that. On failure libvirt did not take it.
        unsafe {
            let id = sys::virConnectDomainEventRegisterAny(
                conn.as_ptr(),
                ptr::null_mut(),
                event as c_int,
                Some(callback),
                opaque.cast(),
                Some(free_sink),
            );
            if id >= 0 {
                made.ids.push(id);
            } else {
                refused = Some(Error::last_error());
                drop(Box::from_raw(opaque));
            }
        }
    }
    match refused {
        Some(e) if made.ids.is_empty() => Err(e),
        _ => Ok(made),
    }
}

unsafe extern "C" fn free_sink(opaque: *mut c_void) {
    // SAFETY: libvirt calls this once for each box that `register` gave it.
    drop(unsafe { Box::from_raw(opaque.cast::<Arc<Sink>>()) });
}

/// Hands news to the sink; nothing unwinds into libvirt.
///
/// # Safety
/// `domain` is a live domain of libvirt's, `opaque` a box of [`register`].
unsafe fn tell(domain: sys::virDomainPtr, opaque: *mut c_void, news: News) {
    // SAFETY: see above; libvirt keeps both for the time of the call, and the name is copied.
    drop(catch_unwind(AssertUnwindSafe(|| unsafe {
        let Some((name, uuid)) = identity(domain) else { return };
        (*opaque.cast::<Arc<Sink>>())(&name, uuid, news);
    })));
}

unsafe extern "C" fn on_lifecycle(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    _detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    let same = matches!(event as c_uint, sys::VIR_DOMAIN_EVENT_SUSPENDED | sys::VIR_DOMAIN_EVENT_RESUMED);
    // SAFETY: called by libvirt with what `register` gave.
    unsafe { tell(domain, opaque, if same { News::Changed } else { News::Redefined }) };
    0
}

unsafe extern "C" fn on_plain(_: sys::virConnectPtr, domain: sys::virDomainPtr, opaque: *mut c_void) {
    // SAFETY: called by libvirt with what `register` gave.
    unsafe { tell(domain, opaque, News::Changed) };
}

unsafe extern "C" fn on_io_error(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _path: *const c_char,
    _alias: *const c_char,
    _action: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: called by libvirt with what `register` gave.
    unsafe { tell(domain, opaque, News::Changed) };
}

unsafe extern "C" fn on_metadata(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _kind: c_int,
    _uri: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: called by libvirt with what `register` gave.
    unsafe { tell(domain, opaque, News::Redefined) };
}

unsafe extern "C" fn on_job_done(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    params: sys::virTypedParameterPtr,
    count: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: called by libvirt with what `register` gave; it keeps and frees the parameters itself.
    unsafe { tell(domain, opaque, News::JobDone(fields(params, count))) };
}

/// # Safety
/// `domain` is a live domain of libvirt's.
unsafe fn identity(domain: sys::virDomainPtr) -> Option<(String, Uuid)> {
    let mut uuid = [0u8; sys::VIR_UUID_BUFLEN as usize];
    // SAFETY: the name lives as long as the domain and is copied; the buffer has the length that libvirt's header names.
    unsafe {
        let name = sys::virDomainGetName(domain);
        if name.is_null() || sys::virDomainGetUUID(domain, uuid.as_mut_ptr()) < 0 {
            return None;
        }
        Some((CStr::from_ptr(name).to_string_lossy().into_owned(), Uuid::from_bytes(uuid)))
    }
}

/// # Safety
/// `params` points to `count` parameters that libvirt filled in; strings in them end with NUL.
unsafe fn fields(params: sys::virTypedParameterPtr, count: c_int) -> Fields {
    let count = usize::try_from(count).unwrap_or(0);
    if params.is_null() {
        return Fields::new();
    }
    let mut out = Fields::with_capacity(count);
    for i in 0..count {
        // SAFETY: within the array; the union's member is the one that the type names.
        unsafe {
            let p = &*params.add(i);
            let value = match p.type_ as c_uint {
                sys::VIR_TYPED_PARAM_INT => Field::Num(u64::try_from(p.value.i).unwrap_or(0)),
                sys::VIR_TYPED_PARAM_UINT => Field::Num(u64::from(p.value.ui)),
                sys::VIR_TYPED_PARAM_LLONG => Field::Num(u64::try_from(p.value.l).unwrap_or(0)),
                sys::VIR_TYPED_PARAM_ULLONG => Field::Num(p.value.ul),
                sys::VIR_TYPED_PARAM_DOUBLE => Field::Num(p.value.d as u64),
                sys::VIR_TYPED_PARAM_BOOLEAN => Field::Num(u64::from(p.value.b != 0)),
                sys::VIR_TYPED_PARAM_STRING if !p.value.s.is_null() => {
                    Field::Text(CStr::from_ptr(p.value.s).to_string_lossy().into_owned())
                }
                _ => continue,
            };
            out.insert(name(&p.field), value);
        }
    }
    out
}

/// A fixed array with a name that may fill it whole.
fn name(field: &[c_char]) -> String {
    let bytes: Vec<u8> = field.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The statistics of all domains, or of one. Domains that are busy with a job tell only what needs no waiting.
pub fn stats(conn: &Connect, one: Option<&Domain>, groups: c_uint) -> Result<Vec<Record>, Error> {
    let mut list: *mut sys::virDomainStatsRecordPtr = ptr::null_mut();
    let flags = sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT;
    // SAFETY: connection and domain are live; the list of one domain ends with null; libvirt allocates the records, which are
    // copied and freed below. `virDomainRef` gives the handle that `Domain` takes over.
    unsafe {
        let count = match one {
            None => sys::virConnectGetAllDomainStats(conn.as_ptr(), groups, &mut list, flags),
            Some(domain) => {
                let mut one = [domain.as_ptr(), ptr::null_mut()];
                sys::virDomainListGetStats(one.as_mut_ptr(), groups, &mut list, flags)
            }
        };
        if count < 0 {
            return Err(Error::last_error());
        }
        let mut out = Vec::with_capacity(count as usize);
        for i in 0..count as usize {
            let record = &**list.add(i);
            if let Some((name, uuid)) = identity(record.dom)
                && sys::virDomainRef(record.dom) == 0
            {
                let domain = Domain::from_ptr(record.dom);
                out.push(Record { name, uuid, domain, fields: fields(record.params, record.nparams) });
            }
        }
        sys::virDomainStatsRecordListFree(list);
        Ok(out)
    }
}

/// A domain's state and the reason, as libvirt's numbers.
pub fn state(domain: &Domain) -> Result<(u32, u32), Error> {
    let (mut state, mut reason): (c_int, c_int) = (0, 0);
    // SAFETY: the domain is live, the places are ours.
    if unsafe { sys::virDomainGetState(domain.as_ptr(), &mut state, &mut reason, 0) } < 0 {
        return Err(Error::last_error());
    }
    Ok((state.max(0) as u32, reason.max(0) as u32))
}

/// One virtual CPU.
pub struct VcpuInfo {
    /// Its number.
    pub number: u32,
    /// Nanoseconds that it ran.
    pub time: u64,
    /// The physical CPU that it ran on last, where the driver tells.
    pub cpu: Option<u16>,
}

/// The virtual CPUs of a running domain, at most `max`.
pub fn vcpus(domain: &Domain, max: u32) -> Result<Vec<VcpuInfo>, Error> {
    let max = max.clamp(1, 4096);
    let mut info = vec![sys::virVcpuInfo { number: 0, state: 0, cpuTime: 0, cpu: -1 }; max as usize];
    // SAFETY: `info` has room for `max`; no map of CPUs is asked for.
    let count = unsafe {
        sys::virDomainGetVcpus(domain.as_ptr(), info.as_mut_ptr(), max as c_int, ptr::null_mut(), 0)
    };
    if count < 0 {
        return Err(Error::last_error());
    }
    let vcpu =
        |v: &sys::virVcpuInfo| VcpuInfo { number: v.number, time: v.cpuTime, cpu: u16::try_from(v.cpu).ok() };
    Ok(info.iter().take(count as usize).map(vcpu).collect())
}

/// What a domain's job does: its kind (`VIR_DOMAIN_JOB_*`) and numbers; of the last ended one with `ended`.
pub fn job(domain: &Domain, ended: bool) -> Result<(u32, Fields), Error> {
    let (mut kind, mut count): (c_int, c_int) = (0, 0);
    let mut params: sys::virTypedParameterPtr = ptr::null_mut();
    let flags = if ended {
        sys::VIR_DOMAIN_JOB_STATS_COMPLETED | sys::VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED
    } else {
        0
    };
    // SAFETY: libvirt allocates the parameters; they are copied and freed here.
    unsafe {
        if sys::virDomainGetJobStats(domain.as_ptr(), &mut kind, &mut params, &mut count, flags) < 0 {
            return Err(Error::last_error());
        }
        let out = fields(params, count);
        sys::virTypedParamsFree(params, count);
        Ok((kind.max(0) as u32, out))
    }
}

/// Ends a domain's job.
pub fn abort(domain: &Domain) -> Result<(), Error> {
    // SAFETY: the domain is live.
    if unsafe { sys::virDomainAbortJob(domain.as_ptr()) } < 0 { Err(Error::last_error()) } else { Ok(()) }
}

/// The times of one physical CPU in nanoseconds, by name (`user`, `kernel`, `idle`, `iowait`).
pub fn node_cpu(conn: &Connect, cpu: u32) -> Result<Fields, Error> {
    let mut count: c_int = 0;
    // SAFETY: the first call gives the number of values, the second fills an array of that many.
    unsafe {
        if sys::virNodeGetCPUStats(conn.as_ptr(), cpu as c_int, ptr::null_mut(), &mut count, 0) < 0 {
            return Err(Error::last_error());
        }
        let room = count.clamp(0, 64);
        let mut values = vec![sys::virNodeCPUStats { field: [0; 80], value: 0 }; room as usize];
        count = room;
        if sys::virNodeGetCPUStats(conn.as_ptr(), cpu as c_int, values.as_mut_ptr(), &mut count, 0) < 0 {
            return Err(Error::last_error());
        }
        let values = values.iter().take(count.clamp(0, room) as usize);
        Ok(values.map(|v| (name(&v.field), Field::Num(v.value))).collect())
    }
}

/// The machine's memory in KiB, by name (`total`, `free`, `buffers`, `cached`).
pub fn node_memory(conn: &Connect) -> Result<Fields, Error> {
    let (mut count, all) = (0, sys::VIR_NODE_MEMORY_STATS_ALL_CELLS);
    // SAFETY: the first call gives the number of values, the second fills an array of that many.
    unsafe {
        if sys::virNodeGetMemoryStats(conn.as_ptr(), all, ptr::null_mut(), &mut count, 0) < 0 {
            return Err(Error::last_error());
        }
        let room = count.clamp(0, 64);
        let mut values = vec![sys::virNodeMemoryStats { field: [0; 80], value: 0 }; room as usize];
        count = room;
        if sys::virNodeGetMemoryStats(conn.as_ptr(), all, values.as_mut_ptr(), &mut count, 0) < 0 {
            return Err(Error::last_error());
        }
        let values = values.iter().take(count.clamp(0, room) as usize);
        Ok(values.map(|v| (name(&v.field), Field::Num(v.value))).collect())
    }
}

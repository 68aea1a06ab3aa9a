//! The thread that starts all tools.
//!
//! A tool asks to be killed when its parent dies, and for the kernel that parent is the thread that started it. The runtime's threads
//! come and go; this one stays as long as the process.

use std::{
    io,
    sync::{Mutex, PoisonError, mpsc},
};
use tokio::{
    process::{Child, Command},
    runtime::Handle,
    sync::oneshot,
};

type Birth = Box<dyn FnOnce() + Send>;

static NURSERY: Mutex<Option<mpsc::Sender<Birth>>> = Mutex::new(None);

/// Starts a program on the thread that never ends.
pub async fn spawn(mut command: Command) -> io::Result<Child> {
    let runtime = Handle::current();
    let (tell, born) = oneshot::channel();
    let birth: Birth = Box::new(move || {
        let _inside = runtime.enter();
        // nobody waits any more: the child is dropped here, and killed by that
        tell.send(command.spawn()).ok();
    });
    thread()?.send(birth).map_err(|_| gone())?;
    born.await.map_err(|_| gone())?
}

fn gone() -> io::Error {
    io::Error::other("the thread that starts programs is gone")
}

fn thread() -> io::Result<mpsc::Sender<Birth>> {
    let mut nursery = NURSERY.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(thread) = &*nursery {
        return Ok(thread.clone());
    }
    let (send, births) = mpsc::channel::<Birth>();
    std::thread::Builder::new().name("nursery".into()).spawn(move || births.into_iter().for_each(|b| b()))?;
    *nursery = Some(send.clone());
    Ok(send)
}

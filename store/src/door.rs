//! The socket in a store's directory, over which its process sends copies.
//!
//! A file of the directory, not a request over HTTP: who may read the store may copy it, nobody else, and nobody far away
//! says where this machine writes.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};

const NAME: &str = "backup.sock";

/// How long the other side may be silent.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A path to the socket that fits into an address, which has room for about a hundred bytes; and what it goes through.
fn path_to(directory: &Path) -> io::Result<(PathBuf, Option<File>)> {
    const SHORT: usize = 90;
    let path = directory.join(NAME);
    if path.as_os_str().len() < SHORT || !cfg!(target_os = "linux") {
        return Ok((path, None));
    }
    let folder = File::open(directory)?;
    Ok((format!("/proc/self/fd/{}/{NAME}", folder.as_raw_fd()).into(), Some(folder)))
}

/// Listens, for whoever may open the directory's files. The store's lock is held.
pub(crate) fn open(directory: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(directory.join(NAME)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (path, _folder) = path_to(directory)?;
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(&path)?)?;
    // Nobody can connect before it listens.
    fs::set_permissions(directory.join(NAME), Permissions::from_mode(0o600))?;
    rustix::net::listen(&socket, 8)?;
    Ok(socket.into())
}

/// Asks the process that has a store.
pub(crate) fn knock(directory: &Path) -> io::Result<UnixStream> {
    let (path, _folder) = path_to(directory)?;
    let socket = UnixStream::connect(path)?;
    set_patience(&socket)?;
    Ok(socket)
}

pub(crate) fn set_patience(socket: &UnixStream) -> io::Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))
}

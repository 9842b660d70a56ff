//! The `docker` that a build finds first on its PATH.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

const SHIM: &str = include_str!("docker.sh");

/// Makes the shim in `folder`; gives back the folder to put on the PATH.
///
/// The script is the same for every build: what differs is in files beside it, so that nothing is
/// ever put into shell text.
pub(super) fn install(
    folder: &Path,
    ecr_host: &str,
    registry: &str,
    path: &OsStr,
) -> io::Result<PathBuf> {
    let (bin, engine) = (folder.join("bin"), folder.join("engine"));
    fs::create_dir_all(&bin)?;
    fs::create_dir_all(&engine)?;
    fs::write(folder.join("registry"), format!("{ecr_host}\n{registry}\n"))?;
    if let Some(docker) = find(path, "docker") {
        symlink(docker, engine.join("docker"))?;
    }
    let shim = bin.join("docker");
    fs::write(&shim, SHIM)?;
    fs::set_permissions(&shim, fs::Permissions::from_mode(0o755))?;
    Ok(bin)
}

/// The first executable file of a name on a PATH.
pub(super) fn find(path: &OsStr, name: &str) -> Option<PathBuf> {
    std::env::split_paths(path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|program| {
            fs::metadata(program)
                .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
        })
}

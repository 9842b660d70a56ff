//! Where the command finds the template and the functions that it runs.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::error::Error;

/// The template's place within a checkout.
const TEMPLATE: &str = "infra/template.yaml";

/// The template: the given one, or the one of the checkout that this folder or this command is in.
///
/// # Errors
/// When there is none.
pub(crate) fn template(given: Option<&Path>) -> Result<PathBuf, Error> {
    if let Some(path) = given {
        return if path.is_file() {
            Ok(path.to_owned())
        } else {
            Err(Error::NoTemplate(path.into()))
        };
    }
    let command = env::current_exe().ok();
    let folders = [env::current_dir().ok(), command];
    folders
        .iter()
        .flatten()
        .flat_map(|folder| folder.ancestors())
        .map(|folder| folder.join(TEMPLATE))
        .find(|path| path.is_file())
        .ok_or_else(|| Error::NoTemplate(TEMPLATE.into()))
}

/// The folder of the functions' binaries: the given one, or this command's.
///
/// # Errors
/// When this command's folder cannot be found.
pub(crate) fn functions(given: Option<&Path>) -> Result<PathBuf, Error> {
    match given {
        Some(folder) => Ok(folder.to_owned()),
        None => env::current_exe()
            .ok()
            .and_then(|command| command.parent().map(Path::to_owned))
            .ok_or(Error::NoFunctions),
    }
}

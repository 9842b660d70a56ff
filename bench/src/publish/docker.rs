//! `docker manifest`, as a pipeline written by hand uses it.

use std::{fs, io, path::Path, process::Stdio};

use archweld_model::{ImageTag, Platform};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

use super::{Error, image::Pushed};

/// The client, with a home of its own and logged in to one registry.
pub(crate) struct Docker {
    program: String,
    home: TempDir,
}

impl Docker {
    /// `token` is the base64 of user and password.
    pub(crate) fn new(program: &str, registry: &str, token: &str) -> io::Result<Self> {
        let home = tempfile::tempdir()?;
        let config = json!({"auths": {registry: {"auth": token}}});
        fs::write(home.path().join("config.json"), config.to_string())?;
        Ok(Self { program: program.to_owned(), home })
    }

    /// Makes a manifest list of images, tells each one's platform, and pushes it under a tag.
    pub(crate) async fn publish(
        &self,
        repository: &str,
        tag: &ImageTag,
        images: &[(Platform, &Pushed)],
    ) -> Result<(), Error> {
        let list = &format!("{repository}:{tag}");
        let names: Vec<String> =
            images.iter().map(|(_, image)| format!("{repository}:{}", image.tag)).collect();
        let mut create = vec!["create", "--insecure", list];
        create.extend(names.iter().map(String::as_str));
        self.manifest(&create).await?;
        for ((platform, _), name) in images.iter().zip(&names) {
            let (os, architecture) = (platform.os(), platform.architecture_field());
            let mut annotate = vec!["annotate", "--os", os, "--arch", architecture];
            if let Some(variant) = platform.variant_field() {
                annotate.extend(["--variant", variant]);
            }
            annotate.extend([list, name.as_str()]);
            self.manifest(&annotate).await?;
        }
        self.manifest(&["push", "--insecure", "--purge", list]).await
    }

    async fn manifest(&self, arguments: &[&str]) -> Result<(), Error> {
        let home: &Path = self.home.path();
        let mut command = Command::new(&self.program);
        command
            .arg("manifest")
            .args(arguments)
            .env("HOME", home)
            .env("DOCKER_CONFIG", home)
            // No engine: the client speaks to the registry itself.
            .env("DOCKER_HOST", format!("unix://{}/none", home.display()))
            .stdin(Stdio::null());
        let failed = |reason: String| Error::Docker { step: arguments.join(" "), reason };
        let output = command.output().await.map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            Ok(())
        } else {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(failed(format!("{}: {}", output.status, said.trim())))
        }
    }
}

//! Images as builds push them: an OCI manifest, a config, and a layer with one program.

use std::io::{self, Write as _};

use archweld_cloud::Cloud;
use archweld_model::{Digest, ImageTag, Platform, RepositoryName};
use flate2::{Compression, write::GzEncoder};
use rand::{RngCore as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use super::Error;

/// How large the program is, in bytes. It does not compress.
const PROGRAM_BYTES: usize = 1 << 20;

/// Where the program is.
const PROGRAM: &str = "hello";

/// The layer of a platform's images.
pub(crate) struct Layer {
    pub(crate) platform: Platform,
    pub(crate) digest: Digest,
    unpacked: Digest,
    bytes: Vec<u8>,
}

/// An image that was pushed.
pub(crate) struct Pushed {
    pub(crate) tag: ImageTag,
    pub(crate) digest: Digest,
    pub(crate) media_type: &'static str,
    pub(crate) manifest_bytes: usize,
    pub(crate) size_bytes: usize,
}

impl Layer {
    pub(crate) fn new(platform: Platform) -> io::Result<Self> {
        let mut program = vec![0; PROGRAM_BYTES];
        StdRng::seed_from_u64(platform.architecture() as u64).fill_bytes(&mut program);
        let header = elf_header(platform);
        program[..header.len()].copy_from_slice(&header);
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(program.len() as u64);
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_data(&mut header, PROGRAM, &*program)?;
        let archive = archive.into_inner()?;
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&archive)?;
        let bytes = encoder.finish()?;
        Ok(Self { platform, digest: Digest::of(&bytes), unpacked: Digest::of(&archive), bytes })
    }

    /// Pushes an image with this layer that no run before had, as a build does.
    pub(crate) async fn push(
        &self,
        cloud: &Cloud,
        repository: &RepositoryName,
        run: &str,
    ) -> Result<Pushed, Error> {
        const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
        let registry = cloud.registry();
        let mut config = json!({
            "os": self.platform.os(),
            "architecture": self.platform.architecture_field(),
            "config": {"Entrypoint": [format!("/{PROGRAM}")], "Labels": {"run": run}},
            "rootfs": {"type": "layers", "diff_ids": [self.unpacked]},
        });
        if let Some(variant) = self.platform.variant_field() {
            config["variant"] = json!(variant);
        }
        let config = config.to_string();
        let (config_bytes, layer_bytes) = (config.len(), self.bytes.len());
        let config = registry.put_blob(repository, config).await?;
        registry.put_blob(repository, self.bytes.clone()).await?;
        let descriptor = |media_type: &str, digest: Digest, size: usize| -> Value {
            json!({"mediaType": media_type, "digest": digest, "size": size})
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", config, config_bytes),
            "layers": [descriptor(
                "application/vnd.oci.image.layer.v1.tar+gzip",
                self.digest,
                layer_bytes,
            )],
        });
        let manifest = manifest.to_string();
        let manifest_bytes = manifest.len();
        let tag = format!("{run}-{}", self.platform.architecture().image_name()).parse()?;
        let digest = registry.put_manifest(repository, Some(&tag), None, manifest).await?;
        let size_bytes = config_bytes + layer_bytes;
        Ok(Pushed { tag, digest, media_type: MANIFEST, manifest_bytes, size_bytes })
    }
}

/// The header of a program without sections or segments
/// (<https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html>).
fn elf_header(platform: Platform) -> Vec<u8> {
    const EXECUTABLE: u16 = 2;
    let (wide, machine, flags): (bool, u16, u32) = match platform.architecture_field() {
        "386" => (false, 3, 0),
        // The version 5 ABI with floating-point registers.
        "arm" => (false, 40, 0x0500_0400),
        "arm64" => (true, 183, 0),
        _ => (true, 62, 0),
    };
    let (class, word, length) = if wide { (2, 8, 64) } else { (1, 4, 52_u16) };
    let mut header = vec![0x7f, b'E', b'L', b'F', class, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header.extend(EXECUTABLE.to_le_bytes());
    header.extend(machine.to_le_bytes());
    header.extend(1_u32.to_le_bytes());
    // The entry point and both tables.
    header.extend(vec![0; 3 * word]);
    header.extend(flags.to_le_bytes());
    header.extend(length.to_le_bytes());
    header.resize(length.into(), 0);
    header
}

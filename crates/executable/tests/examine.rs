//! What is found in images whose layers are made here, and how much of them is read.
#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is wrong")]

use std::{collections::HashMap, io::Write as _, ops::Range, sync::Mutex, time::Duration};

use archweld_executable::{
    Blobs, Bound, Bounds, Finding, Layer, LayerProblem, ReadError, Reason, Start, examine,
};
use archweld_model::{Digest, Platform};
use bytes::Bytes;
use proptest::prelude::*;
use tar::{Builder, EntryType, Header};

const AMD64: [u8; 2] = [62, 0];
const ARM64: [u8; 2] = [183, 0];
const ARM: [u8; 2] = [40, 0];

const GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// The head of a program for a machine, and some more.
fn elf(machine: [u8; 2]) -> Vec<u8> {
    let class = if machine == ARM { 1 } else { 2 };
    let mut file = vec![0x7f, b'E', b'L', b'F', class, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0];
    file.extend(machine);
    file.resize(700, 0);
    file
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

struct Tar(Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn entry(mut self, path: &str, kind: EntryType, mode: u32, link: &str, data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(data.len() as u64);
        if !link.is_empty() {
            self.0.append_link(&mut header, path, link).unwrap();
        } else if path.len() > 100 {
            self.0.append_data(&mut header, path, data).unwrap();
        } else {
            // As it is: the builder refuses `/app` and `../app`.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            self.0.append(&header, data).unwrap();
        }
        self
    }

    fn file(self, path: &str, data: impl AsRef<[u8]>) -> Self {
        self.entry(path, EntryType::Regular, 0o755, "", data.as_ref())
    }

    fn data(self, path: &str, data: &[u8]) -> Self {
        self.entry(path, EntryType::Regular, 0o644, "", data)
    }

    fn directory(self, path: &str) -> Self {
        self.entry(path, EntryType::Directory, 0o755, "", &[])
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, EntryType::Symlink, 0o777, target, &[])
    }

    fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(path, EntryType::Link, 0o755, target, &[])
    }

    fn plain(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }

    fn gzip(self) -> Vec<u8> {
        gzip(&self.plain())
    }

    fn zstd(self) -> Vec<u8> {
        zstd::encode_all(&*self.plain(), 3).unwrap()
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An image in memory; the last layer is the uppermost.
#[derive(Default)]
struct Image {
    layers: Vec<Layer>,
    blobs: HashMap<Digest, Result<Bytes, ReadError>>,
    reads: Mutex<Vec<(Digest, Range<u64>)>>,
    hangs: bool,
}

impl Image {
    fn of(layers: impl IntoIterator<Item = Vec<u8>>) -> Self {
        layers.into_iter().fold(Self::default(), |image, layer| image.layer(GZIP, layer))
    }

    fn layer(mut self, media_type: &str, bytes: Vec<u8>) -> Self {
        let digest = Digest::of(&bytes);
        let media_type = media_type.to_owned();
        self.layers.push(Layer { digest, media_type, size_bytes: bytes.len() as u64 });
        self.blobs.insert(digest, Ok(bytes.into()));
        self
    }

    async fn examine(&self, platform: &str, config: &str, bounds: Bounds) -> Finding {
        let platform: Platform = platform.parse().unwrap();
        let start: Start = serde_json::from_str(config).unwrap();
        examine(platform, &start, self.layers.clone(), self, bounds).await
    }

    /// The path found, and the number of its layer from the bottom.
    async fn runs(&self, platform: &str, config: &str) -> (String, usize) {
        match self.examine(platform, config, Bounds::default()).await {
            Finding::Runs(program) => (program.path, self.number(program.layer)),
            other => panic!("{other:?}"),
        }
    }

    async fn foreign(&self, platform: &str, config: &str) -> (String, usize) {
        match self.examine(platform, config, Bounds::default()).await {
            Finding::Foreign(program) => (program.path, self.number(program.layer)),
            other => panic!("{other:?}"),
        }
    }

    async fn unknown(&self, platform: &str, config: &str) -> Reason {
        match self.examine(platform, config, Bounds::default()).await {
            Finding::Unknown(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    fn number(&self, digest: Digest) -> usize {
        self.layers.iter().position(|layer| layer.digest == digest).unwrap()
    }

    /// Bytes read of the layer with a number from the bottom; no byte twice.
    fn read_bytes(&self, number: usize) -> u64 {
        let reads = self.reads.lock().unwrap();
        let reads = reads.iter().filter(|(digest, _)| *digest == self.layers[number].digest);
        reads.fold(0, |end, (_, range)| {
            assert_eq!(range.start, end, "not read one after another");
            range.end
        })
    }
}

impl Blobs for Image {
    async fn read(&self, digest: Digest, range: Range<u64>) -> Result<Bytes, ReadError> {
        self.reads.lock().unwrap().push((digest, range.clone()));
        if self.hangs {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        let bytes = self.blobs[&digest].clone()?;
        assert!(range.start < range.end && range.end <= bytes.len() as u64, "{range:?}");
        Ok(bytes.slice(range.start as usize..range.end as usize))
    }
}

const APP: &str = r#"{"Entrypoint": ["/app"]}"#;
const SHELL_FORM: &str = r#"{"Cmd": ["/bin/sh", "-c", "exec node server.js"]}"#;

/// Like Debian's: merged `/usr`, sorted.
fn debian(machine: [u8; 2]) -> Tar {
    Tar::new()
        .symlink("bin", "usr/bin")
        .directory("etc/")
        .data("etc/passwd", b"root:x:0:0:root:/root:/bin/bash\n")
        .symlink("lib", "usr/lib")
        .directory("usr/")
        .directory("usr/bin/")
        .file("usr/bin/bash", elf(machine))
        .file("usr/bin/dash", elf(machine))
        .file("usr/bin/env", elf(machine))
        .symlink("usr/bin/sh", "dash")
        .data("usr/lib/os-release", b"ID=debian\n")
}

#[tokio::test(start_paused = true)]
async fn finds_a_static_binary_in_each_compression() {
    let tar = || Tar::new().data("etc/ssl/ca.pem", b"-").file("app", elf(ARM64));
    for (media_type, layer) in [
        ("application/vnd.oci.image.layer.v1.tar", tar().plain()),
        ("application/vnd.oci.image.layer.v1.tar+gzip", tar().gzip()),
        ("application/vnd.oci.image.layer.v1.tar+zstd", tar().zstd()),
        (GZIP, tar().gzip()),
        ("application/vnd.docker.image.rootfs.diff.tar.zstd", tar().zstd()),
        // The engines go by the first bytes, too.
        (GZIP, tar().zstd()),
    ] {
        let image = Image::default().layer(media_type, layer);
        assert_eq!(image.runs("linux/arm64", APP).await, ("/app".to_owned(), 0));
        assert_eq!(image.foreign("linux/amd64", APP).await, ("/app".to_owned(), 0));
    }
}

#[tokio::test(start_paused = true)]
async fn reads_layers_of_several_gzip_members_and_zstd_frames() {
    // As eStargz and zstd:chunked have; the pieces end within entries.
    let mut plain = Tar::new().data("a", &noise(40_000)).file("app", elf(ARM64)).plain();
    plain.resize(plain.len().next_multiple_of(16 << 10), 0);
    let skipped = [0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    for piece_bytes in [999, 16 << 10] {
        let pieces = || plain.chunks(piece_bytes);
        let members = pieces().flat_map(gzip).collect();
        let frames = pieces().flat_map(|piece| zstd::encode_all(piece, 3).unwrap());
        let frames = skipped.into_iter().chain(frames).chain(skipped).collect();
        for layer in [members, frames] {
            let image = Image::of([layer]);
            assert_eq!(image.runs("linux/arm64", APP).await, ("/app".to_owned(), 0));
            assert_eq!(image.foreign("linux/amd64", APP).await, ("/app".to_owned(), 0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_layer_without_the_blocks_that_end_it_is_whole() {
    let plain = Tar::new().data("a", &noise(15_872)).plain();
    for layer in [
        plain[..16 << 10].to_vec(),
        gzip(&plain[..16 << 10]),
        zstd::encode_all(&plain[..16 << 10], 1).unwrap(),
    ] {
        let image = Image::of([layer]);
        assert_eq!(image.unknown("linux/amd64", APP).await, Reason::NoProgram);
    }
}

#[tokio::test(start_paused = true)]
async fn any_shell_stands_for_the_shell() {
    let base = Tar::new()
        .symlink("bin", "usr/bin")
        .file("usr/bin/bash", elf(AMD64))
        .data("usr/bin/perl", &vec![b'x'; 4 << 20])
        .symlink("usr/bin/sh", "bash");
    let image = Image::of([base.plain()]);
    assert_eq!(image.runs("linux/amd64", SHELL_FORM).await, ("/usr/bin/bash".to_owned(), 0));
    assert_eq!(image.read_bytes(0), 64 << 10);
}

#[tokio::test(start_paused = true)]
async fn an_examination_may_move_between_threads() {
    fn is_send<T: Send>(future: T) -> T {
        future
    }
    let image = Image::default();
    let start = Start::default();
    let platform = "linux/amd64".parse().unwrap();
    let examination = is_send(examine(platform, &start, Vec::new(), &image, Bounds::default()));
    assert_eq!(examination.await, Finding::Unknown(Reason::NoProgram));
}

#[tokio::test(start_paused = true)]
async fn follows_the_links_of_a_merged_usr() {
    let image = Image::of([debian(AMD64).gzip(), Tar::new().data("srv/server.js", b"1").gzip()]);
    assert_eq!(image.runs("linux/amd64", SHELL_FORM).await, ("/usr/bin/dash".to_owned(), 0));
    let Finding::Foreign(program) =
        image.examine("linux/arm64", SHELL_FORM, Bounds::default()).await
    else {
        panic!("an amd64 userland under an arm64 config")
    };
    assert_eq!(program.machine.to_string(), "x86-64");
}

#[tokio::test(start_paused = true)]
async fn follows_hard_links_as_busybox_has() {
    let busybox = Tar::new()
        .file("bin/[", elf(ARM))
        .hard_link("bin/[[", "bin/[")
        .hard_link("bin/busybox", "bin/[")
        .hard_link("bin/sh", "./bin/[");
    let image = Image::of([busybox.gzip()]);
    assert_eq!(image.runs("linux/arm/v7", r#"{"Cmd": ["sh"]}"#).await, ("/bin/[".to_owned(), 0));
    // Replacing one name does not replace the file behind the others.
    let image = Image::of([
        Tar::new().file("bin/[", elf(ARM)).hard_link("bin/sh", "bin/[").gzip(),
        Tar::new().file("bin/[", elf(AMD64)).gzip(),
    ]);
    assert_eq!(image.runs("linux/arm/v7", r#"{"Cmd": ["sh"]}"#).await, ("/bin/[".to_owned(), 0));
}

#[tokio::test(start_paused = true)]
async fn follows_scripts_to_their_interpreters() {
    let node = || {
        Tar::new()
            .symlink("opt/node/current", "v24")
            .file("opt/node/v24/bin/node", elf(AMD64))
            .symlink("usr/local/bin/node", "../../../opt/node/current/bin/node")
            .symlink("usr/local/bin/nodejs", "/usr/local/bin/node")
            .gzip()
    };
    for (script, path, number) in [
        ("#!/bin/sh\nexec \"$@\"\n", "/usr/bin/dash", 0),
        ("#!/usr/bin/env node\n", "/opt/node/v24/bin/node", 1),
        ("#!/usr/bin/env -S nodejs --x\n", "/opt/node/v24/bin/node", 1),
        ("#! /usr/local/bin/again\n", "/usr/bin/bash", 0),
    ] {
        let scripts = Tar::new()
            .file("usr/local/bin/again", "#!/bin/bash -e\n")
            .file("usr/local/bin/docker-entrypoint.sh", script);
        let image = Image::of([debian(AMD64).gzip(), node(), scripts.gzip()]);
        let config = r#"{"Entrypoint": ["docker-entrypoint.sh"], "Cmd": ["node"]}"#;
        assert_eq!(image.runs("linux/amd64", config).await, (path.to_owned(), number));
    }
}

#[tokio::test(start_paused = true)]
async fn looks_along_the_path_and_in_the_working_directory() {
    let layer = Tar::new()
        .file("./srv/bin/app", elf(ARM64))
        .file("/opt/java/bin/java", elf(ARM64))
        .file("usr/bin/java", elf(AMD64));
    let image = Image::of([layer.gzip()]);
    for (config, path) in [
        (r#"{"Entrypoint": ["bin/app"], "WorkingDir": "/srv"}"#, "/srv/bin/app"),
        (r#"{"Cmd": ["./app"], "WorkingDir": "srv/bin/"}"#, "/srv/bin/app"),
        (r#"{"Cmd": ["../srv/./bin/app"], "WorkingDir": "/usr"}"#, "/srv/bin/app"),
        (r#"{"Cmd": ["java"], "Env": ["PATH=/opt/java/bin:/usr/bin"]}"#, "/opt/java/bin/java"),
    ] {
        assert_eq!(image.runs("linux/arm64", config).await, (path.to_owned(), 0));
    }
}

#[tokio::test(start_paused = true)]
async fn the_upper_layer_wins() {
    let image = Image::of([
        debian(AMD64).file("usr/local/bin/app", elf(AMD64)).gzip(),
        Tar::new().file("usr/local/bin/app", elf(ARM64)).gzip(),
    ]);
    let config = r#"{"Entrypoint": ["app"]}"#;
    assert_eq!(image.runs("linux/arm64", config).await, ("/usr/local/bin/app".to_owned(), 1));
    assert_eq!(image.foreign("linux/amd64", config).await, ("/usr/local/bin/app".to_owned(), 1));
}

#[tokio::test(start_paused = true)]
async fn an_upper_layer_may_fill_a_directory_that_is_a_link_below() {
    let image = Image::of([debian(AMD64).gzip(), Tar::new().file("bin/tool", elf(AMD64)).gzip()]);
    let config = r#"{"Entrypoint": ["/bin/tool"]}"#;
    assert_eq!(image.runs("linux/amd64", config).await, ("/bin/tool".to_owned(), 1));
}

#[tokio::test(start_paused = true)]
async fn whiteouts_hide_what_is_below() {
    for hiding in [
        Tar::new().data("opt/app/.wh.run", b""),
        Tar::new().data("opt/.wh.app", b""),
        Tar::new().data("opt/app/.wh..wh..opq", b""),
        Tar::new().symlink("opt/app", "/elsewhere"),
    ] {
        let image = Image::of([
            debian(ARM64).gzip(),
            Tar::new().file("opt/app/run", elf(AMD64)).gzip(),
            hiding.gzip(),
        ]);
        let config = r#"{"Entrypoint": ["/opt/app/run"]}"#;
        // The program is gone; the shell stands for it.
        assert_eq!(image.runs("linux/arm64", config).await, ("/usr/bin/dash".to_owned(), 0));
    }
    // What the layer itself has stays.
    let replaced = Tar::new().data("opt/.wh..wh..opq", b"").file("opt/run", elf(ARM64));
    let image = Image::of([Tar::new().file("opt/run", elf(AMD64)).gzip(), replaced.gzip()]);
    let config = r#"{"Entrypoint": ["/opt/run"]}"#;
    assert_eq!(image.runs("linux/arm64", config).await, ("/opt/run".to_owned(), 1));
}

#[tokio::test(start_paused = true)]
async fn the_shell_stands_for_what_is_not_found_or_no_program() {
    let strange = Tar::new().file("app", "MZ").file("bare", "echo no first line\n");
    let image = Image::of([debian(AMD64).gzip(), strange.gzip()]);
    for config in [
        "{}",
        r#"{"Entrypoint": ["/app"]}"#,
        r#"{"Entrypoint": ["/bare"]}"#,
        r#"{"Entrypoint": ["/nowhere"]}"#,
        r#"{"Cmd": ["nowhere"]}"#,
    ] {
        assert_eq!(image.foreign("linux/arm64", config).await, ("/usr/bin/dash".to_owned(), 0));
    }
}

#[tokio::test(start_paused = true)]
async fn programs_that_an_image_carries_as_data_do_not_stand_for_its_own() {
    let data = || {
        Tar::new()
            .file("app/testdata/arm64", elf(ARM64))
            .file("usr/aarch64-linux-gnu/lib/ld-linux-aarch64.so.1", elf(ARM64))
            .file("usr/bin/qemu-aarch64-static", elf(ARM64))
            .file("usr/lib/firmware/dsp", elf(ARM))
    };
    let config = r#"{"Entrypoint": ["/nowhere"]}"#;
    let image = Image::of([data().gzip()]);
    assert_eq!(image.unknown("linux/amd64", config).await, Reason::NoProgram);
    // One native program is enough, but several processors tell nothing.
    let image = Image::of([data().file("usr/local/bin/tool", elf(AMD64)).gzip()]);
    assert_eq!(image.runs("linux/amd64", config).await, ("/usr/local/bin/tool".to_owned(), 0));
    let image = Image::of([data()
        .file("usr/bin/agent", elf(ARM64))
        .file("usr/local/bin/tool", elf(AMD64))
        .gzip()]);
    let reason = image.unknown("linux/amd64", config).await;
    assert_eq!(
        reason.to_string(),
        "the program that is started was not found, and of the others /usr/bin/agent is compiled \
         for AArch64, but /usr/local/bin/tool for x86-64"
    );
}

#[tokio::test(start_paused = true)]
async fn reads_only_the_beginning_of_a_layer_that_begins_with_the_program() {
    let top = Tar::new().file("app", elf(ARM64)).data("assets", &noise(1 << 20));
    let image = Image::of([debian(AMD64).gzip(), top.gzip()]);
    assert!(image.layers[1].size_bytes > 1 << 20);
    image.runs("linux/arm64", APP).await;
    assert_eq!(image.read_bytes(1), 64 << 10);
    // That it is foreign is known as soon: no layer above could say otherwise.
    let image = Image { reads: Mutex::default(), ..image };
    image.foreign("linux/amd64", APP).await;
    assert_eq!(image.read_bytes(1), 64 << 10);
}

#[tokio::test(start_paused = true)]
async fn reads_on_where_the_program_may_be() {
    // The base image has the shell 2 MiB deep; the layers above are past it.
    let base = Tar::new()
        .symlink("bin", "usr/bin")
        .data("etc/big", &vec![b'x'; 2 << 20])
        .file("usr/bin/dash", elf(AMD64))
        .symlink("usr/bin/sh", "dash")
        .data("usr/share/big", &vec![b'x'; 4 << 20]);
    let libraries = |n: u8| {
        let name = format!("usr/lib/{n}");
        Tar::new().data("usr/lib/0", b"").data(&name, &vec![n; 6 << 20])
    };
    let image = Image::of([base.plain(), libraries(1).plain(), libraries(2).plain()]);
    assert_eq!(image.runs("linux/amd64", SHELL_FORM).await, ("/usr/bin/dash".to_owned(), 0));
    assert_eq!([1, 2].map(|number| image.read_bytes(number)), [64 << 10; 2]);
    assert!((2 << 20..=4 << 20).contains(&image.read_bytes(0)), "{}", image.read_bytes(0));
}

#[tokio::test(start_paused = true)]
async fn reads_the_layers_above_before_it_calls_a_program_foreign_or_none() {
    for below in [elf(AMD64), b"MZ".to_vec()] {
        let above = Tar::new().data("aaa", &vec![b'x'; 3 << 20]).file("app", elf(ARM64));
        let image = Image::of([debian(ARM64).file("app", below).gzip(), above.plain()]);
        assert_eq!(image.runs("linux/arm64", APP).await, ("/app".to_owned(), 1));
    }
}

#[tokio::test(start_paused = true)]
async fn reads_no_more_than_its_bound() {
    let layer = |n: u8| Tar::new().data("data", &vec![n; 3 << 20]).plain();
    let image = Image::of((0..6).map(layer));
    let bounds = Bounds { read_bytes_max: 5 << 20, ..Bounds::default() };
    let finding = image.examine("linux/arm64", APP, bounds).await;
    let Finding::Unknown(reason) = finding else { panic!("{finding:?}") };
    let read_bytes: u64 = (0..6).map(|number| image.read_bytes(number)).sum();
    assert_eq!(read_bytes, 5 << 20);
    assert_eq!(
        reason.to_string(),
        "the bound on bytes read was reached after 5242880 bytes of 6 layers, before any program \
         was found"
    );
}

#[tokio::test(start_paused = true)]
async fn a_shell_that_was_seen_stands_in_when_a_bound_is_reached() {
    let image = Image::of([
        debian(AMD64).gzip(),
        Tar::new().data("aaa", &vec![b'x'; 8 << 20]).file("app", elf(ARM64)).plain(),
    ]);
    let bounds = Bounds { read_bytes_max: 1 << 20, ..Bounds::default() };
    let finding = image.examine("linux/arm64", APP, bounds).await;
    assert!(matches!(&finding, Finding::Foreign(p) if p.path == "/usr/bin/dash"), "{finding:?}");
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_never_answers_ends_the_search_in_time() {
    let image = Image { hangs: true, ..Image::of([debian(AMD64).gzip()]) };
    let begun = tokio::time::Instant::now();
    let reason = image.unknown("linux/amd64", APP).await;
    assert!(matches!(reason, Reason::Bound { bound: Bound::Time, .. }), "{reason}");
    assert_eq!(begun.elapsed(), Bounds::default().time_max);
}

#[tokio::test(start_paused = true)]
async fn a_decompression_bomb_ends_at_its_bound() {
    let mut zeros = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let mut header = Header::new_gnu();
    header.set_path("data").unwrap();
    header.set_size(1 << 40);
    header.set_cksum();
    zeros.write_all(header.as_bytes()).unwrap();
    for _ in 0..64 {
        zeros.write_all(&[0; 1 << 20]).unwrap();
    }
    let bounds = Bounds { unpacked_bytes_max: 8 << 20, ..Bounds::default() };
    let image = Image::of([zeros.finish().unwrap()]);
    let finding = image.examine("linux/amd64", APP, bounds).await;
    assert!(
        matches!(finding, Finding::Unknown(Reason::Bound { bound: Bound::Unpacked, .. })),
        "{finding:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn remembers_no_more_than_its_bound() {
    let many = (0..10_000).fold(Tar::new(), |tar, n| tar.symlink(&format!("l/{n}"), "nowhere"));
    let image = Image::of([many.gzip()]);
    let bounds = Bounds { memory_bytes_max: 1 << 20, ..Bounds::default() };
    let finding = image.examine("linux/amd64", APP, bounds).await;
    assert!(
        matches!(finding, Finding::Unknown(Reason::Bound { bound: Bound::Memory, .. })),
        "{finding:?}"
    );
    assert_eq!(image.unknown("linux/amd64", APP).await, Reason::NoProgram);
}

#[tokio::test(start_paused = true)]
async fn says_which_layer_it_could_not_read() {
    let tar = || Tar::new().file("other", elf(AMD64));
    for (media_type, layer, expected) in [
        ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", tar().gzip(), "is encrypted"),
        (
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            tar().gzip(),
            "is kept outside the registry",
        ),
        (
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            tar().gzip(),
            "is kept outside the registry",
        ),
        ("application/vnd.in-toto+json", b"{}".to_vec(), "is of the unknown media type"),
        (GZIP, b"BZh91AY&SY".repeat(100), "is damaged: it has a header whose checksum is wrong"),
        (GZIP, gzip(&tar().plain()[..700]), "is damaged: it ends within an entry"),
        (GZIP, [&[0x1f, 0x8b], &[7; 64][..]].concat(), "is damaged: it cannot be decompressed"),
        (GZIP, zstd::encode_all(&tar().plain()[..600], 1).unwrap()[..40].to_vec(), "is damaged"),
        (GZIP, [&[0x28, 0xb5, 0x2f, 0xfd], &[255; 64][..]].concat(), "is damaged: it cannot be"),
    ] {
        let image = Image::default().layer(GZIP, Tar::new().gzip()).layer(media_type, layer);
        let reason = image.unknown("linux/amd64", APP).await;
        assert!(matches!(reason, Reason::Layer { .. }), "{reason:?}");
        assert!(reason.to_string().contains(expected), "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_the_registry_does_not_hand_out_is_no_alarm() {
    let error = ReadError("403 Forbidden".to_owned());
    let mut image = Image::of([Tar::new().data("x", b"").gzip(), debian(AMD64).gzip()]);
    image.blobs.insert(image.layers[1].digest, Err(error.clone()));
    let reason = image.unknown("linux/arm64", SHELL_FORM).await;
    let digest = image.layers[1].digest;
    let problem = LayerProblem::Unreadable(error);
    assert_eq!(reason, Reason::Layer { digest, problem });
    // One byte too few is as bad.
    image.blobs.insert(digest, Ok(Bytes::from_static(b"12345")));
    image.layers[1].size_bytes = 5;
    let reason = image.unknown("linux/arm64", SHELL_FORM).await;
    assert!(reason.to_string().contains("is damaged"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn reads_pax_and_gnu_names_sparse_files_and_devices() {
    let long = format!("{}/app", "d".repeat(200));
    let mut pax = Tar::new();
    let records = [
        ("SCHILY.xattr.security.capability", &b"\x01\x00\x00\x02\n=\n"[..]),
        ("path", long.as_bytes()),
    ];
    pax.0.append_pax_extensions(records).unwrap();
    let pax = pax.file("short", elf(ARM64));
    // GNU's header, for a name that is too long for the old one.
    let gnu = Tar::new()
        .entry("dev/null", EntryType::Char, 0o666, "", &[])
        .entry("fifo", EntryType::Fifo, 0o666, "", &[])
        .file(&long, elf(ARM64));
    let mut sparse = Tar::new();
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_path("sparse").unwrap();
    header.set_mode(0o755);
    header.set_size(1024);
    header.as_gnu_mut().unwrap().set_is_extended(true);
    header.set_cksum();
    let mut map = [[0; 512], [0; 512]];
    map[0][504] = 1;
    let bytes = sparse.0.get_mut();
    bytes.extend(header.as_bytes());
    bytes.extend(map.concat());
    bytes.extend([7; 1024]);
    let sparse = sparse.file(&long, elf(ARM64));
    let config = format!(r#"{{"Entrypoint": ["/{long}"]}}"#);
    for layer in [pax, gnu, sparse] {
        let image = Image::of([layer.gzip()]);
        assert_eq!(image.runs("linux/arm64", &config).await, (format!("/{long}"), 0));
    }
}

#[tokio::test(start_paused = true)]
async fn follows_no_link_for_ever() {
    let deep = "../d/".repeat(600);
    let layer = Tar::new()
        .symlink("app", "app")
        .symlink("a", "/b")
        .symlink("b", "a")
        .symlink("d", ".")
        .symlink("e", &deep)
        .hard_link("h", "h")
        .file("s", "#!/s\n");
    let image = Image::of([layer.gzip()]);
    for command in ["/app", "/a", "/b/x", "/e/x", "/h", "/s", "/../../..", "/d/d/d/d"] {
        let config = format!(r#"{{"Entrypoint": ["{command}"]}}"#);
        assert_eq!(image.unknown("linux/amd64", &config).await, Reason::NoProgram, "{command}");
    }
    let config = r#"{"Entrypoint": ["/../d/d/../app"]}"#;
    let image = Image::of([Tar::new().symlink("d", ".").file("../app", elf(AMD64)).gzip()]);
    assert_eq!(image.runs("linux/amd64", config).await, ("/app".to_owned(), 0));
}

#[tokio::test(start_paused = true)]
async fn an_image_of_no_layers_has_no_program() {
    assert_eq!(Image::default().unknown("linux/amd64", APP).await, Reason::NoProgram);
}

/// A layer with one of everything.
fn everything() -> Tar {
    let long = format!("{}/x", "n".repeat(150));
    debian(AMD64)
        .file(&long, elf(ARM64))
        .hard_link("hard", "usr/bin/dash")
        .data("gone/.wh.x", b"")
        .file("script", "#!/bin/sh\n")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// It neither panics nor hangs, and reads within its bounds, whatever the bytes.
    #[test]
    fn mangled_layers_do_no_harm(
        compression in 0..3,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        inner in any::<bool>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mangle = |mut bytes: Vec<u8>| {
            for (index, value) in &edits {
                let at = index.index(bytes.len());
                bytes[at] = *value;
            }
            bytes.truncate(cut.index(bytes.len()) + 1);
            bytes
        };
        let plain = everything().plain();
        let plain = if inner { mangle(plain) } else { plain };
        let packed = match compression {
            0 => plain,
            1 => gzip(&plain),
            _ => zstd::encode_all(&*plain, 1).unwrap(),
        };
        let image = Image::of([if inner { packed } else { mangle(packed) }]);
        let bounds = Bounds { unpacked_bytes_max: 4 << 20, ..Bounds::default() };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let config = r#"{"Entrypoint": ["/script"]}"#;
        runtime.block_on(image.examine("linux/amd64", config, bounds));
    }

    /// Headers with right checksums and wild fields.
    #[test]
    fn wild_headers_do_no_harm(
        fields in prop::collection::vec((any::<[u8; 12]>(), any::<u8>(), "[./ab]{0,12}", "[./ab]{0,12}"), 1..12),
    ) {
        let mut bytes = Vec::new();
        for (size, kind, path, link) in fields {
            let mut header = Header::new_gnu();
            let raw = header.as_mut_bytes();
            raw[..path.len()].copy_from_slice(path.as_bytes());
            raw[157..157 + link.len()].copy_from_slice(link.as_bytes());
            raw[124..136].copy_from_slice(&size);
            raw[156] = b"0125xgLKS7"[usize::from(kind) % 10];
            header.set_mode(0o755);
            header.set_cksum();
            bytes.extend(header.as_bytes());
            bytes.extend([b'x'; 512]);
        }
        let image = Image::of([bytes]);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let config = r#"{"Entrypoint": ["a/b"]}"#;
        runtime.block_on(image.examine("linux/amd64", config, Bounds::default()));
    }
}

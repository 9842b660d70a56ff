//! The store: across restarts and crashes, at its limit, and under several clients at once.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use archweld_model::{Digest, RepositoryName};
use archweld_registry::{OpenError, Options, Registry, RegistryError, Storage, TagMutability};
use axum::body::Body;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fixture::{Fixture, app, error, host, image, index, open, options};

/// The names of the files in a folder, or nothing where there is no such folder.
fn files(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn blob_files(folder: &Path) -> BTreeSet<String> {
    files(&folder.join("blobs/sha256"))
}

/// Makes `app` and pushes an index of one image into it.
async fn push(registry: &Registry) -> Digest {
    registry.create_repository(&app(), TagMutability::Immutable).await.unwrap();
    let (config, layer) = ("config", "layer");
    registry.put_blob(&app(), config).await.unwrap();
    registry.put_blob(&app(), layer).await.unwrap();
    let manifest = image(config, layer).to_string();
    let child = registry.put_manifest(&app(), None, None, manifest.clone()).await.unwrap();
    let child = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": child, "size": manifest.len(),
    });
    let tag = "v1".parse().unwrap();
    registry.put_manifest(&app(), Some(&tag), None, index(&[child]).to_string()).await.unwrap()
}

async fn described(registry: &Registry) -> Value {
    let input = json!({"repositoryName": "app"});
    let images = registry.call("DescribeImages", input).await.unwrap();
    let repositories = registry.call("DescribeRepositories", json!({})).await.unwrap();
    json!([images, repositories])
}

#[tokio::test]
async fn everything_is_there_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let registry = open(folder.path()).unwrap();
    let digest = push(&registry).await;
    let (before, bytes) = (described(&registry).await, registry.total_bytes());
    let token = registry.authorization_token();
    drop(registry);

    // Twice: the first opening rewrites the journal.
    for _ in 0..2 {
        let registry = open(folder.path()).unwrap();
        assert_eq!(described(&registry).await, before);
        assert_eq!(registry.total_bytes(), bytes);
        assert_eq!(registry.authorization_token(), token);
        let tag: archweld_model::ImageTag = "v1".parse().unwrap();
        let image = registry.manifest(&app(), tag).await.unwrap();
        assert_eq!((image.digest, Digest::of(&image.bytes)), (digest, digest));
        assert_eq!(registry.blob(&app(), &Digest::of(b"layer")).await.unwrap(), "layer");
    }
}

#[tokio::test]
async fn only_its_owner_may_read_the_secret() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).unwrap());
    let mode = fs::metadata(folder.path().join("secret")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_folder_belongs_to_one_registry_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path()).unwrap();
    assert!(matches!(open(folder.path()), Err(OpenError::InUse(path)) if path == folder.path()));
    drop(first);
    assert!(open(folder.path()).is_ok());
}

#[tokio::test]
async fn what_a_crash_left_half_done_is_swept_and_never_served() {
    let folder = tempfile::tempdir().unwrap();
    let registry = open(folder.path()).unwrap();
    push(&registry).await;
    let before = described(&registry).await;
    let blobs = blob_files(folder.path());
    drop(registry);

    // An upload that was never finished, and a blob whose transaction was never written.
    fs::write(folder.path().join("uploads/.tmpABC"), "half").unwrap();
    let unheld = Digest::of(b"unheld").to_string();
    let unheld = folder.path().join("blobs/sha256").join(unheld.trim_start_matches("sha256:"));
    fs::write(unheld, "unheld").unwrap();

    let registry = open(folder.path()).unwrap();
    assert_eq!(described(&registry).await, before);
    assert_eq!(blob_files(folder.path()), blobs);
    assert!(files(&folder.path().join("uploads")).is_empty());
}

#[tokio::test]
async fn a_damaged_folder_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    push(&open(folder.path()).unwrap()).await;
    let missing = Digest::of(b"layer");
    let file = missing.to_string();
    let file = folder.path().join("blobs/sha256").join(file.trim_start_matches("sha256:"));
    fs::remove_file(&file).unwrap();
    let refused = open(folder.path()).err().unwrap();
    assert!(matches!(refused, OpenError::BlobMissing { digest, .. } if digest == missing));
    fs::write(&file, "layer").unwrap();

    let journal = folder.path().join("journal.jsonl");
    let whole = fs::read_to_string(&journal).unwrap();
    fs::write(&journal, format!("{whole}nonsense\n")).unwrap();
    let lines = whole.lines().count();
    let refused = open(folder.path()).err().unwrap();
    assert!(matches!(refused, OpenError::Journal { line, .. } if line == lines + 1));
}

#[test]
fn a_journal_cut_anywhere_opens_with_the_transactions_before_the_cut() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    runtime.block_on(async { push(&open(folder.path()).unwrap()).await });
    let journal = fs::read(folder.path().join("journal.jsonl")).unwrap();
    let blobs = folder.path().join("blobs/sha256");

    proptest!(ProptestConfig::with_cases(40), |(cut in 0..=journal.len())| {
        let copy = tempfile::tempdir().unwrap();
        fs::create_dir_all(copy.path().join("blobs/sha256")).unwrap();
        for blob in files(&blobs) {
            fs::copy(blobs.join(&blob), copy.path().join("blobs/sha256").join(&blob)).unwrap();
        }
        fs::write(copy.path().join("journal.jsonl"), &journal[..cut]).unwrap();
        let whole_lines = journal[..cut].iter().filter(|&&byte| byte == b'\n').count();

        runtime.block_on(async {
            let registry = open(copy.path()).unwrap();
            // The transactions: the repository, two blobs, the image, the index with its tag.
            assert_eq!(registry.repositories().len(), usize::from(whole_lines >= 1));
            assert_eq!(blob_files(copy.path()).len(), whole_lines.saturating_sub(1));
            if whole_lines >= 1 {
                let tags = registry.tags(&app()).unwrap();
                assert_eq!(tags.len(), usize::from(whole_lines == 5));
            } else {
                // What was lost can be done again.
                push(&registry).await;
            }
        });
    });
}

#[tokio::test]
async fn a_full_registry_refuses_an_upload_and_keeps_nothing_of_it() {
    let folder = tempfile::tempdir().unwrap();
    for storage in [Storage::Folder(folder.path().to_owned()), Storage::Memory] {
        let env = Fixture::new(Options { bytes_max: Some(100), ..options(storage) }).await;
        env.registry.put_blob(&app(), vec![0; 60]).await.unwrap();

        let upload = env.begin_upload().await;
        let reply = env.send("PATCH", &upload, &[], vec![1; 30]).await;
        assert_eq!(reply.status, 202);
        let reply = env.send("PATCH", &upload, &[], vec![1; 11]).await;
        assert_eq!(reply.error(), error(403, "DENIED"));
        assert!(reply.json()["errors"][0]["message"].as_str().unwrap().contains("100 bytes"));
        assert_eq!(env.get(&upload).await.error(), error(404, "BLOB_UPLOAD_UNKNOWN"));

        let put = env.registry.put_blob(&app(), vec![2; 41]).await;
        assert!(matches!(put, Err(RegistryError::Full { bytes_max: 100 })));
        let manifest = index(&[]).to_string() + &" ".repeat(100);
        let input = json!({"repositoryName": "app", "imageManifest": manifest});
        assert_eq!(env.call("PutImage", input).await, Err("LimitExceededException".to_owned()));

        // A blob that is there already takes no room, once it is known to be there.
        assert_eq!(env.registry.total_bytes(), 60);
        env.registry.put_blob(&app(), vec![3; 40]).await.unwrap();
        assert!(files(&folder.path().join("uploads")).is_empty());
    }
}

/// Mounts a small file system on a folder until dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(bytes: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "archweld-test"])
            .arg(folder.path())
            .output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "failed to unmount");
    }
}

#[tokio::test]
async fn a_full_disk_refuses_an_upload_and_keeps_nothing_of_it() {
    let Some(disk) = SmallDisk::mount(1 << 20) else {
        eprintln!("skipped: mounting a small file system needs root");
        return;
    };
    let env = Fixture::new(options(Storage::Folder(disk.0.path().to_owned()))).await;
    let (bytes, large) = (env.registry.total_bytes(), vec![1; 2 << 20]);
    let upload = env.begin_upload().await;
    let reply = env.send("PATCH", &upload, &[], large.clone()).await;
    assert_eq!(reply.error(), error(403, "DENIED"));
    assert_eq!(env.get(&upload).await.error(), error(404, "BLOB_UPLOAD_UNKNOWN"));
    let put = env.registry.put_blob(&app(), large).await;
    assert!(matches!(put, Err(RegistryError::DiskFull(_))));
    assert_eq!(env.registry.total_bytes(), bytes);
    assert!(files(&disk.0.path().join("uploads")).is_empty());

    // Not even the journal finds room; once there is some, it goes on where it was.
    let filler = disk.0.path().join("filler");
    let filled = fs::write(&filler, vec![0; 2 << 20]);
    assert!(filled.is_err());
    let name = |number: usize| -> RepositoryName {
        format!("{number:04}-{}", "x".repeat(200)).parse().unwrap()
    };
    let mut made = 0;
    let full = loop {
        match env.registry.create_repository(&name(made), TagMutability::Mutable).await {
            Ok(()) => made += 1,
            Err(error) => break error,
        }
        assert!(made < 1000, "the disk never fills");
    };
    assert!(matches!(full, RegistryError::DiskFull(_)));
    fs::remove_file(&filler).unwrap();
    env.registry.create_repository(&name(made), TagMutability::Mutable).await.unwrap();
    let repositories = env.registry.repositories();
    assert_eq!(repositories.len(), made + 2);
    drop(env);
    assert_eq!(open(disk.0.path()).unwrap().repositories(), repositories);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_blob_pushed_by_many_at_once_is_stored_once() {
    for env in Fixture::both().await {
        let env = Arc::new(env);
        let blob = Digest::of(&[7; 1000]);
        let pushes = (0..8).map(|_| {
            let env = Arc::clone(&env);
            tokio::spawn(async move {
                let upload = env.begin_upload().await;
                env.send("PATCH", &upload, &[], vec![7; 500]).await;
                env.send("PUT", &format!("{upload}?digest={blob}"), &[], vec![7; 500]).await.status
            })
        });
        for push in pushes.collect::<Vec<_>>() {
            assert_eq!(push.await.unwrap(), 201);
        }
        assert_eq!(env.registry.total_bytes(), 1000);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_pushes_of_an_immutable_tag_one_wins() {
    for env in Fixture::both().await {
        env.registry.set_tag_mutability(&app(), TagMutability::Immutable).await.unwrap();
        let env = Arc::new(env);
        let mut pushes = Vec::new();
        for number in 0..8 {
            let manifest = env.push_layers(&number.to_string()).await;
            let env = Arc::clone(&env);
            pushes.push(tokio::spawn(async move {
                (env.put_manifest("v1", &manifest).await.status, manifest)
            }));
        }
        let mut winners = Vec::new();
        for push in pushes {
            let (status, manifest) = push.await.unwrap();
            if status == 201 {
                winners.push(manifest.to_string());
            }
        }
        assert_eq!(winners, [env.get("/v2/app/manifests/v1").await.body]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_whose_client_goes_away_can_be_resumed() {
    for env in Fixture::both().await {
        let upload = env.begin_upload().await;
        // A body that never ends, given up as soon as its first piece was taken.
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        let first = futures_util::stream::once(async { Ok::<_, std::io::Error>("cont") });
        let rest = futures_util::stream::once(async move {
            drop(sender);
            std::future::pending().await
        });
        let body = Body::from_stream(futures_util::StreamExt::chain(first, rest));
        tokio::select! {
            _ = env.send("PATCH", &upload, &[], body) => panic!("the body never ends"),
            _ = receiver => {}
        }
        let range = env.get(&upload).await.header("range").to_owned();
        assert_eq!(range, "0-3");
        let path = format!("{upload}?digest={}", Digest::of(b"content"));
        let reply = env.send("PUT", &path, &[("content-range", "4-6")], "ent").await;
        assert_eq!(reply.status, 201);
    }
}

#[tokio::test(start_paused = true)]
async fn idle_uploads_make_room_for_new_ones() {
    let env = Fixture::in_memory().await;
    let first = env.begin_upload().await;
    for _ in 1..1000 {
        env.begin_upload().await;
    }
    let uploads = "/v2/app/blobs/uploads/";
    let reply = env.send("POST", uploads, &[], Body::empty()).await;
    assert_eq!(reply.error(), error(429, "TOOMANYREQUESTS"));
    tokio::time::advance(std::time::Duration::from_secs(3600)).await;
    env.begin_upload().await;
    assert_eq!(env.get(&first).await.error(), error(404, "BLOB_UPLOAD_UNKNOWN"));
}

#[tokio::test]
async fn one_seed_gives_one_registry() {
    let open = || {
        let storage = options(Storage::Memory);
        Registry::open(host(), storage, Arc::new(|_| ())).unwrap().authorization_token()
    };
    assert_eq!(open(), open());
}

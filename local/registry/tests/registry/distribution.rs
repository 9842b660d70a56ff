//! The scenarios of the OCI conformance suite, as far as they matter, and what ECR adds to them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use archweld_model::Digest;
use archweld_registry::{Options, Storage, TagMutability};
use axum::{body::Body, http::StatusCode};
use futures_util::StreamExt as _;
use serde_json::json;

use crate::fixture::{
    DOCKER_LIST, DOCKER_MANIFEST, Fixture, OCI_INDEX, OCI_MANIFEST, app, descriptor, digest, error,
    image, index, options,
};

#[tokio::test]
async fn takes_a_blob_in_one_request_and_gives_it_back() {
    for env in Fixture::both().await {
        let blob = Digest::of(b"content");
        let path = format!("/v2/app/blobs/uploads/?digest={blob}");
        let reply = env.send("POST", &path, &[], "content").await;
        assert_eq!(reply.status, StatusCode::CREATED);
        assert_eq!(reply.header("location"), format!("/v2/app/blobs/{blob}"));

        let path = format!("/v2/app/blobs/{blob}");
        let reply = env.get(&path).await;
        assert_eq!((reply.status, &*reply.body), (StatusCode::OK, &b"content"[..]));
        assert_eq!(reply.header("docker-content-digest"), blob.to_string());
        assert_eq!(reply.header("content-length"), "7");

        let reply = env.send("HEAD", &path, &[], Body::empty()).await;
        assert_eq!((reply.status, reply.body.len()), (StatusCode::OK, 0));
        assert_eq!(reply.header("content-length"), "7");
        assert_eq!(reply.header("docker-distribution-api-version"), "registry/2.0");
    }
}

#[tokio::test]
async fn takes_a_blob_in_chunks_and_says_where_to_go_on() {
    for env in Fixture::both().await {
        let upload = env.begin_upload().await;
        let reply = env.send("PATCH", &upload, &[("content-range", "0-3")], "cont").await;
        assert_eq!((reply.status, reply.header("range")), (StatusCode::ACCEPTED, "0-3"));

        let early = env.send("PATCH", &upload, &[("content-range", "2-4")], "ent").await;
        assert_eq!(early.error(), error(416, "BLOB_UPLOAD_INVALID"));
        assert_eq!((early.header("range"), early.header("location")), ("0-3", &*upload));

        let reply = env.get(&upload).await;
        assert_eq!((reply.status, reply.header("range")), (StatusCode::NO_CONTENT, "0-3"));

        // As docker does it: no range, and the digest in a request of its own.
        let reply = env.send("PATCH", &upload, &[], "en").await;
        assert_eq!(reply.header("range"), "0-5");
        let blob = Digest::of(b"content");
        let path = format!("{upload}?digest={blob}");
        let reply = env.send("PUT", &path, &[("content-range", "6-6")], "t").await;
        assert_eq!(reply.status, StatusCode::CREATED);
        assert_eq!(env.get(&format!("/v2/app/blobs/{blob}")).await.body, "content");

        let reply = env.get(&upload).await;
        assert_eq!(reply.error(), error(404, "BLOB_UPLOAD_UNKNOWN"));
    }
}

#[tokio::test]
async fn an_interrupted_chunk_is_resumed_where_its_last_byte_was_counted() {
    for env in Fixture::both().await {
        let upload = env.begin_upload().await;
        let pieces = [Ok("cont"), Err(std::io::Error::other("connection lost"))];
        let body = Body::from_stream(futures_util::stream::iter(pieces));
        let reply = env.send("PATCH", &upload, &[], body).await;
        assert_eq!(reply.error(), error(400, "BLOB_UPLOAD_INVALID"));
        assert_eq!(env.get(&upload).await.header("range"), "0-3");
        env.send("PATCH", &upload, &[("content-range", "4-6")], "ent").await;
        let path = format!("{upload}?digest={}", Digest::of(b"content"));
        assert_eq!(env.send("PUT", &path, &[], Body::empty()).await.status, StatusCode::CREATED);
    }
}

/// Else a client that still sends hears that its connection is gone, not why.
#[tokio::test]
async fn a_refused_body_is_read_to_its_end_before_the_answer() {
    let options = Options { bytes_max: Some(10), ..options(Storage::Memory) };
    let env = Fixture::new(options).await;
    let sent = Arc::new(AtomicUsize::new(0));
    for path in ["/v2/app/blobs/uploads/unknown".to_owned(), env.begin_upload().await] {
        let counter = Arc::clone(&sent);
        let pieces = futures_util::stream::iter(0..100).map(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::io::Error>("piece")
        });
        let reply = env.send("PATCH", &path, &[], Body::from_stream(pieces)).await;
        assert!(reply.status.is_client_error(), "{path}: {}", reply.status);
        assert_eq!(sent.swap(0, Ordering::Relaxed), 100, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_upload_gives_its_room_to_a_retry_after_a_minute() {
    let options = Options { bytes_max: Some(10), ..options(Storage::Memory) };
    let env = Fixture::new(options).await;
    let cut = env.begin_upload().await;
    env.send("PATCH", &cut, &[], "123456").await;
    let put = async || {
        let upload = env.begin_upload().await;
        let path = format!("{upload}?digest={}", Digest::of(b"content"));
        env.send("PUT", &path, &[], "content").await
    };
    tokio::time::sleep(std::time::Duration::from_secs(59)).await;
    assert_eq!(put().await.error(), error(403, "DENIED"));
    assert_eq!(env.get(&cut).await.header("range"), "0-5");
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert_eq!(put().await.error(), error(403, "DENIED"));
    assert_eq!(env.get(&cut).await.error(), error(404, "BLOB_UPLOAD_UNKNOWN"));
    assert_eq!(put().await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn refuses_content_that_is_not_its_digest_and_keeps_nothing_of_it() {
    for env in Fixture::both().await {
        let upload = env.begin_upload().await;
        let other = Digest::of(b"other");
        let reply = env.send("PUT", &format!("{upload}?digest={other}"), &[], "content").await;
        assert_eq!(reply.error(), error(400, "DIGEST_INVALID"));
        assert_eq!(env.get(&upload).await.error(), error(404, "BLOB_UPLOAD_UNKNOWN"));
        let reply = env.get(&format!("/v2/app/blobs/{other}")).await;
        assert_eq!(reply.error(), error(404, "BLOB_UNKNOWN"));
        assert_eq!(env.registry.total_bytes(), 0);

        let upload = env.begin_upload().await;
        for wrong in ["", "?digest=sha256:12", &format!("?digest=sha512:{}", "0".repeat(128))] {
            let reply = env.send("PUT", &format!("{upload}{wrong}"), &[], "content").await;
            assert_eq!(reply.error(), error(400, "DIGEST_INVALID"), "{wrong}");
        }
        let lying = [("content-range", "0-9"), ("content-length", "7")];
        let reply = env.send("PATCH", &upload, &lying, "content").await;
        assert_eq!(reply.error(), error(400, "BLOB_UPLOAD_INVALID"));
    }
}

#[tokio::test]
async fn a_cancelled_upload_is_gone() {
    for env in Fixture::both().await {
        let upload = env.begin_upload().await;
        env.send("PATCH", &upload, &[], "content").await;
        let reply = env.send("DELETE", &upload, &[], Body::empty()).await;
        assert_eq!(reply.status, StatusCode::NO_CONTENT);
        let reply = env.send("PATCH", &upload, &[], "content").await;
        assert_eq!(reply.error(), error(404, "BLOB_UPLOAD_UNKNOWN"));
    }
}

#[tokio::test]
async fn an_upload_belongs_to_its_repository() {
    let env = Fixture::in_memory().await;
    env.registry
        .create_repository(&"other".parse().unwrap(), TagMutability::Mutable)
        .await
        .unwrap();
    let upload = env.begin_upload().await.replace("/app/", "/other/");
    let reply = env.send("PATCH", &upload, &[], "content").await;
    assert_eq!(reply.error(), error(404, "BLOB_UPLOAD_UNKNOWN"));
}

#[tokio::test]
async fn sends_the_part_of_a_blob_that_is_asked_for() {
    for env in Fixture::both().await {
        let blob = env.registry.put_blob(&app(), "0123456789").await.unwrap();
        let path = format!("/v2/app/blobs/{blob}");
        for (range, body, content_range) in [
            ("bytes=2-4", "234", "bytes 2-4/10"),
            ("bytes=7-", "789", "bytes 7-9/10"),
            ("bytes=-3", "789", "bytes 7-9/10"),
            ("bytes=8-99", "89", "bytes 8-9/10"),
        ] {
            let reply = env.send("GET", &path, &[("range", range)], Body::empty()).await;
            assert_eq!(reply.status, StatusCode::PARTIAL_CONTENT);
            assert_eq!(
                (&*reply.body, reply.header("content-range")),
                (body.as_bytes(), content_range)
            );
            assert_eq!(reply.header("content-length"), body.len().to_string());
        }
        let reply = env.send("GET", &path, &[("range", "bytes=10-")], Body::empty()).await;
        assert_eq!(reply.status, StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(reply.header("content-range"), "bytes */10");
        for ignored in ["bytes=0-1,3-4", "lines=0-1", "bytes=x"] {
            let reply = env.send("GET", &path, &[("range", ignored)], Body::empty()).await;
            assert_eq!((reply.status, reply.body.len()), (StatusCode::OK, 10), "{ignored}");
        }
    }
}

#[tokio::test]
async fn a_repository_sees_a_blob_of_another_only_once_it_is_mounted() {
    for env in Fixture::both().await {
        let other = "team/other".parse().unwrap();
        env.registry.create_repository(&other, TagMutability::Mutable).await.unwrap();
        let blob = env.registry.put_blob(&app(), "content").await.unwrap();
        let path = format!("/v2/team/other/blobs/{blob}");
        assert_eq!(env.get(&path).await.error(), error(404, "BLOB_UNKNOWN"));

        let uploads = "/v2/team/other/blobs/uploads/";
        for elsewhere in
            [String::new(), "&from=nowhere".to_owned(), "&from=team%2Fother".to_owned()]
        {
            let mount = format!("{uploads}?mount={blob}{elsewhere}");
            let reply = env.send("POST", &mount, &[], Body::empty()).await;
            assert_eq!(reply.status, StatusCode::ACCEPTED);
            assert!(reply.header("location").starts_with(uploads));
        }

        let reply =
            env.send("POST", &format!("{uploads}?mount={blob}&from=app"), &[], Body::empty()).await;
        assert_eq!((reply.status, reply.header("location")), (StatusCode::CREATED, &*path));
        assert_eq!(env.get(&path).await.body, "content");

        let reply = env.send("DELETE", &format!("/v2/app/blobs/{blob}"), &[], Body::empty()).await;
        assert_eq!(reply.status, StatusCode::ACCEPTED);
        assert_eq!(env.get(&path).await.body, "content");
        env.send("DELETE", &path, &[], Body::empty()).await;
        assert_eq!(env.registry.total_bytes(), 0);
    }
}

#[tokio::test]
async fn takes_dockers_and_ocis_images_and_indexes_byte_for_byte() {
    for env in Fixture::both().await {
        for (image_type, index_type) in [(OCI_MANIFEST, OCI_INDEX), (DOCKER_MANIFEST, DOCKER_LIST)]
        {
            let mut image = env.push_layers(image_type).await;
            image["mediaType"] = json!(image_type);
            let reply = env.put_manifest(&digest(&image), &image).await;
            assert_eq!(reply.status, StatusCode::CREATED);
            assert_eq!(reply.header("docker-content-digest"), digest(&image));

            let child = descriptor(image_type, &image.to_string());
            let mut index = index(&[child]);
            index["mediaType"] = json!(index_type);
            let reply = env.put_manifest("latest", &index).await;
            assert_eq!(reply.status, StatusCode::CREATED);
            let location = reply.header("location");
            assert_eq!(location, format!("/v2/app/manifests/{}", digest(&index)));

            for path in ["/v2/app/manifests/latest", location] {
                let reply = env.get(path).await;
                assert_eq!(reply.body, index.to_string());
                assert_eq!(reply.header("content-type"), index_type);
                assert_eq!(reply.header("docker-content-digest"), digest(&index));
                let reply = env.send("HEAD", path, &[], Body::empty()).await;
                assert_eq!((reply.status, reply.body.len()), (StatusCode::OK, 0));
                assert_eq!(reply.header("content-length"), index.to_string().len().to_string());
            }
        }
    }
}

#[tokio::test]
async fn refuses_an_index_with_a_missing_child() {
    let env = Fixture::in_memory().await;
    let present = env.push_image("present", None).await;
    let missing = descriptor(OCI_MANIFEST, &image("config", "layer").to_string());
    let reply = env.put_manifest("latest", &index(&[present, missing.clone()])).await;
    assert_eq!(reply.error(), error(400, "MANIFEST_BLOB_UNKNOWN"));
    let message = reply.json()["errors"][0]["message"].to_string();
    assert!(message.contains(missing["digest"].as_str().unwrap()), "{message}");
    assert_eq!(env.get("/v2/app/manifests/latest").await.error(), error(404, "MANIFEST_UNKNOWN"));
}

#[tokio::test]
async fn refuses_an_index_whose_child_is_in_another_repository() {
    let env = Fixture::in_memory().await;
    let child = env.push_image("one", None).await;
    let other = "other".parse().unwrap();
    env.registry.create_repository(&other, TagMutability::Mutable).await.unwrap();
    let pushed = env.registry.put_manifest(&other, None, None, index(&[child]).to_string()).await;
    assert!(pushed.unwrap_err().to_string().contains("must be pushed"));
}

#[tokio::test]
async fn refuses_an_image_with_a_missing_layer() {
    let env = Fixture::in_memory().await;
    env.registry.put_blob(&app(), "config").await.unwrap();
    let reply = env.put_manifest("latest", &image("config", "layer")).await;
    assert_eq!(reply.error(), error(400, "MANIFEST_BLOB_UNKNOWN"));
}

#[tokio::test]
async fn refuses_what_is_not_a_manifest_of_its_type() {
    let env = Fixture::in_memory().await;
    let manifest = env.push_layers("one").await;
    let path = "/v2/app/manifests/v1";
    let put = async |media_type: &str, body: String| {
        env.send("PUT", path, &[("content-type", media_type)], body).await.error()
    };
    let invalid = error(400, "MANIFEST_INVALID");
    assert_eq!(put(DOCKER_MANIFEST, manifest.to_string()).await, invalid);
    assert_eq!(put(OCI_INDEX, manifest.to_string()).await, invalid);
    assert_eq!(put(OCI_MANIFEST, "{".to_owned()).await, invalid);
    assert_eq!(put("text/plain", json!({"schemaVersion": 2}).to_string()).await, invalid);
    assert_eq!(put(OCI_MANIFEST, " ".repeat((4 << 20) + 1)).await, error(413, "SIZE_INVALID"));
    let wrong = Digest::of(b"other").to_string();
    assert_eq!(env.put_manifest(&wrong, &manifest).await.error(), error(400, "DIGEST_INVALID"));
    assert_eq!(env.put_manifest("-v1", &manifest).await.error(), error(400, "TAG_INVALID"));
    assert!(env.registry.tags(&app()).unwrap().is_empty());

    let charset = [("content-type", &*format!("{OCI_MANIFEST}; charset=utf-8"))];
    let reply = env.send("PUT", path, &charset, manifest.to_string()).await;
    assert_eq!(reply.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_repository_must_exist_unless_pushes_make_it() {
    let digest = Digest::of(b"content");
    let upload = format!("/v2/new/blobs/uploads/?digest={digest}");
    let env = Fixture::in_memory().await;
    let unknown = error(404, "NAME_UNKNOWN");
    assert_eq!(env.send("POST", &upload, &[], "content").await.error(), unknown);
    assert_eq!(env.get("/v2/new/manifests/latest").await.error(), unknown);
    assert_eq!(env.get("/v2/new/tags/list").await.error(), unknown);
    let reply = env.send("PUT", "/v2/new/manifests/v1", &[], index(&[]).to_string()).await;
    assert_eq!(reply.error(), unknown);
    assert_eq!(env.get("/v2/No/tags/list").await.error(), error(400, "NAME_INVALID"));

    let create_on_push = Options { create_on_push: true, ..options(Storage::Memory) };
    let env = Fixture::new(create_on_push).await;
    assert_eq!(env.send("POST", &upload, &[], "content").await.status, StatusCode::CREATED);
    assert_eq!(env.get(&format!("/v2/new/blobs/{digest}")).await.body, "content");
}

#[tokio::test]
async fn an_immutable_tag_does_not_move_not_even_to_where_it_is() {
    let env = Fixture::in_memory().await;
    let immutable = TagMutability::ImmutableWithExclusion(vec!["latest".to_owned()]);
    env.registry.set_tag_mutability(&app(), immutable).await.unwrap();
    let (one, two) = (env.push_layers("one").await, env.push_layers("two").await);
    for tag in ["v1", "latest"] {
        assert_eq!(env.put_manifest(tag, &one).await.status, StatusCode::CREATED);
    }
    for manifest in [&one, &two] {
        assert_eq!(env.put_manifest("v1", manifest).await.error(), error(400, "TAG_INVALID"));
    }
    assert_eq!(env.put_manifest("latest", &two).await.status, StatusCode::CREATED);
    assert_eq!(env.get("/v2/app/manifests/v1").await.body, one.to_string());
    assert_eq!(env.get("/v2/app/manifests/latest").await.body, two.to_string());
}

#[tokio::test]
async fn deletes_images_and_what_only_they_needed() {
    for env in Fixture::both().await {
        let kept = env.push_image("kept", Some("kept")).await;
        let bytes = env.registry.total_bytes();
        let gone = env.push_image("gone", Some("gone")).await;
        let layer = Digest::of(b"layer of gone");
        let index = index(std::slice::from_ref(&gone));
        env.put_manifest("index", &index).await;
        env.take_events();

        let path = |reference: &str| format!("/v2/app/manifests/{reference}");
        let delete = async |path: String| env.send("DELETE", &path, &[], Body::empty()).await;
        let gone = gone["digest"].as_str().unwrap();
        assert_eq!(delete(path(gone)).await.error(), error(403, "DENIED"));
        let blob = delete(format!("/v2/app/blobs/{layer}")).await;
        assert_eq!(blob.error(), error(403, "DENIED"));

        assert_eq!(delete(path("index")).await.status, StatusCode::ACCEPTED);
        assert_eq!(env.get(&path("index")).await.error(), error(404, "MANIFEST_UNKNOWN"));
        assert_eq!(env.get(&path(&digest(&index))).await.status, StatusCode::OK);
        assert_eq!(delete(path(&digest(&index))).await.status, StatusCode::ACCEPTED);
        assert_eq!(delete(path(gone)).await.status, StatusCode::ACCEPTED);
        assert_eq!(delete(path(gone)).await.error(), error(404, "MANIFEST_UNKNOWN"));
        assert_eq!(env.get(&path("gone")).await.error(), error(404, "MANIFEST_UNKNOWN"));

        assert_eq!(env.get(&path("kept")).await.header("docker-content-digest"), kept["digest"]);
        assert_eq!(env.registry.total_bytes(), bytes);
        let deleted = env.take_events();
        let deleted: Vec<_> =
            deleted.iter().map(|it| (&it["action-type"], &it["image-tag"])).collect();
        let delete = json!("DELETE");
        assert_eq!(
            deleted,
            [(&delete, &json!("index")), (&delete, &json!(null)), (&delete, &json!("gone"))]
        );
    }
}

#[tokio::test]
async fn lists_tags_and_repositories_in_pages() {
    let env = Fixture::in_memory().await;
    let manifest = env.push_layers("one").await;
    for tag in ["v3", "v1", "v2", "latest"] {
        env.put_manifest(tag, &manifest).await;
    }
    let reply = env.get("/v2/app/tags/list").await;
    assert_eq!(reply.json(), json!({"name": "app", "tags": ["latest", "v1", "v2", "v3"]}));
    assert!(reply.headers.get("link").is_none());

    let mut tags = Vec::new();
    let mut next = Some("/v2/app/tags/list?n=3".to_owned());
    while let Some(path) = next {
        let reply = env.get(&path).await;
        tags.push(reply.json()["tags"].clone());
        next = reply.headers.get("link").map(|link| {
            let link = link.to_str().unwrap();
            link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned()
        });
    }
    assert_eq!(tags, [json!(["latest", "v1", "v2"]), json!(["v3"])]);
    assert_eq!(env.get("/v2/app/tags/list?n=0").await.json()["tags"], json!([]));
    assert_eq!(env.get("/v2/app/tags/list?last=v2").await.json()["tags"], json!(["v3"]));
    assert_eq!(env.get("/v2/app/tags/list?n=x").await.status, StatusCode::BAD_REQUEST);

    let other = "a/b".parse().unwrap();
    env.registry.create_repository(&other, TagMutability::Mutable).await.unwrap();
    let reply = env.get("/v2/_catalog?n=1").await;
    assert_eq!(reply.json(), json!({"repositories": ["a/b"]}));
    assert_eq!(reply.header("link"), "</v2/_catalog?n=1&last=a%2Fb>; rel=\"next\"");
}

#[tokio::test]
async fn lists_what_refers_to_an_image() {
    let env = Fixture::in_memory().await;
    let subject = env.push_image("subject", None).await;
    let mut signature = env.push_layers("signature").await;
    signature["subject"] = subject.clone();
    signature["artifactType"] = json!("application/x-signature");
    signature["annotations"] = json!({"by": "me"});
    let reply = env.put_manifest(&digest(&signature), &signature).await;
    assert_eq!(reply.header("oci-subject"), subject["digest"]);

    let path = format!("/v2/app/referrers/{}", subject["digest"].as_str().unwrap());
    let reply = env.get(&path).await;
    assert_eq!(reply.header("content-type"), OCI_INDEX);
    let mut expected = descriptor(OCI_MANIFEST, &signature.to_string());
    expected["artifactType"] = json!("application/x-signature");
    expected["annotations"] = json!({"by": "me"});
    assert_eq!(reply.json()["manifests"], json!([expected]));

    let reply = env.get(&format!("{path}?artifactType=other")).await;
    assert_eq!(reply.json()["manifests"], json!([]));
    assert_eq!(reply.header("oci-filters-applied"), "artifactType");
    let nobody = format!("/v2/app/referrers/{}", Digest::of(b"nobody"));
    assert_eq!(env.get(&nobody).await.json()["manifests"], json!([]));
}

#[tokio::test]
async fn anybody_may_pull_and_only_the_credential_may_push() {
    let env = Fixture::in_memory().await;
    env.push_image("one", Some("v1")).await;
    let layer = format!("/v2/app/blobs/{}", Digest::of(b"layer of one"));
    // Nothing, what skopeo sends when it has no credential, and a token to read.
    let nobody: [&[(&str, &str)]; 3] =
        [&[], &[("authorization", "Basic Og==")], &[("authorization", "Bearer anonymous")]];
    for headers in nobody {
        for path in ["/v2/app/manifests/v1", &layer, "/v2/app/tags/list"] {
            let reply = env.send_as_is("GET", path, headers, Body::empty()).await;
            assert_eq!(reply.status, StatusCode::OK, "{path}");
        }
        for (method, path) in [
            ("POST", "/v2/app/blobs/uploads/"),
            ("PUT", "/v2/app/manifests/v2"),
            ("DELETE", "/v2/app/manifests/v1"),
            ("GET", "/v2/app/blobs/uploads/x"),
        ] {
            let reply = env.send_as_is(method, path, headers, Body::empty()).await;
            assert_eq!(reply.error(), error(401, "UNAUTHORIZED"), "{method} {path}");
            let challenge = reply.header("www-authenticate");
            assert!(challenge.ends_with("scope=\"repository:app:pull,push\""), "{challenge}");
        }
    }
    let wrong = [("authorization", "Basic QVdTOnJvb3Q=")];
    let reply = env.send_as_is("GET", "/v2/app/manifests/v1", &wrong, Body::empty()).await;
    assert_eq!(reply.error(), error(401, "UNAUTHORIZED"));
}

#[tokio::test]
async fn a_client_learns_from_the_base_where_to_get_a_token() {
    let env = Fixture::in_memory().await;
    let host = [("host", "registry.test:80")];
    let reply = env.send_as_is("GET", "/v2/", &host, Body::empty()).await;
    assert_eq!(reply.error(), error(401, "UNAUTHORIZED"));
    assert_eq!(
        reply.header("www-authenticate"),
        "Bearer realm=\"http://registry.test:80/v2/token\",service=\"ecr\""
    );
    let bearer = async |headers: &[(&str, &str)]| {
        let reply = env.send_as_is("GET", "/v2/token?service=ecr", headers, Body::empty()).await;
        format!("Bearer {}", reply.json()["token"].as_str().unwrap())
    };
    let anonymous = bearer(&[]).await;
    let basic = format!("Basic {}", env.registry.authorization_token());
    let pusher = bearer(&[("authorization", &basic)]).await;
    for (credential, begun) in [(&anonymous, 401), (&basic, 202), (&pusher, 202)] {
        let headers = [("authorization", &**credential)];
        let reply = env.send_as_is("GET", "/v2/", &headers, Body::empty()).await;
        assert_eq!(reply.status, StatusCode::OK);
        let uploads = "/v2/app/blobs/uploads/";
        let reply = env.send_as_is("POST", uploads, &headers, Body::empty()).await;
        assert_eq!(reply.status.as_u16(), begun);
    }
    let wrong = [("authorization", "Basic QVdTOnJvb3Q=")];
    let reply = env.send_as_is("GET", "/v2/token", &wrong, Body::empty()).await;
    assert_eq!(reply.error(), error(401, "UNAUTHORIZED"));
}

#[tokio::test]
async fn other_methods_and_paths_are_refused() {
    let env = Fixture::in_memory().await;
    for (method, path, status) in [
        ("POST", "/v2/app/manifests/v1", 405),
        ("PUT", "/v2/", 405),
        ("DELETE", "/v2/app/tags/list", 405),
        ("GET", "/v2/app", 404),
        ("GET", "/v2/app/manifests/.not-a-tag", 404),
    ] {
        let reply = env.send(method, path, &[], Body::empty()).await;
        assert_eq!(reply.status.as_u16(), status, "{method} {path}");
    }
}

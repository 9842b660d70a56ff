//! The ECR API, by the shapes and errors of its service model.

use std::time::Duration;

use archweld_model::Digest;
use archweld_registry::TagMutability;
use serde_json::{Value, json};

use crate::fixture::{
    DOCKER_LIST, DOCKER_MANIFEST, Fixture, OCI_INDEX, OCI_MANIFEST, app, descriptor, digest, epoch,
    error, image, index,
};

fn failed<T: std::fmt::Debug>(code: &str) -> Result<T, String> {
    Err(code.to_owned())
}

fn codes(answer: &Value) -> Vec<&str> {
    let failures = answer["failures"].as_array().unwrap().iter();
    failures.map(|failure| failure["failureCode"].as_str().unwrap()).collect()
}

async fn put(env: &Fixture, manifest: &Value, tag: Option<&str>) -> Result<Value, String> {
    let mut input = json!({"repositoryName": "app", "imageManifest": manifest.to_string()});
    if let Some(tag) = tag {
        input["imageTag"] = json!(tag);
    }
    env.call("PutImage", input).await
}

#[tokio::test]
async fn makes_describes_and_deletes_repositories() {
    let env = Fixture::in_memory().await;
    let input = json!({"repositoryName": "team/new", "imageTagMutability": "IMMUTABLE"});
    let created = env.call("CreateRepository", input.clone()).await.unwrap();
    assert_eq!(
        created["repository"],
        json!({
            "repositoryArn": "arn:aws:ecr:us-east-1:000000000000:repository/team/new",
            "registryId": "000000000000",
            "repositoryName": "team/new",
            "repositoryUri": "localhost:4577/team/new",
            "createdAt": created["repository"]["createdAt"],
            "imageTagMutability": "IMMUTABLE",
            "imageScanningConfiguration": {"scanOnPush": false},
            "encryptionConfiguration": {"encryptionType": "AES256"},
        })
    );
    let created_at = created["repository"]["createdAt"].as_f64().unwrap();
    assert!((created_at - epoch("2026-11-23T12:00:00Z")).abs() < 60.0);
    let again = env.call("CreateRepository", input).await;
    assert_eq!(again, failed("RepositoryAlreadyExistsException"));

    env.registry.set_address("127.0.0.1:9");
    let all = env.call("DescribeRepositories", json!({"maxResults": 1})).await.unwrap();
    assert_eq!(all["repositories"][0]["repositoryUri"], "127.0.0.1:9/app");
    let next =
        env.call("DescribeRepositories", json!({"nextToken": all["nextToken"]})).await.unwrap();
    assert_eq!(next["repositories"].as_array().unwrap().len(), 1);
    assert_eq!(next["repositories"][0]["repositoryName"], "team/new");
    assert_eq!(next.get("nextToken"), None);
    let unknown = env.call("DescribeRepositories", json!({"repositoryNames": ["none"]})).await;
    assert_eq!(unknown, failed("RepositoryNotFoundException"));

    env.push_image("one", None).await;
    let delete = async |force: bool| {
        env.call("DeleteRepository", json!({"repositoryName": "app", "force": force})).await
    };
    assert_eq!(delete(false).await, failed("RepositoryNotEmptyException"));
    assert_eq!(delete(true).await.unwrap()["repository"]["repositoryName"], "app");
    assert_eq!(delete(true).await, failed("RepositoryNotFoundException"));
    assert_eq!(env.registry.total_bytes(), 0);
}

#[tokio::test]
async fn puts_an_index_and_tells_of_it() {
    let env = Fixture::in_memory().await;
    let child = env.push_image("one", None).await;
    env.take_events();
    let index = index(&[child]);
    let answer = put(&env, &index, Some("v1")).await.unwrap();
    assert_eq!(
        answer["image"],
        json!({
            "registryId": "000000000000",
            "repositoryName": "app",
            "imageId": {"imageDigest": digest(&index), "imageTag": "v1"},
            "imageManifest": index.to_string(),
            "imageManifestMediaType": OCI_INDEX,
        })
    );
    let expected = json!({
        "result": "SUCCESS",
        "repository-name": "app",
        "image-digest": digest(&index),
        "action-type": "PUSH",
        "image-tag": "v1",
        "manifest-media-type": OCI_INDEX,
    });
    assert_eq!(env.take_events(), [expected]);
    assert_eq!(
        env.registry
            .manifest(&app(), digest(&index).parse::<Digest>().unwrap())
            .await
            .unwrap()
            .bytes,
        index.to_string()
    );
}

#[tokio::test(start_paused = true)]
async fn refuses_an_image_by_ecrs_rules() {
    let env = Fixture::in_memory().await;
    let (one, two) = (env.push_layers("one").await, env.push_layers("two").await);
    put(&env, &one, Some("v1")).await.unwrap();
    env.take_events();
    assert_eq!(put(&env, &one, Some("v1")).await, failed("ImageAlreadyExistsException"));
    assert_eq!(put(&env, &one, None).await, failed("ImageAlreadyExistsException"));
    assert_eq!(env.take_events(), [] as [Value; 0]);
    put(&env, &one, Some("v2")).await.unwrap();

    let missing = descriptor(OCI_MANIFEST, "{}");
    let answer = put(&env, &index(&[missing]), None).await;
    assert_eq!(answer, failed("ReferencedImagesNotFoundException"));
    assert_eq!(put(&env, &image("no", "no"), None).await, failed("LayersNotFoundException"));
    let input = json!({
        "repositoryName": "app", "imageManifest": two.to_string(), "imageDigest": digest(&one),
    });
    assert_eq!(env.call("PutImage", input).await, failed("ImageDigestDoesNotMatchException"));
    let input = json!({"repositoryName": "none", "imageManifest": two.to_string()});
    assert_eq!(env.call("PutImage", input).await, failed("RepositoryNotFoundException"));
}

#[tokio::test(start_paused = true)]
async fn an_immutable_tag_is_refused_even_for_the_image_that_it_names() {
    for (mode, filters) in [
        ("IMMUTABLE", json!(null)),
        ("IMMUTABLE_WITH_EXCLUSION", json!([{"filterType": "WILDCARD", "filter": "lat*"}])),
        ("MUTABLE_WITH_EXCLUSION", json!([{"filterType": "WILDCARD", "filter": "v*"}])),
    ] {
        let env = Fixture::in_memory().await;
        let (one, two) = (env.push_layers("one").await, env.push_layers("two").await);
        put(&env, &one, Some("v1")).await.unwrap();
        let mut input = json!({"repositoryName": "app", "imageTagMutability": mode});
        if !filters.is_null() {
            input["imageTagMutabilityExclusionFilters"] = filters.clone();
        }
        let answer = env.call("PutImageTagMutability", input).await.unwrap();
        assert_eq!(answer["imageTagMutability"], mode);
        let described = env.call("DescribeRepositories", json!({"repositoryNames": ["app"]}));
        let described = described.await.unwrap()["repositories"][0].clone();
        assert_eq!(described["imageTagMutability"], mode);
        for answer in [answer, described] {
            assert_eq!(answer["imageTagMutabilityExclusionFilters"], filters);
        }

        for manifest in [&one, &two] {
            let answer = put(&env, manifest, Some("v1")).await;
            assert_eq!(answer, failed("ImageTagAlreadyExistsException"), "{mode}");
        }
        put(&env, &two, Some("latest")).await.unwrap();
        let moved = put(&env, &one, Some("latest")).await;
        let may_move = mode != "IMMUTABLE";
        assert_eq!(moved.map(drop).is_ok(), may_move, "{mode}");
    }
}

#[tokio::test(start_paused = true)]
async fn put_image_is_throttled_to_ten_a_second_and_nothing_else_is() {
    let env = Fixture::in_memory().await;
    let image = env.push_layers("one").await;
    let mut sent = 0..;
    let mut put = async || put(&env, &image, Some(&format!("v{}", sent.next().unwrap()))).await;
    for _ in 0..10 {
        put().await.unwrap();
    }
    assert_eq!(put().await, failed("ThrottlingException"));
    let error = env.registry.call("PutImage", json!({})).await.unwrap_err();
    assert_eq!(
        (&*error.code, &*error.message, error.status),
        ("ThrottlingException", "Rate exceeded", 400)
    );

    let input = json!({"repositoryName": "app", "imageIds": [{"imageTag": "v0"}]});
    for _ in 0..100 {
        env.call("BatchGetImage", input.clone()).await.unwrap();
    }
    assert_eq!(env.put_manifest("pushed", &image).await.status, 201);

    tokio::time::advance(Duration::from_millis(100)).await;
    put().await.unwrap();
    assert_eq!(put().await, failed("ThrottlingException"));
    tokio::time::advance(Duration::from_secs(60)).await;
    for _ in 0..10 {
        put().await.unwrap();
    }
    assert_eq!(put().await, failed("ThrottlingException"));
}

#[tokio::test]
async fn an_image_has_at_most_a_thousand_tags() {
    let env = Fixture::in_memory().await;
    let (full, other) = (env.push_layers("one").await, env.push_layers("two").await);
    for n in 0..1_000 {
        let tag = format!("v{n}").parse().unwrap();
        env.registry.put_manifest(&app(), Some(&tag), None, full.to_string()).await.unwrap();
    }
    assert_eq!(put(&env, &full, Some("more")).await, failed("LimitExceededException"));
    assert_eq!(env.put_manifest("more", &full).await.error(), error(403, "DENIED"));
    assert_eq!(put(&env, &full, Some("v7")).await, failed("ImageAlreadyExistsException"));
    put(&env, &other, Some("v7")).await.unwrap();
    put(&env, &full, Some("more")).await.unwrap();
}

#[tokio::test]
async fn wrong_parameters_are_told_by_field() {
    let env = Fixture::in_memory().await;
    for (operation, input, field) in [
        ("PutImage", json!({"repositoryName": "app"}), "imageManifest"),
        ("PutImage", json!({"repositoryName": "app", "imageManifest": ""}), "imageManifest"),
        ("PutImage", json!({"imageManifest": "{}"}), "repositoryName"),
        ("PutImage", json!({"repositoryName": 5, "imageManifest": "{}"}), "repositoryName"),
        (
            "PutImage",
            json!({"repositoryName": "app", "imageManifest": "{}", "imageTag": "-"}),
            "imageTag",
        ),
        ("PutImage", json!({"repositoryName": "app", "imageManifest": "{}"}), "schemaVersion"),
        ("BatchGetImage", json!({"repositoryName": "app", "imageIds": []}), "imageIds"),
        (
            "BatchGetImage",
            json!({"repositoryName": "app", "imageIds": [{"imageTag": 1}]}),
            "imageIds[0].imageTag",
        ),
        ("ListImages", json!({"repositoryName": "app", "maxResults": 1001}), "maxResults"),
        ("ListImages", json!({"repositoryName": "app", "maxResults": "1"}), "maxResults"),
        ("ListImages", json!({"repositoryName": "app", "nextToken": "!"}), "nextToken"),
        (
            "ListImages",
            json!({"repositoryName": "app", "filter": {"tagStatus": "SOME"}}),
            "filter.tagStatus",
        ),
        (
            "DescribeImages",
            json!({"repositoryName": "app", "imageIds": [{"imageTag": "x"}], "maxResults": 1}),
            "imageIds",
        ),
        ("CreateRepository", json!({"repositoryName": "App"}), "repositoryName"),
        ("PutImageTagMutability", json!({"repositoryName": "app"}), "imageTagMutability"),
        (
            "PutImageTagMutability",
            json!({"repositoryName": "app", "imageTagMutability": "IMMUTABLE_WITH_EXCLUSION"}),
            "imageTagMutabilityExclusionFilters",
        ),
        (
            "BatchGetImage",
            json!({
                "repositoryName": "app", "imageIds": [{"imageTag": "x"}], "acceptedMediaTypes": [],
            }),
            "acceptedMediaTypes",
        ),
        (
            "GetDownloadUrlForLayer",
            json!({"repositoryName": "app", "layerDigest": "x"}),
            "layerDigest",
        ),
    ] {
        let error = env.registry.call(operation, input.clone()).await.unwrap_err();
        assert_eq!((&*error.code, error.status), ("InvalidParameterException", 400), "{input}");
        assert!(error.message.contains(field), "{operation} {input}: {}", error.message);
    }
    let error = env.registry.call("StartImageScan", json!({})).await.unwrap_err();
    assert_eq!(error.code, "UnknownOperationException");
}

#[tokio::test]
async fn gets_images_and_says_of_each_other_why_not() {
    let env = Fixture::in_memory().await;
    let one = env.push_image("one", Some("v1")).await;
    let two = env.push_image("two", None).await;
    let input = json!({"repositoryName": "app", "imageIds": [
        {"imageTag": "v1"},
        {"imageDigest": two["digest"]},
        {"imageTag": "v1", "imageDigest": one["digest"]},
        {"imageTag": "v1", "imageDigest": two["digest"]},
        {"imageTag": "none"},
        {"imageTag": "-"},
        {"imageDigest": "sha256:1"},
        {"imageDigest": Digest::of(b"none")},
        {},
    ]});
    let answer = env.call("BatchGetImage", input).await.unwrap();
    let ids: Vec<_> =
        answer["images"].as_array().unwrap().iter().map(|it| it["imageId"].clone()).collect();
    assert_eq!(
        ids,
        [
            json!({"imageTag": "v1", "imageDigest": one["digest"]}),
            json!({"imageDigest": two["digest"]}),
            json!({"imageTag": "v1", "imageDigest": one["digest"]}),
        ]
    );
    let manifest = image("config of one", "layer of one");
    assert_eq!(answer["images"][0]["imageManifest"], manifest.to_string());
    assert_eq!(answer["images"][0]["imageManifestMediaType"], OCI_MANIFEST);
    assert_eq!(
        codes(&answer),
        [
            "ImageTagDoesNotMatchDigest",
            "ImageNotFound",
            "InvalidImageTag",
            "InvalidImageDigest",
            "ImageNotFound",
            "MissingDigestAndTag",
        ]
    );
    assert_eq!(answer["failures"][1]["imageId"], json!({"imageTag": "none"}));

    let get = async |accepted: &[&str]| {
        let input = json!({
            "repositoryName": "app", "imageIds": [{"imageTag": "v1"}], "acceptedMediaTypes": accepted,
        });
        env.call("BatchGetImage", input).await.unwrap()
    };
    assert_eq!(codes(&get(&[DOCKER_MANIFEST, DOCKER_LIST, OCI_INDEX]).await), ["ImageNotFound"]);
    let all = get(&[DOCKER_MANIFEST, DOCKER_LIST, OCI_INDEX, OCI_MANIFEST]).await;
    assert_eq!(all["images"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn lists_images_by_tag_in_pages() {
    let env = Fixture::in_memory().await;
    let tagged = env.push_image("tagged", Some("v1")).await;
    let manifest = image("config of tagged", "layer of tagged");
    for tag in ["v2", "v3"] {
        put(&env, &manifest, Some(tag)).await.unwrap();
    }
    let untagged = env.push_image("untagged", None).await;
    let list = async |tag_status: &str| {
        let (mut ids, mut token) = (Vec::new(), json!(null));
        loop {
            let mut input = json!({
                "repositoryName": "app", "maxResults": 2, "filter": {"tagStatus": tag_status},
            });
            if token.is_string() {
                input["nextToken"] = token;
            }
            let answer = env.call("ListImages", input).await.unwrap();
            ids.extend(answer["imageIds"].as_array().unwrap().iter().cloned());
            token = answer.get("nextToken").cloned().unwrap_or_default();
            if token.is_null() {
                return ids;
            }
        }
    };
    let tags =
        ["v1", "v2", "v3"].map(|tag| json!({"imageDigest": tagged["digest"], "imageTag": tag}));
    let bare = json!({"imageDigest": untagged["digest"]});
    assert_eq!(list("TAGGED").await, tags);
    assert_eq!(list("UNTAGGED").await, std::slice::from_ref(&bare));
    let all = list("ANY").await;
    assert_eq!(all.len(), 4);
    assert!(all.contains(&bare) && tags.iter().all(|tag| all.contains(tag)));
}

#[tokio::test]
async fn a_listing_has_every_tag_that_was_put_before_it_began_whatever_is_put_meanwhile() {
    let env = Fixture::in_memory().await;
    let (mut images, mut expected) = (Vec::new(), Vec::new());
    for n in 0..7 {
        images.push(env.push_layers(&format!("image {n}")).await.to_string());
    }
    let put = async |tag: String, image: &String| {
        let tag = tag.parse().unwrap();
        env.registry.put_manifest(&app(), Some(&tag), None, image.clone()).await.unwrap();
    };
    for n in 0..2_500 {
        let tag = format!("archweld.latest.{n}");
        put(tag.clone(), &images[n % 7]).await;
        expected.push(tag);
    }
    let (mut pages, mut listed, mut token) = (0, Vec::new(), json!(null));
    loop {
        let mut input = json!({
            "repositoryName": "app", "maxResults": 1000, "filter": {"tagStatus": "TAGGED"},
        });
        if token.is_string() {
            input["nextToken"] = token;
        }
        let answer = env.call("ListImages", input).await.unwrap();
        let ids = answer["imageIds"].as_array().unwrap();
        listed.extend(ids.iter().map(|id| id["imageTag"].as_str().unwrap().to_owned()));
        pages += 1;
        token = answer.get("nextToken").cloned().unwrap_or_default();
        if token.is_null() {
            break;
        }
        for (n, image) in images.iter().enumerate() {
            put(format!("a.{pages}.{n}"), image).await;
        }
    }
    assert!(pages >= 3, "{pages} pages");
    listed.retain(|tag| tag.starts_with("archweld."));
    listed.sort_unstable();
    expected.sort_unstable();
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn describes_images() {
    let env = Fixture::in_memory().await;
    let small = env.push_image("x", None).await;
    let large = env.push_image("something long", Some("part")).await;
    put(&env, &index(&[small.clone(), large.clone()]), Some("v1")).await.unwrap();
    let describe = async |ids: Value| {
        env.call("DescribeImages", json!({"repositoryName": "app", "imageIds": ids})).await
    };
    let answer = describe(json!([{"imageTag": "v1"}])).await.unwrap();
    let detail = &answer["imageDetails"][0];
    let large_bytes = "config of something long".len() + "layer of something long".len();
    assert_eq!(detail["imageSizeInBytes"], large_bytes);
    assert_eq!(detail["imageTags"], json!(["v1"]));
    assert_eq!(detail["imageManifestMediaType"], OCI_INDEX);
    assert_eq!(detail.get("artifactMediaType"), None);

    let answer =
        describe(json!([{"imageTag": "part"}, {"imageDigest": large["digest"]}])).await.unwrap();
    let details = answer["imageDetails"].as_array().unwrap();
    assert_eq!(details.len(), 1, "one image under two names is one image");
    assert_eq!(details[0]["artifactMediaType"], "application/vnd.oci.image.config.v1+json");
    assert!(details[0]["imagePushedAt"].is_f64());
    assert_eq!(describe(json!([{"imageTag": "none"}])).await, failed("ImageNotFoundException"));

    let input = json!({"repositoryName": "app", "filter": {"tagStatus": "UNTAGGED"}});
    let answer = env.call("DescribeImages", input).await.unwrap();
    assert_eq!(answer["imageDetails"].as_array().unwrap().len(), 1);
    assert_eq!(answer["imageDetails"][0]["imageDigest"], small["digest"]);
    assert_eq!(answer["imageDetails"][0].get("imageTags"), None);
}

#[tokio::test]
async fn deletes_a_tag_an_image_with_its_last_tag_and_never_a_part_of_an_index() {
    let env = Fixture::in_memory().await;
    let child = env.push_image("one", Some("part")).await;
    let index = index(std::slice::from_ref(&child));
    for tag in ["v1", "v2"] {
        put(&env, &index, Some(tag)).await.unwrap();
    }
    let delete = async |ids: Value| {
        let input = json!({"repositoryName": "app", "imageIds": ids});
        env.call("BatchDeleteImage", input).await.unwrap()
    };
    let answer = delete(json!([{"imageDigest": child["digest"]}, {"imageTag": "none"}])).await;
    assert_eq!(codes(&answer), ["ImageReferencedByManifestList", "ImageNotFound"]);

    let answer = delete(json!([{"imageTag": "v1"}, {"imageTag": "part"}])).await;
    assert_eq!(answer["imageIds"][0], json!({"imageDigest": digest(&index), "imageTag": "v1"}));
    assert!(env.registry.manifest(&app(), digest(&index).parse::<Digest>().unwrap()).await.is_ok());
    let child_digest: Digest = child["digest"].as_str().unwrap().parse().unwrap();
    assert!(env.registry.manifest(&app(), child_digest).await.is_ok());

    env.take_events();
    let answer = delete(json!([{"imageTag": "v2"}, {"imageDigest": child["digest"]}])).await;
    assert_eq!(answer["failures"], json!([]));
    assert_eq!(answer["imageIds"][1], json!({"imageDigest": child["digest"]}));
    assert_eq!(env.registry.total_bytes(), 0);
    let actions: Vec<_> = env.take_events().iter().map(|it| it["action-type"].clone()).collect();
    assert_eq!(actions, ["DELETE", "DELETE"]);
}

#[tokio::test]
async fn says_which_layers_are_there_and_where() {
    let env = Fixture::in_memory().await;
    let layer = env.registry.put_blob(&app(), "content").await.unwrap();
    let missing = Digest::of(b"missing");
    let input = json!({"repositoryName": "app", "layerDigests": [layer, missing, "x"]});
    let answer = env.call("BatchCheckLayerAvailability", input).await.unwrap();
    assert_eq!(
        answer["layers"],
        json!([
            {"layerDigest": layer, "layerAvailability": "AVAILABLE", "layerSize": 7},
            {"layerDigest": missing, "layerAvailability": "UNAVAILABLE"},
        ])
    );
    assert_eq!(codes(&answer), ["InvalidLayerDigest"]);

    let url = async |digest: Digest| {
        let input = json!({"repositoryName": "app", "layerDigest": digest});
        env.call("GetDownloadUrlForLayer", input).await
    };
    assert_eq!(url(missing).await, failed("LayersNotFoundException"));
    assert_eq!(url(layer).await, failed("LayerInaccessibleException"));
}

#[tokio::test]
async fn a_download_url_serves_exactly_the_bytes_of_a_range() {
    for env in Fixture::both().await {
        env.push_image("one", None).await;
        let layer = Digest::of(b"layer of one");
        let input = json!({"repositoryName": "app", "layerDigest": layer});
        let answer = env.call("GetDownloadUrlForLayer", input).await.unwrap();
        assert_eq!(answer["layerDigest"], json!(layer));
        let url = answer["downloadUrl"].as_str().unwrap();
        let path = url.strip_prefix("http://localhost:4577").unwrap();
        let get = async |range: &str| {
            env.send_as_is("GET", path, &[("range", range)], String::new()).await
        };
        for (range, content_range, body) in [
            ("bytes=0-4", "bytes 0-4/12", "layer"),
            ("bytes=6-7", "bytes 6-7/12", "of"),
            ("bytes=9-", "bytes 9-11/12", "one"),
            ("bytes=9-99", "bytes 9-11/12", "one"),
            ("bytes=-3", "bytes 9-11/12", "one"),
            ("bytes=0-11", "bytes 0-11/12", "layer of one"),
        ] {
            let reply = get(range).await;
            assert_eq!(reply.status, 206, "{range}");
            assert_eq!(reply.header("content-range"), content_range);
            assert_eq!(reply.header("content-length"), body.len().to_string());
            assert_eq!(reply.body, body, "{range}");
        }
        assert_eq!(get("bytes=12-").await.status, 416);
    }
}

#[tokio::test]
async fn lists_referrers() {
    let env = Fixture::in_memory().await;
    let subject = env.push_image("subject", None).await;
    let mut signature = env.push_layers("signature").await;
    signature["subject"] = subject.clone();
    signature["artifactType"] = json!("application/x-signature");
    put(&env, &signature, None).await.unwrap();
    let list = async |artifact_type: &str| {
        let input = json!({
            "repositoryName": "app",
            "subjectId": {"imageDigest": subject["digest"]},
            "filter": {"artifactTypes": [artifact_type]},
        });
        env.call("ListImageReferrers", input).await.unwrap()
    };
    let answer = list("application/x-signature").await;
    assert_eq!(answer["referrers"][0]["digest"], digest(&signature));
    assert_eq!(answer["referrers"][0]["artifactStatus"], "ACTIVE");
    assert_eq!(list("other").await["referrers"], json!([]));
}

#[tokio::test]
async fn another_accounts_registry_has_no_repositories_here() {
    let env = Fixture::in_memory().await;
    let input = json!({"repositoryName": "app", "registryId": "111111111111"});
    assert_eq!(env.call("ListImages", input).await, failed("RepositoryNotFoundException"));
    let input = json!({"repositoryName": "app", "registryId": "000000000000"});
    assert!(env.call("ListImages", input).await.is_ok());
}

#[tokio::test]
async fn the_authorization_token_is_a_credential_for_twelve_hours() {
    let env = Fixture::in_memory().await;
    let answer = env.call("GetAuthorizationToken", json!({})).await.unwrap();
    let data = &answer["authorizationData"][0];
    assert_eq!(data["proxyEndpoint"], "http://localhost:4577");
    assert_eq!(data["authorizationToken"], env.registry.authorization_token());
    let expires_at = data["expiresAt"].as_f64().unwrap();
    assert!((expires_at - epoch("2026-11-24T00:00:00Z")).abs() < 60.0);
}

#[tokio::test]
async fn a_mutable_repository_is_the_default() {
    let env = Fixture::in_memory().await;
    env.call("CreateRepository", json!({"repositoryName": "new"})).await.unwrap();
    assert_eq!(TagMutability::default(), TagMutability::Mutable);
    let input = json!({"repositoryNames": ["new"]});
    let answer = env.call("DescribeRepositories", input).await.unwrap();
    assert_eq!(answer["repositories"][0]["imageTagMutability"], "MUTABLE");
}

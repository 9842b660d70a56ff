//! `publish` against the registry: what it refuses, and what it leaves alone.
#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is wrong")]

use std::time::Duration;

use archweld_model::{
    Annotations, Child, Digest, ErrorName, ExecutableCheck, Index, Named as _, Plan, Published,
    annotation, media_type,
};
use archweld_tests::{
    CONFIG, Door, Gates, TestImage, World, delayed, outcome, plan, plan_at, plan_of, push_index,
    repository,
};
use aws_sdk_ecr::types::{
    ImageTagMutability, ImageTagMutabilityExclusionFilter, ImageTagMutabilityExclusionFilterType,
};
use proptest::{prelude::*, sample::subsequence, test_runner::TestRunner};
use serde_json::{Value, json};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A run of a commit, as either publisher sees it.
fn run(name: &str, publisher: &str) -> Plan {
    let trigger = json!({"sequence": 7});
    plan(name, json!({"commit": COMMIT, "ref": "main", "publisher": publisher, "trigger": trigger}))
}

async fn publish(world: &World, request: publish::Request) -> Result<Published, publish::Error> {
    publish::handle(request, &world.publish_clients()).await
}

/// Publishes what must be refused; gives the error, and makes sure that no tag was set.
async fn refused(world: &World, request: publish::Request) -> (ErrorName, String) {
    let before = world.all_tags();
    let error = publish(world, request).await.unwrap_err();
    assert_eq!(world.all_tags(), before, "{error}");
    (error.name(), error.to_string())
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

#[tokio::test(start_paused = true)]
async fn both_publishers_confirm_the_index_and_say_what_they_looked_at() {
    for publisher in ["lambda", "build"] {
        let world = World::open(Door::InProcess).await;
        let request = world.publish_request(run("r1", publisher), |_| {}).await;
        let published = publish(&world, request).await.unwrap();
        assert_eq!(texts(&published.tags), ["r1", "0123456", "latest"]);
        for tag in &published.tags {
            assert_eq!(world.tagged(tag.as_str()).await.unwrap().digest, published.digest);
        }
        let looked: Vec<_> =
            published.platforms.iter().map(|platform| platform.executable.clone()).collect();
        let confirmed = |text: &str| ExecutableCheck::Confirmed(text.to_owned());
        assert_eq!(
            looked,
            [confirmed("/app is compiled for x86-64"), confirmed("/app is compiled for AArch64")]
        );
        world.cloud.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_index_tells_of_its_source_and_its_place_in_the_order() {
    let world = World::open(Door::InProcess).await;
    let config = CONFIG.replace(
        "tags =",
        "annotations = { \"org.opencontainers.image.title\" = \"hello\" }\ntags =",
    );
    let input = json!({
        "commit": COMMIT, "ref": "refs/heads/main", "publisher": "lambda",
        "trigger": {"sequence": 7},
    });
    let plan = plan_of(&config, "r1", input);
    let request = world.publish_request(plan, |_| {}).await;
    let published = publish(&world, request).await.unwrap();
    let index = world.tagged("latest").await.unwrap();
    let index = Index::parse(std::str::from_utf8(&index.bytes).unwrap()).unwrap();
    let expected: Annotations = [
        (annotation::CREATED, "2026-11-23T09:59:58.123456789Z"),
        (annotation::REF_NAME, "main"),
        (annotation::REVISION, COMMIT),
        (annotation::SEQUENCE, "7"),
        (annotation::SOURCE, "https://github.com/archweld/hello.git"),
        ("org.opencontainers.image.title", "hello"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    assert_eq!(*index.annotations(), expected);
    assert_eq!(published.media_type, media_type::OCI_INDEX);
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_image_of_another_platform_is_refused_by_name() {
    let world = World::open(Door::InProcess).await;
    let (amd64, v6) = ("linux/amd64".parse().unwrap(), "linux/arm/v6".parse().unwrap());
    for publisher in ["lambda", "build"] {
        // A manifest build labels the images as it was told to.
        let request = world
            .publish_request(run("architecture", publisher), |image| image.platform = amd64)
            .await;
        let digest = request.images[1].built.digest;
        let mut request = request;
        if let Some(index) = &mut request.index {
            let children: Vec<Child> = (request.plan.platforms.iter().zip(&request.images))
                .map(|(planned, image)| Child {
                    platform: planned.platform,
                    fields: planned.platform.into(),
                    built: image.built.clone(),
                })
                .collect();
            let registry = world.cloud.registry();
            index.built.digest =
                push_index(registry, &repository(), Some(&request.plan.tag), &children).await;
        }
        let (name, message) = refused(&world, request).await;
        assert_eq!(name, ErrorName::ImageWrongPlatform);
        let expected =
            format!("image {digest} was built for linux/arm64, but its config says linux/amd64");
        assert_eq!(message, expected);
    }

    let input = json!({"platforms": ["linux/arm/v7"], "publisher": "lambda"});
    let variant = world.publish_request(plan("variant", input), |image| image.platform = v6).await;
    let (name, message) = refused(&world, variant).await;
    assert_eq!(name, ErrorName::ImageWrongPlatform);
    assert!(message.ends_with("but its config says linux/arm/v6"), "{message}");
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_program_of_another_processor_is_refused_by_name_unless_nobody_looks() {
    let world = World::open(Door::InProcess).await;
    let amd64 = "linux/amd64".parse().unwrap();
    for publisher in ["lambda", "build"] {
        let foreign =
            world.publish_request(run("r1", publisher), |image| image.program = amd64).await;
        let (name, message) = refused(&world, foreign).await;
        assert_eq!(name, ErrorName::ImageWrongPlatform);
        let expected = "was built for linux/arm64, but /app is compiled for x86-64";
        assert!(message.ends_with(expected), "{message}");
    }
    let config = CONFIG.replace("tags =", "check_executable = false\ntags =");
    let plan = plan_of(&config, "r2", json!({"publisher": "lambda"}));
    let unchecked = world.publish_request(plan, |image| image.program = amd64).await;
    let published = publish(&world, unchecked).await.unwrap();
    assert_eq!(published.platforms[1].executable, ExecutableCheck::Off);
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_program_that_cannot_be_read_is_published_and_told() {
    let world = World::open(Door::InProcess).await;
    let sealed = world.publish_request(run("r1", "lambda"), |image| image.sealed = true).await;
    let published = publish(&world, sealed).await.unwrap();
    let ExecutableCheck::Unknown(reason) = &published.platforms[0].executable else {
        panic!("{published:?}")
    };
    assert!(reason.contains("layer sha256:"), "{reason}");
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_not_complete_touches_no_tag() {
    let world = World::open(Door::InProcess).await;
    let request = async |name: &str| world.publish_request(run(name, "lambda"), |_| {}).await;
    let mut missing = request("missing").await;
    missing.images.pop();
    let mut gone = request("gone").await;
    gone.images[1].built.digest = Digest::of(b"never pushed");
    let mut absent = request("absent").await;
    absent.index = Some(outcome("manifest", &absent.images[0].built));
    absent.index.as_mut().unwrap().built.digest = Digest::of(b"never pushed");
    let mut image = request("image").await;
    image.index = Some(outcome("manifest", &image.images[0].built));
    for (request, name, message) in [
        (missing, "Image.NotFound", "no image of linux/arm64 was built"),
        (gone, "Image.NotFound", "image of linux/arm64 sha256:"),
        (absent, "Image.NotFound", "is not in repository hello"),
        (image, "Index.Mismatch", "hello:image: not an index"),
    ] {
        let error = refused(&world, request).await;
        assert_eq!(error.0.as_str(), name);
        assert!(error.1.contains(message), "{error:?}");
    }
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_index_that_is_not_the_runs_is_refused_and_both_sides_are_named() {
    let world = World::open(Door::InProcess).await;
    let registry = world.cloud.registry();
    let request = world.publish_request(run("r1", "build"), |_| {}).await;
    let other = world.publish_request(run("r2", "build"), |_| {}).await;
    let child = |request: &publish::Request, at: usize| Child {
        platform: request.plan.platforms[at].platform,
        fields: request.plan.platforms[at].platform.into(),
        built: request.images[at].built.clone(),
    };
    let fewer = [child(&request, 0)];
    let twice = [child(&request, 0), child(&request, 1), child(&other, 1)];
    let mixed = [child(&request, 0), child(&other, 1)];
    for (children, expected) in [
        (&fewer[..], "the index holds linux/amd64=sha256:"),
        (&twice[..], "two images for linux/arm64: sha256:"),
        (&mixed[..], ", expected linux/amd64=sha256:"),
    ] {
        let mut request = request.clone();
        let digest = push_index(registry, &repository(), Some(&request.plan.tag), children).await;
        request.index.as_mut().unwrap().built.digest = digest;
        let (name, message) = refused(&world, request).await;
        assert_eq!(name, ErrorName::IndexMismatch);
        assert!(message.contains(expected), "{message}");
    }
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_index_that_somebody_changed_after_the_manifest_build_is_refused() {
    let world = World::open(Door::InProcess).await;
    let request = world.publish_request(run("r1", "build"), |_| {}).await;
    let pushed = request.index.as_ref().unwrap().built.digest;
    let other = world.publish_request(run("r2", "build"), |_| {}).await;
    let image = world.tagged("r2").await.unwrap();
    let put = world.ecr.put_image().repository_name("hello").image_tag("r1");
    let text = String::from_utf8(image.bytes.to_vec()).unwrap();
    put.image_manifest(text).image_manifest_media_type(image.media_type).send().await.unwrap();
    let (name, message) = refused(&world, request).await;
    assert_eq!(name, ErrorName::IndexMismatch);
    let found = other.index.unwrap().built.digest;
    let expected = format!("hello:r1 names {found}, expected the index that was pushed, {pushed}");
    assert_eq!(message, expected);
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_second_publish_of_a_finished_run_changes_nothing() {
    for publisher in ["lambda", "build"] {
        let world = World::open(Door::InProcess).await;
        let request = world.publish_request(run("r1", publisher), |_| {}).await;
        let first = publish(&world, request.clone()).await.unwrap();
        let tags = world.all_tags();
        assert_eq!(publish(&world, request).await.unwrap(), first);
        assert_eq!(world.all_tags(), tags);
        world.cloud.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_publish_that_crashed_at_any_call_is_finished_by_the_next() {
    for publisher in ["lambda", "build"] {
        for heard in [true, false] {
            let mut crashed_after = 0;
            loop {
                let world = World::open(Door::InProcess).await;
                let request = world.publish_request(run("r1", publisher), |_| {}).await;
                let gates = Gates::default();
                let config = gates.gate("first", &world.cloud.sdk_config());
                let clients = publish::Clients::new(&config);
                let crashing = request.clone();
                let first =
                    tokio::spawn(async move { publish::handle(crashing, &clients).await.unwrap() });
                for call in 0..=crashed_after {
                    tokio::time::sleep(Duration::from_millis(150)).await;
                    // The last call takes effect, but nobody hears of it.
                    let heard = heard || call < crashed_after;
                    let Some((actor, name)) = gates.waiting().into_iter().next() else { break };
                    gates.let_through(actor, &name, heard);
                }
                tokio::time::sleep(Duration::from_millis(150)).await;
                let is_over = first.is_finished();
                first.abort();
                let published = publish(&world, request).await.unwrap();
                assert_eq!(texts(&published.tags), ["r1", "0123456", "latest"]);
                for tag in &published.tags {
                    let named = world.tagged(tag.as_str()).await.unwrap().digest;
                    assert_eq!(named, published.digest, "{tag}");
                }
                world.cloud.shutdown().await;
                if is_over {
                    break;
                }
                crashed_after += 1;
            }
            assert!(crashed_after >= 6, "{crashed_after}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_depth_of_its_calls_does_not_depend_on_the_number_of_platforms() {
    const DELAY: Duration = Duration::from_millis(100);
    let platforms = ["linux/amd64", "linux/arm64", "linux/386", "linux/arm/v7", "linux/arm/v6"];
    for number in [1, 2, 5] {
        // Four for the fixed tag, four for the moving one, and two for the look into the layers.
        for (check, publisher, most) in
            [(false, "lambda", 8), (false, "build", 8), (true, "lambda", 10)]
        {
            let world = World::open(Door::InProcess).await;
            let config = CONFIG.replace("tags =", &format!("check_executable = {check}\ntags ="));
            let input = json!({
                "commit": COMMIT, "publisher": publisher, "platforms": platforms[..number],
            });
            let request = world.publish_request(plan_of(&config, "r1", input), |_| {}).await;
            let config = delayed(&world.cloud.sdk_config(), DELAY);
            let clients = publish::Clients::new(&config);
            let began = tokio::time::Instant::now();
            publish::handle(request, &clients).await.unwrap();
            let depth = began.elapsed().as_millis() / DELAY.as_millis();
            assert!((most - 1..=most).contains(&depth), "{number} {check} {publisher}: {depth}");
            world.cloud.shutdown().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_equal_run_with_other_images_moves_no_tag_and_says_so() {
    let world = World::open(Door::InProcess).await;
    let first = world.publish_request(run("r1", "lambda"), |_| {}).await;
    let first = publish(&world, first).await.unwrap();
    let second = world.publish_request(run("r2", "lambda"), |_| {}).await;
    let second = publish(&world, second).await.unwrap();
    assert_ne!(first.digest, second.digest);
    assert_eq!(texts(&second.tags), ["r2"]);
    assert_eq!(texts(&second.tags_kept), ["0123456", "latest"]);
    for tag in ["0123456", "latest"] {
        assert_eq!(world.tagged(tag).await.unwrap().digest, first.digest);
    }
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn of_runs_of_one_source_the_one_that_built_it_anew_last_has_the_moving_tags() {
    let world = World::open(Door::InProcess).await;
    let of = |name: &str, force: bool, minute: u32| {
        let trigger = json!({"sequence": 7});
        let input =
            json!({"commit": COMMIT, "publisher": "lambda", "force": force, "trigger": trigger});
        plan_at(&format!("2026-11-23T10:{minute:02}:00Z"), name, input)
    };
    let mut digests = vec![];
    // The rebuilds finish in the other order than they began.
    for (name, force, minute) in [("push", false, 0), ("second", true, 9), ("first", true, 8)] {
        let request = world.publish_request(of(name, force, minute), |_| {}).await;
        digests.push(publish(&world, request).await.unwrap().digest);
    }
    assert_eq!(world.tagged("latest").await.unwrap().digest, digests[1]);
    assert_eq!(world.tagged("0123456").await.unwrap().digest, digests[0]);
    // What a later run reuses is what the tags are at.
    let built = of("push", false, 0).built_tag.unwrap();
    assert_eq!(world.tagged(built.as_str()).await.unwrap().digest, digests[1]);
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_fixed_tag_of_another_commit_is_refused_by_name() {
    let world = World::open(Door::InProcess).await;
    let first = world.publish_request(run("r1", "lambda"), |_| {}).await;
    publish(&world, first).await.unwrap();
    // The same first seven digits.
    let other = format!("{}{}", &COMMIT[..7], "f".repeat(33));
    let input = json!({"commit": other, "publisher": "lambda", "trigger": {"sequence": 8}});
    let second = world.publish_request(plan("r2", input), |_| {}).await;
    let (name, message) = refused(&world, second).await;
    assert_eq!(name, ErrorName::PublishTagImmutable);
    let expected =
        format!("tag 0123456 of repository hello is of commit {COMMIT} already, and never moves");
    assert_eq!(message, expected);
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_of_fewer_platforms_or_other_tags_is_not_reused() {
    let world = World::open(Door::InProcess).await;
    for (name, input) in [
        ("fewer", json!({"commit": COMMIT, "platforms": ["linux/arm64"], "publisher": "lambda"})),
        ("other", json!({"commit": COMMIT, "tags": ["try-{run}"], "publisher": "lambda"})),
    ] {
        let request = world.publish_request(plan(name, input), |_| {}).await;
        let built = request.plan.built_tag.clone().unwrap();
        publish(&world, request).await.unwrap();
        assert!(world.tagged(built.as_str()).await.is_none(), "{name}");
    }
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_older_run_publishes_its_fixed_tags_and_leaves_the_moving_ones() {
    let world = World::open(Door::InProcess).await;
    let of = |name: &str, commit: &str, sequence: u64| {
        let trigger = json!({"sequence": sequence});
        plan(name, json!({"commit": commit, "publisher": "lambda", "trigger": trigger}))
    };
    let newer = world.publish_request(of("newer", COMMIT, 8), |_| {}).await;
    let newer = publish(&world, newer).await.unwrap();
    let older = of("older", "fedcba9876543210fedcba9876543210fedcba98", 7);
    let older = world.publish_request(older, |_| {}).await;
    let older = publish(&world, older).await.unwrap();
    assert_eq!(texts(&older.tags), ["older", "fedcba9"]);
    assert_eq!(texts(&older.tags_ahead), ["latest"]);
    assert_eq!(world.tagged("latest").await.unwrap().digest, newer.digest);
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_tag_of_versions_follows_the_highest_version() {
    let world = World::open(Door::InProcess).await;
    let mut digests = vec![];
    // A mend of the older line is pushed last.
    for (sequence, version) in [(1, "1.2.9"), (2, "1.3.0"), (3, "1.2.10")] {
        let tags = ["{semver.major}", "{semver.major}.{semver.minor}", "latest"];
        let input = json!({
            "ref": format!("refs/tags/v{version}"), "publisher": "lambda", "tags": tags,
            "trigger": {"sequence": sequence},
        });
        let request = world.publish_request(plan(&format!("v{version}"), input), |_| {}).await;
        digests.push(publish(&world, request).await.unwrap().digest);
    }
    for (tag, digest) in [("1", 1), ("1.3", 1), ("1.2", 2), ("latest", 2)] {
        assert_eq!(world.tagged(tag).await.unwrap().digest, digests[digest], "{tag}");
    }
    world.cloud.shutdown().await;
}

async fn set_mutability(world: &World, mutability: ImageTagMutability, filters: &[&str]) {
    let mut put = world.ecr.put_image_tag_mutability().repository_name("hello");
    for filter in filters {
        let filter = ImageTagMutabilityExclusionFilter::builder()
            .filter(*filter)
            .filter_type(ImageTagMutabilityExclusionFilterType::Wildcard)
            .build()
            .unwrap();
        put = put.image_tag_mutability_exclusion_filters(filter);
    }
    put.image_tag_mutability(mutability).send().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_immutable_repository_works_and_an_equal_digest_counts_as_done() {
    let world = World::open(Door::InProcess).await;
    set_mutability(&world, ImageTagMutability::ImmutableWithExclusion, &["latest"]).await;
    let first = world.publish_request(run("r1", "lambda"), |_| {}).await;
    let published = publish(&world, first.clone()).await.unwrap();
    assert_eq!(publish(&world, first).await.unwrap(), published);

    let commit = "fedcba9876543210fedcba9876543210fedcba98";
    let input = json!({"commit": commit, "publisher": "lambda", "trigger": {"sequence": 8}});
    let next = world.publish_request(plan("r2", input), |_| {}).await;
    let next = publish(&world, next).await.unwrap();
    assert_eq!(world.tagged("latest").await.unwrap().digest, next.digest);
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_immutable_fixed_tag_of_another_image_is_refused_by_name() {
    let world = World::open(Door::InProcess).await;
    let first = world.publish_request(run("r1", "lambda"), |_| {}).await;
    publish(&world, first).await.unwrap();
    for (mutability, filters) in [
        (ImageTagMutability::Immutable, &[][..]),
        (ImageTagMutability::ImmutableWithExclusion, &["latest"]),
        (ImageTagMutability::MutableWithExclusion, &["0*6"]),
    ] {
        set_mutability(&world, mutability, filters).await;
        let second = world.publish_request(run("r2", "lambda"), |_| {}).await;
        let (name, message) = refused(&world, second).await;
        assert_eq!(name, ErrorName::PublishTagImmutable);
        let expected = "tag 0123456 of repository hello is immutable and names another image";
        assert_eq!(message, expected);
    }
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_fixed_tag_is_taken_meanwhile_moves_nothing() {
    let world = World::open(Door::InProcess).await;
    let kept = &["latest", "archweld.*"];
    set_mutability(&world, ImageTagMutability::ImmutableWithExclusion, kept).await;
    let first = world.publish_request(run("r1", "lambda"), |_| {}).await;
    let input = json!({"commit": COMMIT, "publisher": "lambda", "trigger": {"sequence": 8}});
    let second = world.publish_request(plan("r2", input), |_| {}).await;

    let gates = Gates::default();
    let clients = publish::Clients::new(&gates.gate("second", &world.cloud.sdk_config()));
    let mut quicker = Some((world.publish_clients(), first));
    let racing = tokio::spawn(async move { publish::handle(second, &clients).await });
    while !racing.is_finished() {
        tokio::time::sleep(Duration::from_millis(150)).await;
        for (actor, call) in gates.waiting() {
            // It found the tag free, and sets it a moment later.
            if call.starts_with("PutImage 0123456")
                && let Some((clients, first)) = quicker.take()
            {
                publish::handle(first, &clients).await.unwrap();
            }
            gates.let_through(actor, &call, true);
        }
    }
    assert!(quicker.is_none());
    let error = racing.await.unwrap().unwrap_err();
    assert_eq!(error.name(), ErrorName::PublishTagImmutable);
    let first = world.tagged("0123456").await.unwrap().digest;
    assert_eq!(world.tagged("latest").await.unwrap().digest, first);
    let markers = world.all_tags().into_keys().filter(|tag| tag.starts_with("archweld.latest."));
    assert_eq!(markers.collect::<Vec<_>>(), ["archweld.latest.7"]);
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_moving_tag_that_may_not_move_is_named() {
    let world = World::open(Door::InProcess).await;
    let input = |sequence| json!({"publisher": "lambda", "trigger": {"sequence": sequence}});
    let first = world.publish_request(plan("r1", input(1)), |_| {}).await;
    publish(&world, first).await.unwrap();
    set_mutability(&world, ImageTagMutability::Immutable, &[]).await;
    let second = world.publish_request(plan("r2", input(2)), |_| {}).await;
    let error = publish(&world, second).await.unwrap_err();
    assert_eq!(error.name(), ErrorName::PublishTagImmutable);
    let expected = "tag latest of repository hello is immutable and names another image";
    assert_eq!(error.to_string(), expected);
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_index_that_states_no_media_type_is_published_as_what_was_pushed() {
    let world = World::open(Door::InProcess).await;
    let mut request = world.publish_request(run("r1", "build"), |_| {}).await;
    let pushed = world.tagged("r1").await.unwrap();
    let mut index: Value = serde_json::from_slice(&pushed.bytes).unwrap();
    let kind = index.as_object_mut().unwrap().remove("mediaType").unwrap();
    let kind = kind.as_str().unwrap();
    let text = index.to_string();
    request.index.as_mut().unwrap().built.digest = Digest::of(text.as_bytes());
    let put = world.ecr.put_image().repository_name("hello").image_tag("r1");
    put.image_manifest(text).image_manifest_media_type(kind).send().await.unwrap();
    let published = publish(&world, request).await.unwrap();
    assert_eq!(published.media_type, kind);
    assert_eq!(world.tagged("latest").await.unwrap().digest, published.digest);
    world.cloud.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn many_runs_at_once_all_finish_below_ecrs_rate() {
    let world = World::open(Door::InProcess).await;
    let mut requests = Vec::new();
    for number in 0..40_u64 {
        let commit = format!("{number:040x}");
        let input = json!({
            "commit": commit, "publisher": "lambda", "platforms": ["linux/amd64"],
            "tags": ["{sha}", "latest"], "trigger": {"sequence": number},
        });
        requests.push(world.publish_request(plan(&format!("r{number}"), input), |_| {}).await);
    }
    let started = tokio::time::Instant::now();
    let mut runs = tokio::task::JoinSet::new();
    for request in requests {
        let clients = world.publish_clients();
        runs.spawn(async move {
            // The state machine repeats the task, with longer waits than these.
            let mut tries = 0;
            loop {
                tries += 1;
                match publish::handle(request.clone(), &clients).await {
                    Err(error) if error.name() == ErrorName::ServiceUnavailable && tries < 6 => {
                        tokio::time::sleep(Duration::from_secs(2 << tries)).await;
                    }
                    published => break published.unwrap().digest,
                }
            }
        });
    }
    runs.join_all().await;
    // 120 images at ten a second cannot be put any faster.
    assert!(started.elapsed().as_secs() >= 10, "{:?}", started.elapsed());
    assert!(started.elapsed().as_secs() < 240, "{:?}", started.elapsed());
    let newest = world.tagged(&format!("{:040x}", 39)).await.unwrap();
    assert_eq!(world.tagged("latest").await.unwrap().digest, newest.digest);
    world.cloud.shutdown().await;
}

/// Invariants 1 to 4 over generated runs of one repository, one after the other.
#[test]
fn whatever_runs_publish_no_tag_is_ever_wrong() {
    let platforms = ["linux/amd64", "linux/386", "linux/arm64", "linux/arm/v6", "linux/arm/v7"];
    let a_run = (
        subsequence(platforms.to_vec(), 1..=4).prop_shuffle(),
        any::<[bool; 4]>(),
        0..3_u8,
        0..4_u64,
        prop_oneof![4 => Just(None), 1 => Just(Some("linux/arm/v5"))],
    );
    let runs = proptest::collection::vec(a_run, 1..5);
    let config =
        ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&runs, |runs| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            runtime.block_on(async {
                let world = World::open(Door::InProcess).await;
                let mut fixed = std::collections::BTreeMap::new();
                let mut newest = None;
                for (number, (platforms, flags, commit, sequence, wrong)) in
                    runs.into_iter().enumerate()
                {
                    let [docker, mixed, attested, build] = flags;
                    let input = json!({
                        "commit": COMMIT.replace('0', &commit.to_string()),
                        "platforms": platforms,
                        "publisher": if build { "build" } else { "lambda" },
                        "trigger": {"sequence": sequence},
                    });
                    let plan = plan(&format!("r{number}"), input);
                    let first = plan.platforms[0].platform;
                    let adapt = |image: &mut TestImage| {
                        image.docker = docker && !(mixed && image.platform == first);
                        image.attested = attested;
                        if let Some(wrong) = wrong
                            && image.platform == first
                        {
                            image.platform = wrong.parse().unwrap();
                        }
                    };
                    let request = world.publish_request(plan.clone(), adapt).await;
                    let digests = texts(
                        &request.images.iter().map(|image| image.built.digest).collect::<Vec<_>>(),
                    );
                    let before = world.all_tags();
                    let published = publish(&world, request).await;
                    if wrong.is_some() {
                        prop_assert!(published.is_err());
                        prop_assert_eq!(&world.all_tags(), &before);
                        continue;
                    }
                    let published = published.unwrap();
                    let image = world.tagged(&format!("r{number}")).await.unwrap();
                    let index = Index::parse(std::str::from_utf8(&image.bytes).unwrap()).unwrap();
                    let images = index.images().unwrap();
                    // Every planned platform, in order, and no digest of another run.
                    prop_assert_eq!(
                        images.iter().map(|image| image.platform).collect::<Vec<_>>(),
                        plan.platforms.iter().map(|planned| planned.platform).collect::<Vec<_>>()
                    );
                    prop_assert_eq!(
                        texts(&images.iter().map(|image| image.digest).collect::<Vec<_>>()),
                        digests
                    );
                    prop_assert!(
                        images
                            .iter()
                            .all(|image| image.attestations.len() == usize::from(attested))
                    );
                    // A fixed tag stays with the first that set it, a moving one with the newest.
                    for tag in &plan.fixed_tags {
                        let first = *fixed.entry(tag.clone()).or_insert(published.digest);
                        prop_assert_eq!(world.tagged(tag.as_str()).await.unwrap().digest, first);
                    }
                    if newest.is_none_or(|(known, _)| sequence > known) {
                        newest = Some((sequence, published.digest));
                    }
                    let latest = world.tagged("latest").await.unwrap().digest;
                    prop_assert_eq!(Some(latest), newest.map(|(_, digest)| digest));
                }
                world.cloud.shutdown().await;
                Ok(())
            })
        })
        .unwrap();
}

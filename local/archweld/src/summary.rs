//! What a run came to: as text, and as the last line of the JSON output.

use std::{collections::BTreeMap, time::Duration};

use archweld_model::{Digest, ExecutableCheck, ImageTag, Plan, Published, PublishedPlatform};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    aws::{Api, CallError, ECR},
    error::Error,
    progress::{Progress, Took, milliseconds, shown},
};

/// How much of a digest tells it from others, in hexadecimal digits.
const DIGITS: usize = 12;

/// Where moving tags pointed before the run: the digest, or none where there was no such tag.
pub(crate) type Before = BTreeMap<ImageTag, Option<Digest>>;

/// How people reach what was published.
pub(crate) struct Address {
    /// `<registry>/<repository>`
    pub(crate) uri: String,
    /// What must be so before it can be pulled, for people.
    pub(crate) while_what: Option<&'static str>,
}

impl Address {
    /// The image in the local cloud's registry. Functions and builds call it by ECR's name; Docker
    /// on this machine cannot.
    pub(crate) fn local(published: &Published, host: &str) -> Self {
        let repository = published.repository_uri.split_once('/').map_or("", |(_, name)| name);
        let while_what = Some("while `archweld up` serves the registry:");
        Self { uri: format!("{host}/{repository}"), while_what }
    }
}

/// Everything that is said of a run that published.
pub(crate) struct Summary<'a> {
    pub(crate) published: &'a Published,
    pub(crate) address: Address,
    pub(crate) took: Took,
    /// Where the moving tags were, where that is known.
    pub(crate) before: Option<&'a Before>,
    /// What Step Functions is paid for, where that was counted.
    pub(crate) transitions: Option<usize>,
    /// From the start to the end.
    pub(crate) wall: Duration,
    /// How much of it no build was in progress.
    pub(crate) own: Duration,
}

/// Where the moving tags of a plan point now.
///
/// # Errors
/// When ECR may not be asked.
pub(crate) async fn before(api: &Api, plan: &Plan) -> Result<Before, CallError> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        images: Vec<Image>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Image {
        image_id: ImageId,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct ImageId {
        image_digest: Digest,
        image_tag: Option<String>,
    }
    let tags: Vec<&ImageTag> = plan.moving_tags.iter().map(|moving| &moving.tag).collect();
    if tags.is_empty() {
        return Ok(Before::new());
    }
    let ids: Vec<Value> = tags.iter().map(|tag| json!({"imageTag": tag})).collect();
    let request = json!({"repositoryName": plan.repository, "imageIds": ids});
    let answer: Answer = api.call(ECR, "BatchGetImage", request).await?;
    let digest = |tag: &ImageTag| {
        let ids = answer.images.iter().map(|image| &image.image_id);
        let id = ids.into_iter().find(|id| id.image_tag.as_deref() == Some(tag.as_str()))?;
        Some(id.image_digest)
    };
    Ok(tags.into_iter().map(|tag| (tag.clone(), digest(tag))).collect())
}

impl Summary<'_> {
    /// Writes it where the run's progress goes: as JSON, or as text on the standard output.
    ///
    /// # Errors
    /// When the standard output cannot be written to.
    pub(crate) fn show(&self, progress: &Progress) -> Result<(), Error> {
        if progress.is_json() {
            progress.json("summary", &self.json());
            return Ok(());
        }
        crate::print(&self.text())
    }

    fn pull(&self) -> String {
        let tags = &self.published.tags;
        format!("docker pull {}:{}", self.address.uri, tags.last().unwrap_or(&tags[0]))
    }

    fn runs(&self) -> Vec<String> {
        let tags = &self.published.tags;
        let image = format!("{}:{}", self.address.uri, tags.last().unwrap_or(&tags[0]));
        let platforms = self.published.platforms.iter();
        platforms.map(|it| format!("docker run --rm --platform {} {image}", it.platform)).collect()
    }

    /// The moving tags that point at the index and did not before, and where each was.
    fn moved(&self) -> impl Iterator<Item = (&ImageTag, Option<&Digest>)> {
        let tags = self.published.tags.iter();
        let moving = tags.filter_map(|tag| Some((tag, self.before?.get(tag)?.as_ref())));
        moving.filter(|(_, from)| *from != Some(&self.published.digest))
    }

    fn json(&self) -> Value {
        let mut published = json!(self.published);
        let took = |took: &Option<Duration>| took.map(milliseconds);
        if let Some(platforms) = published["platforms"].as_array_mut() {
            for (platform, took_of) in platforms.iter_mut().zip(&self.took.platforms) {
                platform["took_ms"] = json!(took(took_of));
            }
        }
        let moved = self.moved().map(|(tag, from)| json!({"tag": tag, "from": from}));
        let moved = self.before.map(|_| moved.collect::<Vec<_>>());
        let mut summary = json!({
            "status": "SUCCEEDED", "uri": self.address.uri, "pull": self.pull(),
            "run_lines": self.runs(), "wall_ms": milliseconds(self.wall),
            "own_ms": milliseconds(self.own), "manifest_took_ms": took(&self.took.manifest),
            "slowest": self.took.slowest, "moved": moved,
            "state_transitions": self.transitions,
        });
        if let (Some(summary), Value::Object(fields)) = (summary.as_object_mut(), published) {
            summary.extend(fields);
        }
        summary
    }

    fn text(&self) -> String {
        let Address { uri, while_what } = &self.address;
        let mut text = format!("published {uri}\n{}", self.describe());
        text += &while_what.map(|it| format!("{it}\n")).unwrap_or_default();
        for line in [self.pull()].iter().chain(&self.runs()) {
            text += &format!("  {line}\n");
        }
        text
    }

    /// What became of the run, a line each.
    fn describe(&self) -> String {
        let published = self.published;
        let names =
            |tags: &[ImageTag]| tags.iter().map(ImageTag::as_str).collect::<Vec<_>>().join(", ");
        let mut text = String::new();
        let mut line = |what: &str, value: &str| text += &format!("  {what:<14} {value}\n");
        line("index", &published.digest.to_string());
        for (image, took) in published.platforms.iter().zip(&self.took.platforms) {
            let mut how = match (image.reused, took) {
                (true, _) => "reused".to_owned(),
                (false, None) => "built".to_owned(),
                (false, Some(took)) => format!("built in {}", shown(*took)),
            };
            if self.took.slowest == Some(image.platform) {
                how += ", the slowest";
            }
            let value = format!("{} {:>9}, {how}", image.digest, size(image.size_bytes));
            line(&image.platform.to_string(), &value);
            line("", &program(image));
        }
        if let Some(took) = self.took.manifest {
            line("manifest", &format!("built in {}", shown(took)));
        }
        line("tags", &names(&published.tags));
        let moved: Vec<String> = self
            .moved()
            .map(|(tag, from)| match from {
                Some(from) => format!("{tag} (from {})", short(from)),
                None => format!("{tag} (new)"),
            })
            .collect();
        if !moved.is_empty() {
            line("tags moved", &moved.join(", "));
        }
        if !published.tags_kept.is_empty() {
            line("tags kept", &format!("{} (of an earlier run)", names(&published.tags_kept)));
        }
        if !published.tags_ahead.is_empty() {
            line("tags ahead", &format!("{} (of a newer run)", names(&published.tags_ahead)));
        }
        if !published.tags_left_out.is_empty() {
            let templates: Vec<String> =
                published.tags_left_out.iter().map(ToString::to_string).collect();
            line("left out", &format!("{} (not of this run)", templates.join(", ")));
        }
        let (wall_s, own_s) = (self.wall.as_secs_f64(), self.own.as_secs_f64());
        if self.own < self.wall {
            line("time", &format!("{wall_s:.1} s, {own_s:.2} s of them archweld's own"));
        } else {
            line("time", &format!("{wall_s:.2} s: nothing was built"));
        }
        if let Some(transitions) = self.transitions {
            line("billed on AWS", &format!("{transitions} state transitions, beside the builds"));
        }
        text
    }
}

/// What was found out about the program that an image starts.
fn program(image: &PublishedPlatform) -> String {
    match &image.executable {
        ExecutableCheck::Confirmed(found) => found.clone(),
        ExecutableCheck::Unknown(reason) => format!("its program could not be checked: {reason}"),
        ExecutableCheck::Off => "its program was not checked: check_executable = false".to_owned(),
    }
}

/// A digest as far as it tells itself from others.
pub(crate) fn short(digest: &Digest) -> String {
    let digest = digest.to_string();
    let end = digest.find(':').map_or(0, |colon| colon + 1) + DIGITS;
    digest.get(..end).unwrap_or(&digest).to_owned()
}

/// A size in decimal units, as registries show it.
#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(reused: [bool; 2], executable: [Value; 2]) -> Published {
        let platforms = ["linux/amd64", "linux/arm/v7"].into_iter().zip(reused).zip(executable);
        let platforms = platforms.map(|((platform, reused), executable)| {
            json!({
                "platform": platform, "digest": format!("sha256:{}", "a1".repeat(32)),
                "size_bytes": 1_234_567, "reused": reused, "executable": executable,
            })
        });
        serde_json::from_value(json!({
            "image": "hello", "run": "r1", "repository_uri": "registry.example/hello",
            "digest": format!("sha256:{}", "b2".repeat(32)),
            "media_type": archweld_model::media_type::OCI_INDEX,
            "tags": ["r1", "1.2.3", "main", "edge", "next"], "tags_kept": ["0123456"],
            "tags_ahead": ["1.2", "latest"], "tags_left_out": ["beta@next"],
            "platforms": platforms.collect::<Vec<_>>(),
        }))
        .unwrap()
    }

    fn summary<'a>(
        published: &'a Published,
        took: Took,
        before: Option<&'a Before>,
    ) -> Summary<'a> {
        let (wall, own) = (Duration::from_millis(7_250), Duration::from_millis(120));
        Summary {
            published,
            address: Address::local(published, "localhost:1"),
            transitions: Some(10),
            own: if took == Took::default() { wall } else { own },
            took,
            before,
            wall,
        }
    }

    #[test]
    fn says_what_was_built_what_the_programs_are_and_where_the_tags_point() {
        let executable = [json!({"confirmed": "/app is compiled for x86-64"}), json!("off")];
        let published = published([true, false], executable);
        let took = Took {
            platforms: vec![None, Some(Duration::from_secs(83))],
            manifest: Some(Duration::from_millis(2_100)),
            slowest: None,
        };
        let tag = |name: &str| name.parse::<ImageTag>().unwrap();
        let before = Before::from([
            (tag("main"), Some(format!("sha256:{}", "c3".repeat(32)).parse().unwrap())),
            (tag("edge"), None),
            (tag("next"), Some(published.digest)),
            (tag("latest"), None),
        ]);
        let summary = summary(&published, took, Some(&before));
        insta::assert_snapshot!(summary.describe(), @"
        index          sha256:b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2
        linux/amd64    sha256:a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1    1.2 MB, reused
                       /app is compiled for x86-64
        linux/arm/v7   sha256:a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1    1.2 MB, built in 1m 23s
                       its program was not checked: check_executable = false
        manifest       built in 2.1s
        tags           r1, 1.2.3, main, edge, next
        tags moved     main (from sha256:c3c3c3c3c3c3), edge (new)
        tags kept      0123456 (of an earlier run)
        tags ahead     1.2, latest (of a newer run)
        left out       beta@next (not of this run)
        time           7.2 s, 0.12 s of them archweld's own
        billed on AWS  10 state transitions, beside the builds
        ");
        let json = summary.json();
        assert_eq!(
            json["moved"],
            json!([
                {"tag": "main", "from": format!("sha256:{}", "c3".repeat(32))},
                {"tag": "edge", "from": null},
            ])
        );
        assert_eq!(json["platforms"][1]["took_ms"], 83_000);
        assert_eq!(json["platforms"][0]["took_ms"], Value::Null);
    }

    #[test]
    fn says_that_nothing_was_built_and_what_could_not_be_checked() {
        let unknown = json!({"unknown": "linux/amd64: the image names no program"});
        let published = published([true, true], [unknown.clone(), unknown]);
        let took = Took { platforms: vec![None, None], ..Took::default() };
        let mut summary = summary(&published, took, None);
        summary.own = summary.wall;
        let text = summary.describe();
        assert!(text.contains("its program could not be checked: linux/amd64:"), "{text}");
        assert!(!text.contains("tags moved"), "where they were is not known: {text}");
        assert_eq!(summary.json()["moved"], Value::Null);
        assert!(text.contains("time           7.25 s: nothing was built\n"), "{text}");
    }

    #[test]
    fn sizes_have_the_units_of_registries() {
        let shown = [0, 999, 1_500, 3_400_000, 2_500_000_000].map(size);
        assert_eq!(shown, ["0 B", "999 B", "1.5 kB", "3.4 MB", "2.50 GB"]);
    }
}

//! Which images a push concerns.

use archweld_model::{GitRef, ImageConfig};

use crate::{
    address::Address,
    push::{Changed, Push, short},
};

/// What keeps a push from building, in the message of its commit.
const SKIPS: [&str; 2] = ["[skip archweld]", "[archweld skip]"];

/// The ref that a push builds of an image, or why it builds nothing of it.
pub(crate) fn select(
    image: &ImageConfig,
    source: &str,
    addresses: &[Address],
    push: &Push,
) -> Result<GitRef, String> {
    let source = image.source.as_ref().map_or(source, |source| source.as_str());
    if !Address::parse(source).is_some_and(|source| addresses.contains(&source)) {
        return Err("it is built from another repository".to_owned());
    }
    let git_ref: GitRef =
        push.git_ref.parse().ok().filter(|_| push.git_ref.starts_with("refs/")).ok_or_else(
            || format!("ref {:?} is no branch or tag to build", short(&push.git_ref)),
        )?;
    if !image.refs.iter().any(|pattern| pattern.matches(&git_ref)) {
        return Err(format!("{:?} is none of its refs", short(&push.git_ref)));
    }
    let message = push.message.as_deref().unwrap_or_default();
    if let Some(skip) = SKIPS.iter().find(|skip| message.contains(**skip)) {
        return Err(format!("the commit says {skip}"));
    }
    let paths = image.depends_on();
    let concerns = |file: &String| paths.iter().any(|path| path.holds(file));
    match &push.changed {
        Changed::Files(files) if !files.iter().any(concerns) => {
            Err("none of its files changed".to_owned())
        }
        _ => Ok(git_ref),
    }
}

#[cfg(test)]
mod tests {
    use archweld_model::Config;

    use super::*;

    const SOURCE: &str = "https://github.com/team/app.git";

    fn image(rest: &str) -> ImageConfig {
        let text = format!(
            "[[image]]\nname = \"api\"\nplatforms = [\"linux/arm64\"]\nrepository = \"api\"\n{rest}"
        );
        Config::parse(&text).unwrap().images()[0].clone()
    }

    fn push(git_ref: &str, files: &[&str]) -> Push {
        Push {
            git_ref: git_ref.to_owned(),
            before: None,
            commit: "0123456789012345678901234567890123456789".parse().unwrap(),
            sequence: None,
            message: None,
            changed: Changed::Files(files.iter().map(|file| (*file).to_owned()).collect()),
        }
    }

    fn reason(image: &ImageConfig, push: &Push) -> String {
        let addresses = [Address::parse(SOURCE).unwrap()];
        select(image, SOURCE, &addresses, push).err().unwrap_or_default()
    }

    #[test]
    fn a_push_concerns_the_images_whose_files_it_changes() {
        let api = image("context = \"services/api\"\npaths = [\"libs/common\", \"go.sum\"]");
        for file in [
            "services/api/main.rs",
            "services/api",
            "libs/common/a/b.rs",
            "go.sum",
            "buildspec.yml",
            "buildspec-manifest.yml",
        ] {
            assert_eq!(reason(&api, &push("refs/heads/main", &["README.md", file])), "", "{file}");
        }
        for file in ["services/api2/main.rs", "libs/commons", "services/api/../web/x", "x/go.sum"] {
            let expected =
                if file.starts_with("services/api/") { "" } else { "none of its files changed" };
            assert_eq!(reason(&api, &push("refs/heads/main", &[file])), expected, "{file}");
        }
        assert_eq!(reason(&image(""), &push("refs/heads/main", &["anything"])), "");
    }

    #[test]
    fn own_buildspecs_take_the_place_of_the_projects() {
        let api = image("context = \"api\"\nbuildspec = \"ci/build.yml\"\npublisher = \"lambda\"");
        assert_eq!(reason(&api, &push("refs/heads/main", &["ci/build.yml"])), "");
        for file in ["buildspec.yml", "buildspec-manifest.yml"] {
            let reason = reason(&api, &push("refs/heads/main", &[file]));
            assert_eq!(reason, "none of its files changed", "{file}");
        }
    }

    #[test]
    fn a_push_builds_only_the_refs_of_the_image() {
        let api = image("refs = [\"main\", \"release/*\", \"refs/tags/v*\"]");
        for git_ref in ["refs/heads/main", "refs/heads/release/1", "refs/tags/v1"] {
            assert_eq!(reason(&api, &push(git_ref, &["a"])), "", "{git_ref}");
        }
        let reason = |git_ref: &str| reason(&api, &push(git_ref, &["a"]));
        assert_eq!(reason("refs/heads/next"), "\"refs/heads/next\" is none of its refs");
        assert_eq!(reason("refs/tags/1"), "\"refs/tags/1\" is none of its refs");
    }

    #[test]
    fn names_that_try_to_break_out_build_nothing() {
        let api = image("refs = [\"refs/*\"]");
        let long = format!("refs/heads/{}", "a".repeat(300));
        for git_ref in [
            "refs/heads/$(touch x)",
            "refs/heads/a\nb",
            "refs/heads/..",
            "refs/heads/a..b",
            "refs/pull/1/head",
            "refs/heads/",
            "main",
            "",
            &long,
        ] {
            let reason = reason(&api, &push(git_ref, &["a"]));
            assert!(reason.ends_with("is no branch or tag to build"), "{git_ref:?}: {reason:?}");
            assert!(!reason.contains('\n') && reason.len() < 300, "{reason:?}");
        }
        for harmless in ["refs/heads/größer", "refs/heads/$(x)", "refs/heads/a;b|c`d`"] {
            assert_eq!(reason(&api, &push(harmless, &["a"])), "", "{harmless}");
        }
    }

    #[test]
    fn a_commit_may_ask_to_be_skipped() {
        for (message, expected) in [
            ("fix\n\n[skip archweld]", "the commit says [skip archweld]"),
            ("[archweld skip] fix", "the commit says [archweld skip]"),
            ("skip archweld", ""),
        ] {
            let push =
                Push { message: Some(message.to_owned()), ..push("refs/heads/main", &["a"]) };
            assert_eq!(reason(&image(""), &push), expected);
        }
    }

    #[test]
    fn a_push_to_another_repository_builds_nothing() {
        let other = image("source = \"https://github.com/team/other\"");
        let reason = reason(&other, &push("refs/heads/main", &["a"]));
        assert_eq!(reason, "it is built from another repository");
    }
}

"""What an earlier run built from the same source is not built again."""

import time
import unittest

from support import PLATFORMS, ROOT, EndToEnd

UNCHANGED_SECONDS_MAX = 5
EXAMPLE = ROOT / "example"
IN_A_FOLDER = (EXAMPLE / "archweld.toml").read_text().replace('context = "."', 'context = "app"')


def built(reports):
    return sorted({report["target"] for report in reports if report["type"] == "build"})


def reused(reports):
    return {report["target"]: report["digest"] for report in reports if report["type"] == "reused"}


def digests(summary):
    return {image["platform"]: image["digest"] for image in summary["platforms"]}


class Reuse(EndToEnd):
    def assert_nothing_built(self, reports, summary, earlier):
        self.assertEqual(built(reports), [])
        self.assertEqual(reused(reports), digests(earlier))
        self.assertEqual(summary["digest"], earlier["digest"])
        self.assertEqual([image["reused"] for image in summary["platforms"]], [True, True])

    def test_a_commit_that_was_published_is_built_again_only_by_force(self):
        project = self.project()
        first, reports = self.publish(project)
        self.assertEqual(built(reports), [*PLATFORMS, "manifest"])
        self.assertEqual([image["reused"] for image in first["platforms"]], [False, False])

        began = time.monotonic()
        second, reports = self.publish(project)
        self.assertLess(time.monotonic() - began, UNCHANGED_SECONDS_MAX)
        self.assert_nothing_built(reports, second, first)
        self.assertEqual(second["tags"], [second["run"], *first["tags"][1:]])

        forced, reports = self.publish(project, "--force")
        self.assertEqual(built(reports), [*PLATFORMS, "manifest"])
        # Without Docker's cache, a step that writes a file makes another layer.
        self.assertNotEqual(forced["digest"], first["digest"])
        commit = first["tags"][1]
        self.assertEqual((forced["tags"], forced["tags_kept"]), ([forced["run"], "latest"], [commit]))

        with self.up(project) as cloud:
            tags = cloud.tags()
            self.assertEqual((tags[commit], tags["latest"]), (first["digest"], forced["digest"]))

    def test_the_terminal_says_what_was_reused_and_what_built(self):
        config = (EXAMPLE / "archweld.toml").read_text()
        both_platforms = 'platforms = ["linux/amd64", "linux/arm64"]'
        self.assertIn(both_platforms, config)
        project = self.project(archweld_toml=config.replace(both_platforms, 'platforms = ["linux/arm64"]'))
        first = self.run_project(project)
        self.assertEqual(first.returncode, 0, first.stderr)
        self.assertRegex(
            first.stdout, r"linux/arm64 +sha256:\w+ +\S+ MB, built in \S+\n +/bin/busybox is compiled for AArch64\n"
        )

        further = ("--platform", "linux/amd64", "--platform", "linux/arm64")
        both = self.run_project(project, *further)
        self.assertEqual(both.returncode, 0, both.stderr)
        self.assertRegex(both.stderr, r"linux/arm64 +reused, built by an earlier run\n")
        self.assertRegex(both.stderr, r"linux/amd64 +SUCCEEDED")
        self.assertRegex(both.stderr, r"manifest +SUCCEEDED")
        self.assertNotRegex(both.stderr, r"linux/arm64 +BUILD")
        self.assertRegex(both.stdout, r"linux/arm64 +sha256:\w+ +\S+ MB, reused\n")
        self.assertRegex(both.stdout, r"linux/amd64 +sha256:\w+ +\S+ MB, built in \S+\n")

        neither = self.run_project(project, *further)
        self.assertRegex(neither.stdout, r"time +\S+ s: nothing was built\n")

    def test_a_commit_that_changes_nothing_of_the_image_builds_nothing(self):
        project = self.project(archweld_toml=IN_A_FOLDER)
        (project / "app").mkdir()
        for name in ("Dockerfile", "hello"):
            (project / name).rename(project / "app" / name)
        toml = (project / "archweld.toml").read_text()
        earlier_commit = self.commit(project, archweld_toml=toml.replace('"Dockerfile"', '"app/Dockerfile"'))
        first, _ = self.publish(project)

        commit = self.commit(project, README_md="elsewhere")
        second, reports = self.publish(project)
        self.assert_nothing_built(reports, second, first)
        self.assertEqual(second["tags"], [second["run"], commit, "latest"])
        of_a_ref, reports = self.publish(project, "--source", project, "--ref", "main")
        self.assert_nothing_built(reports, of_a_ref, first)
        with self.up(project) as cloud:
            tags = cloud.tags()
            self.assertEqual({tags[tag] for tag in (earlier_commit, commit, "latest")}, {first["digest"]})

        dockerfile = project / "app" / "Dockerfile"
        dockerfile.write_text(dockerfile.read_text().replace("8080", "8081"))
        self.commit(project)
        _, reports = self.publish(project)
        self.assertEqual(built(reports), [*PLATFORMS, "manifest"])

    def test_uncommitted_changes_are_always_built(self):
        project = self.project()
        self.publish(project)
        (project / "README.md").write_text("not committed")
        for _ in range(2):
            summary, reports = self.publish(project, "--publisher", "lambda")
            self.assertEqual(built(reports), [*PLATFORMS])
            self.assertEqual(summary["tags"], [summary["run"], "latest"])


if __name__ == "__main__":
    unittest.main()

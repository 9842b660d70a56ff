"""A source tree in, a multi-architecture image out: what Docker, skopeo and archweld say of it agrees."""

import contextlib
import json
import os
import re
import shlex
import subprocess
import time
import unittest

from support import ARCHWELD, PLATFORMS, ROOT, EndToEnd, command, digest_of, wait_until

SECOND_RUN_SECONDS_MAX = 60


class Publish(EndToEnd):
    def assert_published(self, summary, cloud):
        """The registry serves what the summary says, and it runs on both platforms."""
        repository = f"{cloud.registry}/hello"
        self.assertEqual([image["platform"] for image in summary["platforms"]], list(PLATFORMS))
        self.assertEqual(cloud.tags()["latest"], summary["digest"])

        raw = cloud.raw(f"{repository}:latest")
        self.assertEqual(digest_of(raw), summary["digest"])
        self.assertEqual(platforms_of(raw), summary_platforms(summary))
        inspected = command("docker", "manifest", "inspect", "--insecure", f"{repository}:latest").stdout
        self.assertEqual(platforms_of(inspected), summary_platforms(summary))

        # What each build pushed, under a tag of its own.
        for architecture, image in zip(("amd64", "arm64v8"), summary["platforms"], strict=True):
            self.assertEqual(cloud.tags()[f"{summary['run']}-{architecture}"], image["digest"])

        for platform, digest in summary_platforms(summary).items():
            command("docker", "pull", "--platform", platform, f"{repository}:latest")
            image = json.loads(command("docker", "image", "inspect", f"{repository}:latest").stdout)[0]
            self.assertEqual(f"{image['Os']}/{image['Architecture']}", platform)
            config = json.loads(cloud.raw(f"{repository}@{digest}"))["config"]["digest"]
            # Docker's own image store names an image by its config, containerd's by what was pulled.
            self.assertIn(image["Id"], (config, summary["digest"]))

        with self.second_registry() as other:
            tls = ("--src-tls-verify=false", "--dest-tls-verify=false")
            command("skopeo", "copy", "--all", *tls, f"docker://{repository}:latest", f"docker://{other}/copy:latest")
            self.assertEqual(cloud.raw(f"{other}/copy:latest"), raw)
            for digest in summary_platforms(summary).values():
                self.assertEqual(digest_of(cloud.raw(f"{other}/copy@{digest}")), digest)

        # The lines that archweld printed, at the port where the registry is now.
        pull, *runs = (
            shlex.split(line.replace(summary["uri"], repository)) for line in (summary["pull"], *summary["run_lines"])
        )
        self.addCleanup(command, "docker", "image", "rm", "--force", pull[-1])
        command(*pull)
        for line, (platform, machine) in zip(runs, PLATFORMS.items(), strict=True):
            self.assertEqual(command(*line).stdout, f"hello from {machine}, built for {platform}\n")

    @contextlib.contextmanager
    def second_registry(self):
        """Debian's docker-registry: its address."""
        config = self.folder / "registry.yml"
        storage = {"filesystem": {"rootdirectory": str(self.folder / "registry")}}
        config.write_text(json.dumps({"version": "0.1", "storage": storage, "http": {"addr": "127.0.0.1:0"}}))
        log = self.folder / "registry.log"
        with log.open("wb") as output:
            registry = subprocess.Popen(["docker-registry", "serve", config], stdout=output, stderr=output)

        def address():
            self.assertIsNone(registry.poll(), log.read_text())
            found = re.search(r"listening on (127\.0\.0\.1:\d+)", log.read_text())
            return found and found[1]

        try:
            yield wait_until(address, "the second registry says where it listens")
        finally:
            registry.terminate()
            registry.wait()

    def test_the_build_publisher_publishes_an_index_of_both_platforms(self):
        project = self.project()
        summary, reports = self.publish(project)
        targets = [report["target"] for report in reports if report.get("status") == "SUCCEEDED" and "target" in report]
        self.assertEqual(sorted(targets), ["linux/amd64", "linux/arm64", "manifest"])
        self.assertEqual(targets[-1], "manifest")
        # docs/cost.md
        self.assertEqual(summary["state_transitions"], 10)
        with self.up(project) as cloud:
            self.assert_published(summary, cloud)

    def test_the_lambda_publisher_publishes_the_same_without_a_manifest_build(self):
        project = self.project()
        summary, reports = self.publish(project, "--publisher", "lambda")
        self.assertEqual({report["target"] for report in reports if "target" in report}, set(PLATFORMS))
        self.assertEqual(summary["state_transitions"], 9)
        with self.up(project) as cloud:
            self.assert_published(summary, cloud)

    def test_one_platform_can_be_built_alone(self):
        summary, _ = self.publish(self.project(), "--platform", "linux/arm64")
        self.assertEqual([image["platform"] for image in summary["platforms"]], ["linux/arm64"])

    def test_a_run_that_is_not_the_newest_leaves_moving_tags_and_says_so(self):
        project = self.project()
        with self.up(project) as cloud:
            soon = int((time.time() + 1800) * 1000)
            newest = cloud.execute(publisher="lambda", trigger={"sequence": soon})
            self.assertEqual(newest["status"], "SUCCEEDED", newest)
            digest = json.loads(newest["output"])["digest"]
        changed = (project / "Dockerfile").read_text().replace("8080", "8081")
        commit = self.commit(project, Dockerfile=changed)
        done = self.run_project(project)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, rf"\n  tags +[-\w]+, {commit}\n  tags ahead +latest \(of a newer run\)\n")
        self.assertRegex(done.stdout, rf"docker pull localhost:\d+/hello:{commit}\n")
        with self.up(project) as cloud:
            self.assertEqual(cloud.tags()["latest"], digest)

    def test_a_buildspec_that_knows_only_account_and_region_publishes(self):
        host = "$AWS_ACCOUNT_ID.dkr.ecr.$AWS_DEFAULT_REGION.amazonaws.com"
        changes = {}
        for name in ("buildspec.yml", "buildspec-manifest.yml"):
            text = (ROOT / "example" / name).read_text()
            changed = text.replace(f"${{IMAGE_REGISTRY:-{host}}}", host)
            self.assertNotEqual(changed, text)
            changes[name.replace(".", "_")] = changed
        project = self.project(**changes)
        summary, _ = self.publish(project)
        with self.up(project) as cloud:
            self.assert_published(summary, cloud)

    def test_a_git_repository_is_built_at_a_ref(self):
        project = self.project()
        head = command("git", "-C", project, "rev-parse", "HEAD").stdout.strip()
        command("git", "-C", project, "branch", "other")
        (project / "Dockerfile").write_text("not what the ref has")
        summary, _ = self.publish(project, "--source", f"file://{project}", "--ref", "other", "--publisher", "lambda")
        self.assertIn(head[:7], summary["tags"])

    def test_make_run_succeeds_and_is_quick_the_second_time(self):
        make = ("make", "--no-print-directory", "-C", ROOT, "run", f"PROFILE={ARCHWELD.parent.name}")
        further = f"ARGS=--state {self.state} --port 0"
        environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
        command(*make, further, env=environment)
        began = time.monotonic()
        done = command(*make, further, env=environment)
        self.assertLess(time.monotonic() - began, SECOND_RUN_SECONDS_MAX)
        self.assertIn("\n  docker pull localhost:", done.stdout)
        for platform in PLATFORMS:
            self.assertIn(f"\n  docker run --rm --platform {platform} localhost:", done.stdout)


def platforms_of(index):
    """Platform, without Arm's default variant, and digest of each entry of an index."""
    entries = {}
    for entry in json.loads(index)["manifests"]:
        platform = entry["platform"]
        entries[f"{platform['os']}/{platform['architecture']}"] = entry["digest"]
    return entries


def summary_platforms(summary):
    return {image["platform"]: image["digest"] for image in summary["platforms"]}


if __name__ == "__main__":
    unittest.main()

"""An image that is not what its platform says is refused by name, and no tag points at it."""

import shutil
import unittest

from support import ROOT, EndToEnd

EXAMPLE = ROOT / "example"
CONFIG = (EXAMPLE / "archweld.toml").read_text()
# Both platforms' images start the same program, which was compiled for one of them.
FOREIGN_PROGRAM = """\
ARG ARCH
FROM amd64/busybox:stable AS program
FROM ${ARCH}busybox:stable
COPY --from=program /bin/busybox /app/server
ENTRYPOINT ["/app/server", "true"]
"""
FOREIGN_BASE = "FROM amd64/busybox:stable\n"


class Verification(EndToEnd):
    def assert_refused(self, project, *further, says):
        """A run that builds everything and publishes nothing."""
        done = self.run_project(project, *further)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertEqual(done.stdout, "")
        for platform in ("linux/amd64", "linux/arm64"):
            self.assertRegex(done.stderr, f"{platform} +SUCCEEDED")
        last = done.stderr.splitlines()[-1]
        self.assertRegex(last, says)

    def tags(self, project):
        with self.up(project) as cloud:
            return cloud.tags()

    def test_a_program_of_another_processor_is_refused_unless_nobody_is_to_look(self):
        project = self.project()
        self.publish(project)
        before = self.tags(project)

        foreign = self.project("foreign", Dockerfile=FOREIGN_PROGRAM)
        says = (
            r"^archweld: Image\.WrongPlatform: image sha256:\w{64} was built for linux/arm64, "
            r"but /app/server is compiled for x86-64$"
        )
        self.assert_refused(foreign, "--publisher", "lambda", says=says)
        after = self.tags(project)
        self.assertEqual({tag: after.get(tag) for tag in before}, before)
        # What the builds pushed, under tags of the run's own, is all that is new.
        self.assertEqual([tag.rsplit("-", 1)[1] for tag in sorted(after.keys() - before)], ["amd64", "arm64v8"])

        self.assert_refused(foreign, "--publisher", "build", says=says)
        after = self.tags(project)
        self.assertEqual({tag: after.get(tag) for tag in before}, before)

        self.commit(foreign, archweld_toml=f"{CONFIG}check_executable = false\n")
        summary, _ = self.publish(foreign)
        self.assertEqual([image["executable"] for image in summary["platforms"]], ["off", "off"])
        self.assertEqual(self.tags(project)["latest"], summary["digest"])

    def test_a_config_of_another_platform_is_refused(self):
        project = self.project(Dockerfile=FOREIGN_BASE)
        says = (
            r"^archweld: Image\.WrongPlatform: image sha256:\w{64} was built for linux/arm64, "
            r"but its config says linux/amd64$"
        )
        self.assert_refused(project, "--publisher", "lambda", says=says)
        self.assertNotIn("latest", self.tags(project))


class ImmutableRepository(EndToEnd):
    TAG_IMMUTABLE = r"Publish\.TagImmutable: tag latest .*\bhello\b.* immutable"

    def change(self, project, port):
        dockerfile = (EXAMPLE / "Dockerfile").read_text()
        (project / "Dockerfile").write_text(dockerfile.replace("8080", str(port)))

    def immutable_template(self):
        for folder in ("infra", "state-machine"):
            shutil.copytree(ROOT / folder, self.folder / folder)
        template = self.folder / "infra" / "template.yaml"
        rule = "      ImageTagMutability: !If [HasImmutableTags, IMMUTABLE_WITH_EXCLUSION, !Ref AWS::NoValue]\n"
        text = template.read_text()
        self.assertEqual(text.count(rule), 1)
        template.write_text(text.replace(rule, "      ImageTagMutability: IMMUTABLE\n"))
        return template

    def test_a_tag_that_may_not_move_stays_and_the_run_says_so(self):
        project = self.project()
        first, _ = self.publish(project)
        template = self.immutable_template()
        again, _ = self.publish(project, "--template", template)
        self.assertEqual(again["digest"], first["digest"])

        self.change(project, 8081)
        self.commit(project)
        done = self.run_project(project, "--template", template)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertRegex(done.stderr.splitlines()[-1], f"^archweld: {self.TAG_IMMUTABLE}")
        with self.up(project) as cloud:
            self.assertEqual(cloud.tags()["latest"], first["digest"])

    def test_tags_that_are_excluded_move_in_an_immutable_repository(self):
        project = self.project()
        mutability = ("ecr", "put-image-tag-mutability", "--repository-name", "hello", "--image-tag-mutability")
        with self.up(project) as cloud:
            exclusions = [{"filterType": "WILDCARD", "filter": tag} for tag in ("latest", "archweld.*")]
            cloud.client("ecr").put_image_tag_mutability(
                repositoryName="hello",
                imageTagMutability="IMMUTABLE_WITH_EXCLUSION",
                imageTagMutabilityExclusionFilters=exclusions,
            )
            digests = set()
            for port in (8080, 8081):
                self.change(project, port)
                execution = cloud.execute(publisher="lambda")
                self.assertEqual(execution["status"], "SUCCEEDED", execution)
                digests.add(cloud.tags()["latest"])
            self.assertEqual(len(digests), 2)

            cloud.aws(*mutability, "IMMUTABLE")
            self.change(project, 8082)
            execution = cloud.execute(publisher="lambda")
            self.assertEqual((execution["status"], execution["error"]), ("FAILED", "Publish.TagImmutable"))
            self.assertRegex(f"{execution['error']}: {execution['cause']}", self.TAG_IMMUTABLE)
            self.assertIn(cloud.tags()["latest"], digests)


if __name__ == "__main__":
    unittest.main()

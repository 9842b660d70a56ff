"""What fails, fails with a clear error and an exit status, and leaves nothing behind."""

import os
import re
import signal
import socket
import time
import unittest
from pathlib import Path

from support import ROOT, EndToEnd, wait_until

EXAMPLE = ROOT / "example"
INTERRUPT_SECONDS_MAX = 2
# Far longer than any test waits: what runs this must be stopped.
LONG_SECONDS = 300

DOCKERFILE = (EXAMPLE / "Dockerfile").read_text()
COMPILER_LINE = "hello.c:7: error: unknown register name 'eax' on aarch64"


def with_step(step):
    """The example's Dockerfile with another step that runs on the target."""
    return DOCKERFILE.replace("EXPOSE", f"RUN {step}\n\nEXPOSE")


class Failures(EndToEnd):
    def test_a_dockerfile_that_fails_for_one_platform_stops_the_other_and_moves_no_tag(self):
        project = self.project()
        self.publish(project)
        with self.up(project) as cloud:
            tags = cloud.tags()

        step = f'if [ "$(uname -m)" = x86_64 ]; then sleep {LONG_SECONDS}; else echo "{COMPILER_LINE}" >&2; exit 3; fi'
        broken = self.project("broken", Dockerfile=with_step(step))
        began = time.monotonic()
        done = self.run_project(broken)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertLess(time.monotonic() - began, LONG_SECONDS / 5)
        self.assertIn(COMPILER_LINE, done.stderr)
        self.assertRegex(done.stderr, r"linux/amd64 +STOPPED")
        self.assertRegex(done.stderr, r"linux/arm64 +FAILED")
        self.assertRegex(done.stderr, r"archweld: Build\.Failed: .*linux/arm64")
        log = Path(re.search(r"linux/arm64: the whole log: (.*)", done.stderr)[1])
        self.assertIn(COMPILER_LINE, log.read_text())

        with self.up(project) as cloud:
            moved = {tag: digest for tag, digest in cloud.tags().items() if tags.get(tag) not in (None, digest)}
            self.assertEqual(moved, {})
            self.assertEqual(cloud.tags()["latest"], tags["latest"])

    def test_ctrl_c_ends_builds_at_once_and_the_next_run_works(self):
        project = self.project(Dockerfile=with_step(f"echo 'a long step' && sleep {LONG_SECONDS}"))
        with self.start(self.arguments(project, "--json")) as (process, output):

            def both_are_in_the_step():
                self.assertIsNone(process.poll(), output.read_text())
                lines = re.findall(r'"line":"a long step', output.read_text())
                return len(lines) == 2

            wait_until(both_are_in_the_step, "both builds are in their long step")
            os.killpg(process.pid, signal.SIGINT)
            began = time.monotonic()
            process.wait(INTERRUPT_SECONDS_MAX)
            self.assertLess(time.monotonic() - began, INTERRUPT_SECONDS_MAX)
            self.assertEqual(process.returncode, 130, output.read_text())
        self.publish(self.project("next"))

    def assert_refused(self, project, *further, status, says, port=0):
        done = self.run_project(project, *further, port=port)
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        self.assertRegex(done.stderr, says)
        self.assertNotIn("panicked", done.stderr)
        return done

    def assert_refused_at_once(self, project, *further, says, port=0):
        self.assert_refused(project, *further, status=2, says=says, port=port)
        self.assertFalse(self.state.exists())

    def test_an_unknown_image_is_refused(self):
        self.assert_refused_at_once(self.project(), "--image", "absent", says='unknown image "absent".*hello')

    def test_an_unknown_platform_is_refused(self):
        self.assert_refused_at_once(self.project(), "--platform", "linux/mips", says='unknown platform "linux/mips"')

    def test_an_unknown_option_is_refused(self):
        self.assert_refused_at_once(self.project(), "--colour", says="unexpected argument '--colour'")

    def test_a_malformed_configuration_is_refused_with_line_and_column(self):
        text = (EXAMPLE / "archweld.toml").read_text()
        for wrong, says in [
            (text.replace("platforms = [", "platforms = "), r"archweld\.toml:\d+:\d+: "),
            (text.replace("platforms = ", "plattforms = "), r"archweld\.toml:\d+:\d+: .*plattforms"),
            (text.replace("linux/arm64", "linux/mips"), r"archweld\.toml:\d+:\d+: .*linux/mips"),
        ]:
            with self.subTest(wrong=says):
                project = self.project(f"project{hash(wrong)}", archweld_toml=wrong)
                self.assert_refused_at_once(project, says=says)

    def test_a_missing_configuration_is_refused(self):
        self.assert_refused_at_once(self.project(archweld_toml=None), says=r"archweld\.toml.*No such file")

    def test_a_missing_source_is_refused(self):
        self.assert_refused_at_once(self.project(), "--source", self.folder / "absent", says="absent: No such file")

    def test_a_missing_buildspec_fails_the_run(self):
        project = self.project(buildspec_yml=None)
        self.assert_refused(project, status=1, says=r"archweld: Build\.\w+: .*YAML_FILE_ERROR: stat .*/buildspec\.yml")

    def test_a_buildspec_with_a_yaml_error_fails_the_run(self):
        project = self.project(buildspec_yml="version: 0.2\nphases:\n  build:\n commands: [\n")
        self.assert_refused(project, status=1, says=r"archweld: Build\.\w+: .*YAML_FILE_ERROR: .* at line 4")

    def test_a_full_registry_fails_the_run(self):
        further = ("--registry-bytes-max", 100_000)
        self.assert_refused(self.project(), *further, status=1, says="registry is full: its limit of 100000 bytes")

    def test_an_occupied_port_is_refused(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.assert_refused(self.project(), status=2, says=f"cannot listen on port {port}", port=port)

    def test_a_state_folder_in_use_is_refused(self):
        project = self.project()
        with self.up(project):
            self.assert_refused(project, status=2, says=f"{self.state} is in use by another archweld")


if __name__ == "__main__":
    unittest.main()

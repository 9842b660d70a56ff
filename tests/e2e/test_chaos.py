"""A server, builds and pushes that are killed or cut off, with a real Docker engine; see docs/reliability.md."""

import contextlib
import json
import os
import re
import signal
import subprocess
import unittest
from pathlib import Path

from support import PLATFORMS, ROOT, EndToEnd, command, wait_until

DOCKERFILE = (ROOT / "example" / "Dockerfile").read_text()
# Long enough to be in the middle of, short enough to wait for twice.
STEP_SECONDS = 4
STEP = "a step in the middle"
LAYER_BYTES = 24_000_000
DISK_BYTES = 64_000_000


def with_step(step):
    """The example's Dockerfile with another step that runs on the target."""
    return DOCKERFILE.replace("EXPOSE", f"RUN {step}\n\nEXPOSE")


class Chaos(EndToEnd):
    def executions(self, cloud):
        listed = cloud.client("stepfunctions").list_executions(stateMachineArn=cloud.state_machine)
        return listed["executions"]

    def begin(self, cloud):
        states = cloud.client("stepfunctions")
        return states.start_execution(stateMachineArn=cloud.state_machine, input="{}")["executionArn"]

    def ended(self, cloud, execution):
        states = cloud.client("stepfunctions")

        def ended():
            described = states.describe_execution(executionArn=execution)
            return described if described["status"] != "RUNNING" else None

        return wait_until(ended, f"{execution} ends")

    def logs(self):
        return "".join(path.read_text() for path in self.state.glob("codebuild/logs/*.log"))

    def assert_whole(self, cloud, image):
        """Every byte of an index is there: Docker verifies what it pulls."""
        for platform, machine in PLATFORMS.items():
            command("docker", "pull", "--quiet", "--platform", platform, image)
            run = ("docker", "run", "--rm", "--platform", platform, "--entrypoint", "uname")
            self.assertEqual(command(*run, image, "-m").stdout.strip(), machine)

    def kill(self, process):
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    def test_a_killed_server_leaves_nothing_behind_and_goes_on_after_a_restart(self):
        # Anew each time: an engine that has seen the step before has its layer, and takes no time over it.
        step = f"echo '{STEP}' && sleep {STEP_SECONDS} && : {os.urandom(8).hex()}"
        project = self.project(Dockerfile=with_step(step))
        with self.serve(project) as (process, cloud):
            execution = self.begin(cloud)
            wait_until(lambda: len(re.findall(rf"Z {STEP}$", self.logs(), re.M)) == 2, "both builds are in their step")
            self.kill(process)
        self.assert_no_processes()
        with self.up(project) as cloud:
            ended = self.ended(cloud, execution)
            self.assertEqual(ended["status"], "SUCCEEDED", ended)
            self.assertEqual(len(self.executions(cloud)), 1)
            digest = json.loads(ended["output"])["digest"]
            self.assertEqual(cloud.tags()["latest"], digest)
            self.assert_whole(cloud, f"{cloud.registry}/hello:latest")
            self.assertIn("the local CodeBuild ended while the build ran", self.logs())

    def test_a_push_that_is_cut_off_is_not_served_and_succeeds_when_it_is_repeated(self):
        project = self.project()
        local = "archweld-chaos:push"
        self.image(local)
        with self.serve(project) as (process, cloud):
            name = f"{cloud.registry}/hello:cut"
            command("docker", "tag", local, name)
            self.login(cloud)
            push = subprocess.Popen(["docker", "push", name], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            wait_until(self.is_uploading, "a layer is on its way")
            self.kill(process)
            push.kill()
            push.communicate()
        self.addCleanup(command, "docker", "rmi", "--force", name, local, check=False)
        with self.up(project) as cloud:
            self.assertEqual(list((self.state / "registry/uploads").iterdir()), [])
            self.assertNotIn("cut", cloud.tags())
            name = f"{cloud.registry}/hello:cut"
            command("docker", "tag", local, name)
            self.addCleanup(command, "docker", "rmi", "--force", name, check=False)
            self.login(cloud)
            command("docker", "push", name)
            command("docker", "rmi", name)
            command("docker", "pull", name)

    def test_a_full_disk_fails_the_run_in_words_and_a_retry_works_once_there_is_room(self):
        self.mount_disk()
        project = self.project(Dockerfile=with_step(f"dd if=/dev/urandom of=/big bs={LAYER_BYTES} count=1"))
        ballast = self.state / "ballast"
        with self.up(project) as cloud:
            room = os.statvfs(self.state)
            command("fallocate", "--length", room.f_bavail * room.f_frsize - LAYER_BYTES // 2, ballast)
            failed = cloud.execute()
            self.assertEqual(failed["status"], "FAILED", failed)
            self.assertEqual(failed["error"], "Build.Failed", failed)
            self.assertRegex(failed["cause"], r"linux/\w+: POST_BUILD failed: .*docker push")
            # Not even the log may have found room at once.
            wait_until(lambda: "disk is full" in self.logs(), "the build's log says why", 30)
            self.assertEqual(cloud.tags(), {})
            ballast.unlink()
            retried = cloud.execute()
            self.assertEqual(retried["status"], "SUCCEEDED", retried)
            self.assert_whole(cloud, f"{cloud.registry}/hello:latest")

    def assert_no_processes(self):
        mark = f"CODEBUILD_SRC_DIR={self.state}".encode()

        def left():
            for environment in Path("/proc").glob("[0-9]*/environ"):
                with contextlib.suppress(OSError):
                    if mark in environment.read_bytes():
                        return True
            return False

        wait_until(lambda: not left(), "no build's process is left", 5)

    def image(self, name):
        folder = self.folder / "image"
        folder.mkdir()
        (folder / "big").write_bytes(os.urandom(LAYER_BYTES))
        (folder / "Dockerfile").write_text("FROM scratch\nCOPY big /big\n")
        command("docker", "build", "--tag", name, folder)

    def login(self, cloud):
        password = command("aws", "ecr", "get-login-password", env=cloud.environment).stdout
        login = ["docker", "login", "--username", "AWS", "--password-stdin", cloud.registry]
        subprocess.run(login, input=password, text=True, check=True, capture_output=True)

    def is_uploading(self):
        uploads = self.state / "registry/uploads"
        with contextlib.suppress(OSError):
            return any(0 < upload.stat().st_size < LAYER_BYTES // 2 for upload in uploads.iterdir())
        return False

    def mount_disk(self):
        """The state folder as a small disk of its own."""
        self.state.mkdir()
        mounted = command("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", self.state, check=False)
        if mounted.returncode != 0:
            self.skipTest(f"no small disk can be mounted here: {mounted.stderr}")
        self.addCleanup(command, "umount", "--lazy", self.state)


if __name__ == "__main__":
    unittest.main()

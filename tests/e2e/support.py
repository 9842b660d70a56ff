"""What the end-to-end tests share: projects to build, the archweld command, and what it may leave behind."""

import contextlib
import ctypes
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import boto3
from botocore.config import Config

ROOT = Path(__file__).resolve().parents[2]
ARCHWELD = Path(os.environ["ARCHWELD"])
REGION = "us-east-1"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": REGION,
}

PLATFORMS = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
RUN_SECONDS_MAX = 120
SETTLE_SECONDS_MAX = 5

# From <linux/prctl.h>. Descendants whose parent ended become children of this process, so that what
# archweld leaves behind can be seen.
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def command(*arguments, check=True, **options):
    """Runs a command and returns what it printed."""
    done = subprocess.run(
        [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=RUN_SECONDS_MAX,
        **options,
    )
    if check and done.returncode != 0:
        raise AssertionError(f"{arguments} exited with {done.returncode}: {done.stdout}{done.stderr}")
    return done


def wait_until(condition, what, seconds_max=RUN_SECONDS_MAX):
    """Waits for a condition's value to be true and returns it."""
    deadline = time.monotonic() + seconds_max
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds_max} s: {what}")
        time.sleep(0.05)
    return value


def digest_of(text):
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def children():
    """The command lines of this process's children that run; those that have ended are reaped."""
    running = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The command's name is in parentheses and may hold anything.
            state, parent = status.read_text().rpartition(")")[2].split()[:2]
            if int(parent) != os.getpid():
                continue
            pid = int(status.parent.name)
            if state == "Z":
                os.waitpid(pid, os.WNOHANG)
                continue
            arguments = (status.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            running.append(f"{pid} {arguments}")
    return running


def containers():
    return set(command("docker", "ps", "--all", "--quiet", "--no-trunc").stdout.split())


class EndToEnd(unittest.TestCase):
    """A test with a project and a state folder of its own, which fails on anything left behind."""

    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="archweld-e2e-")))
        self.state = self.folder / "state"
        before = containers()
        self.addCleanup(self.assert_nothing_left, before)

    def assert_nothing_left(self, containers_before):
        wait_until(
            lambda: not children() and containers() <= containers_before,
            f"processes {children()} and containers {containers() - containers_before} end",
            SETTLE_SECONDS_MAX,
        )

    def project(self, name="project", **files):
        """A copy of the example under git; `files` replaces some, `Dockerfile` or `buildspec_yml`."""
        folder = self.folder / name
        shutil.copytree(ROOT / "example", folder)
        for file, content in files.items():
            path = folder / file.replace("_", ".")
            if content is None:
                path.unlink()
            else:
                path.write_text(content)
        command("git", "-C", folder, "init", "--quiet", "--initial-branch=main")
        self.commit(folder)
        return folder

    def commit(self, folder, **files):
        """Commits `files`, named as for `project`, and whatever else changed; gives the commit's first 7 digits."""
        for file, content in files.items():
            (folder / file.replace("_", ".")).write_text(content)
        git = ("git", "-C", folder, "-c", "user.name=e2e", "-c", "user.email=e2e@example.com")
        command(*git, "add", "--all")
        command(*git, "commit", "--quiet", "--message=a commit")
        return command(*git, "rev-parse", "HEAD").stdout[:7]

    def arguments(self, project, *further, subcommand="run", port=0):
        config = project / "archweld.toml"
        here = ("--config", config, "--state", self.state, "--port", port)
        return [str(argument) for argument in (ARCHWELD, subcommand, *here, *further)]

    def run_project(self, project, *further, port=0, env=None):
        """`archweld run` to its end."""
        # Started from elsewhere: only the arguments and the command's own place count.
        return command(*self.arguments(project, *further, port=port), check=False, cwd=ROOT, env=env)

    def publish(self, project, *further, env=None):
        """A run that succeeds: its summary and all its reports."""
        done = self.run_project(project, "--json", *further, env=env)
        reports = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return reports[-1], reports

    @contextlib.contextmanager
    def start(self, arguments):
        """A command in a process group of its own, with what it prints in a file; ended with Ctrl-C."""
        output = self.folder / "output"
        with output.open("wb") as file:
            process = subprocess.Popen(
                arguments,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield process, output
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
            process.wait(SETTLE_SECONDS_MAX)

    @contextlib.contextmanager
    def up(self, project):
        """The local cloud as a server, for as long as the block runs."""
        with self.serve(project) as (_, cloud):
            yield cloud

    @contextlib.contextmanager
    def serve(self, project):
        """The same, with its process."""
        with self.start(self.arguments(project, subcommand="up")) as (process, output):

            def banner():
                self.assertIsNone(process.poll(), output.read_text())
                text = output.read_text()
                return text if re.search(r"^\s*Ctrl-C ", text, re.MULTILINE) else None

            text = wait_until(banner, "archweld up prints its banner")
            fields = dict(line.split(None, 1) for line in text.splitlines() if " " in line.strip())
            state_machine = re.search(r"--state-machine-arn (\S+)", text).group(1)
            yield process, Cloud(fields["AWS"].split()[1], fields["registry"], state_machine)


class Cloud:
    """A local cloud, as the AWS CLI, boto3, Docker and skopeo see it."""

    def __init__(self, endpoint, registry, state_machine):
        self.endpoint = endpoint
        self.registry = registry
        self.state_machine = state_machine
        self.environment = {**os.environ, **CREDENTIALS, "AWS_ENDPOINT_URL": endpoint}

    def client(self, service):
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"max_attempts": 0}),
        )

    def aws(self, *arguments):
        """The AWS CLI's answer."""
        return json.loads(command("aws", *arguments, "--output", "json", env=self.environment).stdout)

    def execute(self, **input):
        """Starts an execution and describes it when it is over."""
        states = self.client("stepfunctions")
        arn = states.start_execution(stateMachineArn=self.state_machine, input=json.dumps(input))["executionArn"]

        def ended():
            execution = states.describe_execution(executionArn=arn)
            return execution if execution["status"] != "RUNNING" else None

        return wait_until(ended, f"{arn} ends")

    def tags(self, repository="hello"):
        """The digest that each tag points at."""
        images = self.client("ecr").describe_images(repositoryName=repository)["imageDetails"]
        return {tag: image["imageDigest"] for image in images for tag in image.get("imageTags", [])}

    def raw(self, image):
        """A manifest as the registry has it, by way of skopeo."""
        return command("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{image}").stdout

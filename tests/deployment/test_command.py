"""The archweld command against a stack in moto: an implementation of the APIs that is not ours, over HTTP.

moto runs no executions of JSONata: they stay as they were started, and have the history of another. It knows
nothing of quotas, of curated images and of IAM's simulation either, so that doctor calls these unknown.
"""

import contextlib
import json
import logging
import os
import subprocess
import tempfile
import time
import unittest
import urllib.request
from pathlib import Path
from unittest import mock

import boto3
from moto.codebuild.models import codebuild_backends
from moto.server import ThreadedMotoServer

from support import ACCOUNT, REGION, ROOT, STACK, deployed

ARCHWELD = os.environ.get("ARCHWELD", str(ROOT / "target/debug/archweld"))
CONFIG = '[[image]]\nname = "hello"\nplatforms = ["linux/amd64"]\ntags = ["{sha7}", "latest"]\n'
# Nothing of whoever runs the tests counts.
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "NO_PROXY": "127.0.0.1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_MAX_ATTEMPTS": "1",
}
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "hidden-secret-key", "AWS_REGION": REGION}


class Command(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cleanup = contextlib.ExitStack()
        cls.addClassCleanup(cls.cleanup.close)
        cls.stack = cls.cleanup.enter_context(deployed())
        # What moto does not know is a server error there, with all that led to it.
        for name in ["werkzeug", "moto.moto_server.werkzeug_app"]:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        cls.cleanup.callback(server.stop)
        cls.endpoint = "http://{}:{}".format(*server.get_host_and_port())
        cls.states = boto3.client("stepfunctions")
        cls.state_machine = cls.stack.physical["StateMachine"]

    def archweld(self, *arguments, status=0, environment=KEYS, stack=STACK):
        """What a command writes to the standard output and error; it exits with that status."""
        done = subprocess.run(
            [ARCHWELD, *arguments, "--stack", stack, "--endpoint-url", self.endpoint],
            env=ENVIRONMENT | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        self.assertNotIn("hidden-secret-key", done.stdout + done.stderr)
        return done.stdout, done.stderr

    def findings(self, status, config=CONFIG):
        """What doctor finds, by check."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "archweld.toml"
            path.write_text(config)
            said, _ = self.archweld("doctor", "--json", "--config", str(path), status=status)
        found = [json.loads(line) for line in said.splitlines()]
        return {each["check"]: each for each in found}

    def test_a_run_is_started_shown_and_stopped(self):
        start = ["start", "--name", "r1", "--ref", "main", "--platform", "linux/arm64", "--no-wait"]
        _, said = self.archweld(*start)
        self.assertIn("run r1 started\n", said)
        self.assertIn(f"archweld status r1 --stack {STACK} --endpoint-url {self.endpoint}", said)
        execution = self.state_machine.replace(":stateMachine:", ":execution:") + ":r1"
        started = self.states.describe_execution(executionArn=execution)
        self.assertEqual(
            json.loads(started["input"]),
            {"ref": "main", "platforms": ["linux/arm64"], "trigger": {"kind": "cli"}},
        )
        _, said = self.archweld(*start[:-2], "linux/amd64", "--no-wait", status=1)
        self.assertIn("there was a run r1", said)

        said, _ = self.archweld("status")
        self.assertRegex(said, r"(?m)^r1 .* cli +main +linux/arm64 +RUNNING ")
        said, _ = self.archweld("status", "r1")
        self.assertIn(f"execution    {execution}\n", said)
        said, _ = self.archweld("stop", "r1")
        self.assertIn("run r1 is stopped", said)
        self.assertEqual(self.states.describe_execution(executionArn=execution)["status"], "ABORTED")
        _, said = self.archweld("status", "r1", "--follow", status=1)
        self.assertIn("archweld: ABORTED", said)
        _, said = self.archweld("logs", "r1", status=2)
        self.assertIn("run r1 has no build of any platform", said)

    def test_builds_and_their_logs_are_found(self):
        codebuild, logs = boto3.client("codebuild"), boto3.client("logs")
        codebuild.create_project(
            name=f"{STACK}-manifest",
            source={"type": "GITHUB", "location": "https://github.com/archweld/hello.git"},
            artifacts={"type": "NO_ARTIFACTS"},
            environment={
                "type": "LINUX_CONTAINER",
                "image": "aws/codebuild/amazonlinux-x86_64-standard:5.0",
                "computeType": "BUILD_GENERAL1_SMALL",
            },
            serviceRole=f"arn:aws:iam::{ACCOUNT}:role/{self.stack.physical['BuildRole']}",
        )
        build = codebuild.start_build(projectName=f"{STACK}-manifest")["build"]["id"]
        # moto's builds write nothing.
        group, stream = f"/aws/codebuild/{STACK}-manifest", build.split(":")[1]
        [known] = codebuild_backends[ACCOUNT][REGION].build_metadata_history[f"{STACK}-manifest"]
        known["logs"] |= {"groupName": group, "streamName": stream}
        output = json.dumps({"StatusCode": 200, "Payload": {"build_id": build}})
        history = [{"type": "TaskSubmitted", "id": 1, "taskSubmittedEventDetails": {"output": output}}]
        self.archweld("start", "--name", "built", "--no-wait")
        with mock.patch("moto.stepfunctions.models.Execution.get_execution_history", lambda *_: history):
            said, _ = self.archweld("status", "built")
            self.assertRegex(said, rf"manifest +SUCCEEDED .*\n +build {build}\n")
            self.assertIn(f"log   {group} {stream}\n", said)
            # A log that is not there yet has no lines.
            self.assertEqual(self.archweld("logs", "built"), ("", ""))
            with contextlib.suppress(logs.exceptions.ResourceAlreadyExistsException):
                logs.create_log_group(logGroupName=group)
            logs.create_log_stream(logGroupName=group, logStreamName=stream)
            now = int(time.time() * 1000)
            events = [{"timestamp": now + count, "message": f"line {count}\n"} for count in range(3)]
            logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)
            said, _ = self.archweld("logs", "built")
            self.assertEqual(said, "".join(f"manifest       line {count}\n" for count in range(3)))
            said, _ = self.archweld("logs", "built", "--platform", "manifest", "--tail", "2")
            self.assertEqual(said, "line 1\nline 2\n")

    def test_what_is_not_there_is_named(self):
        _, said = self.archweld("status", "nobody", status=2)
        self.assertIn("no run nobody: `archweld status` lists the last ones", said)
        _, said = self.archweld("status", stack="other", status=2)
        self.assertIn(f"no stack other in {REGION}", said)
        _, said = self.archweld("status", "--region", "eu-west-1", status=2)
        self.assertIn(f"no stack {STACK} in eu-west-1", said)

    def test_credentials_and_a_region_are_needed(self):
        _, said = self.archweld("status", environment={"AWS_REGION": REGION}, status=2)
        self.assertIn("no credentials for AWS: set AWS_PROFILE or --profile", said)
        without_region = {name: value for name, value in KEYS.items() if name != "AWS_REGION"}
        _, said = self.archweld("status", environment=without_region, status=2)
        self.assertIn("no region: name it with --region", said)
        said, _ = self.archweld("doctor", environment={"AWS_REGION": REGION}, status=1)
        self.assertRegex(said, r"problem +credentials +there are none: .*\n +mend: set AWS_PROFILE")
        said, _ = self.archweld("doctor", environment=without_region, status=1)
        self.assertRegex(said, r"problem +region +no region: .*\n +mend: ")

    def test_a_profile_gives_credentials_and_region(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "config"
            keys = "aws_access_key_id = test\naws_secret_access_key = hidden-secret-key\n"
            path.write_text(f"[profile ci]\nregion = {REGION}\n{keys}")
            said, _ = self.archweld("status", "--profile", "ci", environment={"AWS_CONFIG_FILE": str(path)})
            self.assertTrue(said)

    def test_who_may_not_is_told_so(self):
        iam = boto3.client("iam")
        iam.create_user(UserName="nobody")
        key = iam.create_access_key(UserName="nobody")["AccessKey"]
        environment = KEYS | {
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }

        def check_permissions(after):
            url, plain = f"{self.endpoint}/moto-api/reset-auth", {"Content-Type": "text/plain"}
            urllib.request.urlopen(urllib.request.Request(url, after.encode(), plain)).close()

        check_permissions("0")
        try:
            _, said = self.archweld("status", environment=environment, status=1)
        finally:
            check_permissions("inf")
        self.assertIn("cloudformation:DescribeStacks failed: AccessDenied", said)

    def test_doctor_examines_a_stack(self):
        found = self.findings(1)
        verdicts = {check: each["verdict"] for check, each in found.items()}
        for check in ["credentials", "stack", "repository", "dead letters"]:
            self.assertEqual(verdicts[check], "ok", found[check])
        # What moto does not know, nobody made wrong.
        for check in ["permissions", "build quota", "function quota", "build image", "configuration"]:
            self.assertEqual(verdicts[check], "unknown", found[check])
        # moto has neither the secret nor the function's URL.
        for check in ["webhook secret", "webhook URL"]:
            self.assertEqual(verdicts[check], "problem", found[check])
            self.assertTrue(found[check]["mend"])

    def test_doctor_finds_dead_letters(self):
        sqs, queue = boto3.client("sqs"), self.stack.physical["DeadLetters"]
        sqs.send_message(QueueUrl=queue, MessageBody="an event")
        self.addCleanup(sqs.purge_queue, QueueUrl=queue)
        found = self.findings(1)["dead letters"]
        self.assertEqual((found["verdict"], found["found"]), ("problem", "1 wait"))
        self.assertIn(queue, found["mend"])

    def test_doctor_finds_tags_that_cannot_move(self):
        ecr = boto3.client("ecr")

        def let(mutability):
            ecr.put_image_tag_mutability(repositoryName="hello", imageTagMutability=mutability)

        let("IMMUTABLE")
        self.addCleanup(let, "MUTABLE")
        found = self.findings(1)["repository"]
        self.assertEqual(found["verdict"], "problem")
        self.assertIn("must move: latest", found["found"])
        other = self.findings(1, CONFIG.replace('"hello"', '"other"'))["repository"]
        self.assertIn("other of archweld.toml is not there", other["found"])

    def test_doctor_finds_no_stack(self):
        said, _ = self.archweld("doctor", stack="other", status=1)
        self.assertRegex(said, rf"problem +stack +no stack other in {REGION}")

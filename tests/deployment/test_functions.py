"""The functions' binaries against moto's server: implementations of AWS's APIs that nobody here wrote.

moto is no truth: it ignores a build's environment, executes no state machine unless asked, and its ECR answers no
download of a layer. What it does answer, the functions have to understand.
"""

import contextlib
import hashlib
import hmac
import json
import logging
import os
import subprocess
import tempfile
import threading
import unittest
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import requests
from moto.server import ThreadedMotoServer

from support import ACCOUNT, DEFINITION, REGION, ROOT, arn

# `make build` leaves what is deployed, `make test` what is tested.
FUNCTIONS = Path(os.environ.get("FUNCTIONS", ROOT / "target/debug"))
SECONDS_MAX = 30
SECRET = "a secret of forty characters, or nearly"
SOURCE = "https://github.com/team/hello.git"
COMMIT = "8f5cf0b7a9b2d1c3e4f5a6b7c8d9e0f1a2b3c4d5"
CONFIG = """[[image]]
name = "hello"
platforms = ["linux/amd64", "linux/arm64"]
tags = ["{sha7}", "latest"]
publisher = "lambda"
"""
PROJECTS = {f"PROJECT_{suffix.upper()}": f"archweld-{suffix}" for suffix in ["amd64", "arm64", "manifest"]}

logging.getLogger("werkzeug").setLevel(logging.ERROR)


class Failed(Exception):
    """What a function reports in place of a result."""

    def __init__(self, report):
        super().__init__(report)
        self.name, self.message = report["errorType"], report["errorMessage"]


@contextlib.contextmanager
def runtime_api(payload):
    """Lambda's Runtime API for one invocation; gives its address and a way to wait for the outcome.

    https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
    """
    invocations, outcome, ended = [json.dumps(payload).encode()], {}, threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if not invocations:
                # Nothing more is to be done: the function waits, and is killed.
                ended.wait(SECONDS_MAX)
                return
            self.send_response(200)
            self.send_header("Lambda-Runtime-Aws-Request-Id", str(uuid.uuid4()))
            self.send_header("Lambda-Runtime-Deadline-Ms", "9999999999999")
            self.send_header("Lambda-Runtime-Invoked-Function-Arn", arn("lambda", "function:f"))
            self.end_headers()
            self.wfile.write(invocations.pop())

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or "null")
            outcome["result" if self.path.endswith("/response") else "error"] = body
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()
            ended.set()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def wait():
        if not ended.wait(SECONDS_MAX):
            raise AssertionError(f"no answer within {SECONDS_MAX} s")
        if "error" in outcome:
            raise Failed(outcome["error"])
        return outcome["result"]

    try:
        yield f"127.0.0.1:{server.server_port}", wait
    finally:
        server.shutdown()
        server.server_close()


class Functions(unittest.TestCase):
    def setUp(self):
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        self.addCleanup(server.stop)
        host, port = server.get_host_and_port()
        self.endpoint = f"http://{host}:{port}"
        # moto keeps what it knows for as long as the process lives.
        requests.post(f"{self.endpoint}/moto-api/reset", timeout=SECONDS_MAX).raise_for_status()
        folder = self.enterContext(tempfile.TemporaryDirectory())
        self.config = Path(folder, "archweld.toml")
        self.config.write_text(CONFIG)
        role = f"arn:aws:iam::{ACCOUNT}:role/role"
        for project in PROJECTS.values():
            self.client("codebuild").create_project(
                name=project,
                source={"type": "GITHUB", "location": SOURCE},
                artifacts={"type": "NO_ARTIFACTS"},
                environment={"type": "LINUX_CONTAINER", "image": "x", "computeType": "BUILD_GENERAL1_SMALL"},
                serviceRole=f"arn:aws:iam::{ACCOUNT}:role/service-role/build",
            )
        self.client("ecr").create_repository(repositoryName="hello")
        made = self.client("stepfunctions").create_state_machine(
            name="archweld-multi-arch-build", definition=DEFINITION.read_text(), roleArn=role
        )
        self.machine = made["stateMachineArn"]
        self.secret = self.client("secretsmanager").create_secret(Name="webhook", SecretString=SECRET)["ARN"]

    def client(self, service):
        return boto3.client(service, endpoint_url=self.endpoint, region_name=REGION)

    def invoke(self, function, payload, **environment):
        """Runs the binary as Lambda does, for one invocation."""
        with runtime_api(payload) as (address, wait), tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                [FUNCTIONS / function],
                stdout=log,
                stderr=log,
                env={
                    "AWS_LAMBDA_RUNTIME_API": address,
                    "AWS_LAMBDA_FUNCTION_NAME": function,
                    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
                    "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
                    "AWS_LAMBDA_LOG_STREAM_NAME": "s",
                    "AWS_LAMBDA_LOG_GROUP_NAME": "g",
                    "AWS_ACCESS_KEY_ID": "test",
                    "AWS_SECRET_ACCESS_KEY": "test",
                    "AWS_REGION": REGION,
                    "AWS_ENDPOINT_URL": self.endpoint,
                    "ARCHWELD_CONFIG": str(self.config),
                    "ARCHWELD_STACK": "archweld",
                    "STATE_MACHINE_ARN": self.machine,
                    "SOURCE_LOCATION": SOURCE,
                    "IMAGE_REGISTRY": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com",
                    "WEBHOOK_SECRET": self.secret,
                    **PROJECTS,
                    **environment,
                },
            )
            try:
                return wait()
            except AssertionError as error:
                log.seek(0)
                raise AssertionError(f"{error}: {log.read().decode()}") from None
            finally:
                process.kill()
                process.wait()

    def plan(self, **given):
        execution = {
            "arn": arn("states", "execution:archweld-multi-arch-build:r1"),
            "name": "r1",
            "start_time": "2026-11-25T10:00:00.000Z",
        }
        return self.invoke("plan-build", {"input": given, "execution": execution})

    def deliver(self, body, signed_with=SECRET):
        text = json.dumps(body)
        signature = hmac.new(signed_with.encode(), text.encode(), hashlib.sha256).hexdigest()
        return self.invoke(
            "trigger-run",
            {
                "version": "2.0",
                "rawPath": "/",
                "rawQueryString": "",
                "headers": {
                    "content-type": "application/json",
                    "x-github-event": "push",
                    "x-github-delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
                    "x-hub-signature-256": f"sha256={signature}",
                },
                "requestContext": {
                    "http": {"method": "POST", "path": "/", "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1"},
                },
                "body": text,
                "isBase64Encoded": False,
            },
        )

    def push(self):
        commit = {
            "id": COMMIT,
            "message": "a change",
            "timestamp": "2026-11-25T09:00:00Z",
            "added": [],
            "modified": ["Dockerfile"],
            "removed": [],
        }
        return {
            "ref": "refs/heads/main",
            "before": "1" * 40,
            "after": COMMIT,
            "created": False,
            "deleted": False,
            "forced": False,
            "head_commit": commit,
            "commits": [commit],
            "repository": {"full_name": "team/hello", "clone_url": SOURCE, "pushed_at": 1795597200},
            "pusher": {"name": "kim"},
        }

    def executions(self):
        listed = self.client("stepfunctions").list_executions(stateMachineArn=self.machine)
        return listed["executions"]

    def test_a_push_starts_one_execution_however_often_it_is_delivered(self):
        answers = [self.deliver(self.push()) for _ in range(2)]
        self.assertEqual([answer["statusCode"] for answer in answers], [200, 200], answers)
        [execution] = self.executions()
        self.assertTrue(execution["name"].startswith("hello-main-8f5cf0b-"), execution["name"])
        described = self.client("stepfunctions").describe_execution(executionArn=execution["executionArn"])
        given = json.loads(described["input"])
        self.assertEqual((given["image"], given["commit"]), ("hello", COMMIT))

    def test_a_push_with_another_signature_starts_nothing(self):
        answer = self.deliver(self.push(), signed_with="another secret of many characters")
        self.assertEqual(answer["statusCode"], 401)
        self.assertEqual(self.executions(), [])

    def test_a_newer_push_stops_the_older_run(self):
        self.deliver(self.push())
        newer = self.push()
        newer["after"] = newer["head_commit"]["id"] = "9" * 40
        newer["before"] = COMMIT
        newer["repository"]["pushed_at"] += 60
        answer = self.deliver(newer)
        self.assertEqual(answer["statusCode"], 200)
        states = {each["name"][11:18]: each["status"] for each in self.executions()}
        self.assertEqual(states, {"8f5cf0b": "ABORTED", "9999999": "RUNNING"})

    def test_what_is_planned_is_built(self):
        plan = self.plan(commit=COMMIT)
        self.assertEqual([each["platform"] for each in plan["platforms"]], ["linux/amd64", "linux/arm64"])
        codebuild = self.client("codebuild")
        for planned in plan["platforms"]:
            request = {"token": "AAAA" * 100, "retry_count": 0, "build": planned["build"]}
            started = self.invoke("start-build", request)["build_id"]
            project = planned["build"]["project"]
            self.assertEqual(codebuild.list_builds_for_project(projectName=project)["ids"], [started])
            [build] = codebuild.batch_get_builds(ids=[started])["builds"]
            self.assertEqual(build["projectName"], project)

    def test_a_project_that_is_not_there_is_refused_by_name(self):
        build = self.plan()["platforms"][0]["build"] | {"project": "nowhere"}
        with self.assertRaises(Failed) as failed:
            self.invoke("start-build", {"token": "AAAA" * 100, "retry_count": 0, "build": build})
        self.assertEqual(failed.exception.name, "Build.Rejected")
        self.assertIn("linux/amd64", failed.exception.message)

    def test_reconcile_finds_no_build_of_an_execution_that_left_none(self):
        for project in PROJECTS.values():
            self.client("codebuild").start_build(projectName=project)
        order = {
            "execution": arn("states", "execution:archweld-multi-arch-build:r1"),
            "start_time": "2026-11-25T10:00:00.000Z",
        }
        self.assertEqual(self.invoke("reconcile", order), {"completed": [], "stopped": [], "tags": []})

    def test_a_build_that_nobody_waits_for_is_none_of_build_events(self):
        started = self.client("codebuild").start_build(projectName="archweld-amd64")["build"]
        event = {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": "CodeBuild Build State Change",
            "source": "aws.codebuild",
            "account": ACCOUNT,
            "time": "2026-11-25T10:00:00Z",
            "region": REGION,
            "resources": [started["arn"]],
            "detail": {
                "build-status": "SUCCEEDED",
                "project-name": "archweld-amd64",
                "build-id": started["arn"],
                "additional-information": {"environment": {"environment-variables": []}},
            },
        }
        # It asks moto for the build, whose environment moto did not keep: no token, nothing to tell.
        self.invoke("build-events", event)

    def test_publish_reads_what_was_pushed_and_trusts_no_digest_that_is_not_the_bytes(self):
        plan, ecr, images = self.plan(commit=COMMIT), self.client("ecr"), []
        media_type = "application/vnd.oci.image.manifest.v1+json"
        for planned in plan["platforms"]:
            blob = {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 2}
            manifest = {
                "schemaVersion": 2,
                "mediaType": media_type,
                "config": blob | {"digest": "sha256:" + hashlib.sha256(planned["platform"].encode()).hexdigest()},
                "layers": [],
            }
            pushed = ecr.put_image(
                repositoryName="hello",
                imageManifest=json.dumps(manifest),
                imageManifestMediaType=media_type,
                imageTag=planned["build"]["target"].replace("/", "-"),
            )
            images.append(
                {
                    "target": planned["platform"],
                    "digest": pushed["image"]["imageId"]["imageDigest"],
                    "media_type": media_type,
                    "manifest_bytes": len(json.dumps(manifest)),
                    "size_bytes": 1,
                    "build_id": "archweld:0",
                    "log": None,
                    "timing": {},
                }
            )
        before = ecr.list_images(repositoryName="hello")["imageIds"]
        with self.assertRaises(Failed) as failed:
            self.invoke("publish", {"plan": plan, "images": images, "index": None})
        # moto's digest of a manifest is not the SHA-256 of its bytes. ECR's is.
        self.assertEqual(failed.exception.name, "Service.Rejected")
        self.assertRegex(failed.exception.message, "the manifest has the digest sha256:[0-9a-f]{64}, not sha256:")
        self.assertEqual(ecr.list_images(repositoryName="hello")["imageIds"], before)


if __name__ == "__main__":
    unittest.main()

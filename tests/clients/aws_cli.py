"""The AWS CLI against the local cloud: what a person looks at by hand, and how errors are told."""

import json
import os
import subprocess
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support import (
    ENDS,
    GOES_ON,
    PLAN_BUILD,
    PROJECTS,
    SECONDS_MAX,
    STATE_MACHINE,
    execution,
    log_in,
    plan_request,
    wait_until,
)

MACHINE = ("--state-machine-arn", STATE_MACHINE)
# What the CLI exits with when a service refuses; the first releases had the second.
# https://docs.aws.amazon.com/cli/latest/userguide/cli-usage-returncodes.html
REFUSED = (254, 255)


def run(*arguments):
    return subprocess.run(
        ["aws", *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=SECONDS_MAX,
    )


def text(*arguments):
    done = run(*arguments)
    if done.returncode != 0:
        raise AssertionError(f"{arguments} exited with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def aws(*arguments):
    """The answer to a command that succeeds."""
    return json.loads(text(*arguments))


def start(name, input):
    arguments = ("--name", name, "--input", input)
    return aws("stepfunctions", "start-execution", *MACHINE, *arguments)["executionArn"]


def describe(arn):
    return aws("stepfunctions", "describe-execution", "--execution-arn", arn)


class Executions(unittest.TestCase):
    def test_an_execution_is_started_and_followed_to_its_end(self):
        arn = start("followed", ENDS)

        def over():
            described = describe(arn)
            return described if described["status"] != "RUNNING" else None

        described = wait_until(over, "the execution ends")
        self.assertEqual(described["status"], "SUCCEEDED", described)
        self.assertEqual(described["input"], ENDS)
        self.assertEqual(json.loads(described["output"])["image"], "hello")

    def test_an_execution_is_stopped(self):
        arn = start("stopped", GOES_ON)
        running = aws("stepfunctions", "list-executions", *MACHINE, "--status-filter", "RUNNING")
        self.assertEqual([each["executionArn"] for each in running["executions"]], [arn])
        stopped = aws("stepfunctions", "stop-execution", "--execution-arn", arn, "--cause", "by hand")
        self.assertIn("stopDate", stopped)
        described = describe(arn)
        self.assertEqual((described["status"], described["cause"]), ("ABORTED", "by hand"))

    def test_a_stopped_execution_is_redriven(self):
        arn = start("redriven", GOES_ON)
        of_execution = ("--execution-arn", arn)
        aws("stepfunctions", "stop-execution", *of_execution)
        redriven = aws("stepfunctions", "redrive-execution", *of_execution)
        described = describe(arn)
        self.assertEqual((described["status"], described["redriveDate"]), ("RUNNING", redriven["redriveDate"]))
        aws("stepfunctions", "stop-execution", *of_execution)

    def test_executions_are_listed_in_pages(self):
        listed = ("stepfunctions", "list-executions", *MACHINE, "--status-filter", "SUCCEEDED")
        whole = aws(*listed)["executions"]
        self.assertEqual(whole[-1]["name"], "published")
        self.assertEqual(aws(*listed, "--page-size", "1")["executions"], whole)

    def test_a_history_is_read_in_both_directions(self):
        history = ("stepfunctions", "get-execution-history", "--execution-arn", execution("published"))
        events = aws(*history)["events"]
        self.assertEqual(events[0]["type"], "ExecutionStarted")
        self.assertEqual(events[-1]["type"], "ExecutionSucceeded")
        self.assertEqual(aws(*history, "--reverse-order", "--page-size", "10")["events"], events[::-1])

    def test_the_state_machine_is_listed(self):
        (machine,) = aws("stepfunctions", "list-state-machines")["stateMachines"]
        self.assertEqual(machine["stateMachineArn"], STATE_MACHINE)


class Builds(unittest.TestCase):
    def test_projects_builds_and_logs_are_read(self):
        self.assertEqual(aws("codebuild", "list-projects")["projects"], PROJECTS)
        projects = aws("codebuild", "batch-get-projects", "--names", *PROJECTS)["projects"]
        self.assertEqual([project["name"] for project in projects], PROJECTS)

        listed = ("codebuild", "list-builds-for-project", "--project-name", "archweld-amd64")
        first = aws(*listed, "--sort-order", "ASCENDING")["ids"][0]
        self.assertIn(first, aws("codebuild", "list-builds")["ids"])
        (build,) = aws("codebuild", "batch-get-builds", "--ids", first)["builds"]
        self.assertEqual(build["buildStatus"], "SUCCEEDED")
        stream = ("--log-group-name", build["logs"]["groupName"], "--log-stream-name", build["logs"]["streamName"])
        events = aws("logs", "get-log-events", *stream)["events"]
        self.assertEqual([event["message"] for event in events], ["building linux/amd64\n"])


class Images(unittest.TestCase):
    def test_images_and_repositories_are_read(self):
        (repository,) = aws("ecr", "describe-repositories")["repositories"]
        self.assertEqual(repository["repositoryName"], "hello")
        named = ("--repository-name", "hello")
        (index,) = aws("ecr", "describe-images", *named, "--image-ids", "imageTag=published")["imageDetails"]
        self.assertEqual(index["imageManifestMediaType"], "application/vnd.oci.image.index.v1+json")
        listed = aws("ecr", "list-images", *named, "--page-size", "1")["imageIds"]
        self.assertIn({"imageDigest": index["imageDigest"], "imageTag": "published"}, listed)

    def test_the_login_password_logs_in(self):
        password = text("ecr", "get-login-password").strip()
        self.assertEqual(log_in("AWS", password), 200)
        self.assertEqual(log_in("AWS", f"{password}x"), 401)


class Functions(unittest.TestCase):
    def invoke(self, request):
        with tempfile.TemporaryDirectory() as folder:
            payload, answer = Path(folder, "payload"), Path(folder, "answer")
            payload.write_text(request)
            # As `fileb://`, every release of the CLI takes the payload as it is.
            arguments = ("--function-name", PLAN_BUILD, "--payload", f"fileb://{payload}", str(answer))
            return aws("lambda", "invoke", *arguments), json.loads(answer.read_text())

    def test_a_function_is_invoked_and_its_error_told_apart(self):
        invoked, plan = self.invoke(plan_request())
        self.assertEqual(invoked, {"StatusCode": 200, "ExecutedVersion": "$LATEST"})
        self.assertEqual(plan["run"], "by-hand")
        invoked, error = self.invoke(plan_request(platfroms=[]))
        self.assertEqual(invoked["FunctionError"], "Unhandled")
        self.assertEqual(error["errorType"], "Plan.Invalid")


class Events(unittest.TestCase):
    def test_an_event_is_put(self):
        entry = {"Source": "clients.test", "DetailType": "Test", "Detail": json.dumps({"client": "cli"})}
        put = aws("events", "put-events", "--entries", json.dumps([entry]))
        self.assertEqual(put["FailedEntryCount"], 0)
        self.assertIn("EventId", put["Entries"][0])


class Refusals(unittest.TestCase):
    def test_wrong_names_and_inputs_are_told_by_name(self):
        absent = ("--execution-arn", execution("absent"))
        start_execution = ("stepfunctions", "start-execution")
        cases = [
            ("ExecutionDoesNotExist", "stepfunctions", "describe-execution", *absent),
            ("StateMachineDoesNotExist", *start_execution, "--state-machine-arn", f"{STATE_MACHINE}x"),
            ("InvalidArn", *start_execution, "--state-machine-arn", "machine"),
            ("InvalidName", *start_execution, *MACHINE, "--name", "a name"),
            ("InvalidExecutionInput", *start_execution, *MACHINE, "--input", "{"),
            ("ExecutionNotRedrivable", "stepfunctions", "redrive-execution", "--execution-arn", execution("published")),
            ("ExecutionAlreadyExists", *start_execution, *MACHINE, "--name", "published"),
            ("InvalidToken", "stepfunctions", "send-task-success", "--task-token", "absent", "--task-output", "{}"),
            ("ResourceNotFoundException", "codebuild", "start-build", "--project-name", "absent"),
            ("InvalidInputException", "codebuild", "list-builds", "--next-token", "absent"),
            ("RepositoryNotFoundException", "ecr", "describe-images", "--repository-name", "absent"),
            (
                "ImageNotFoundException",
                *("ecr", "describe-images", "--repository-name", "hello", "--image-ids", "imageTag=absent"),
            ),
            ("ResourceNotFoundException", "lambda", "invoke", "--function-name", "absent", "/dev/null"),
            ("UnknownOperationException", "stepfunctions", "list-activities"),
        ]
        # Most of a command's time goes into loading the CLI.
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            answers = list(pool.map(lambda case: run(*case[1:]), cases))
        for (error, *arguments), done in zip(cases, answers, strict=True):
            with self.subTest(error=error, arguments=arguments):
                self.assertIn(done.returncode, REFUSED, done.stdout + done.stderr)
                self.assertIn(f"({error})", done.stderr)


if __name__ == "__main__":
    unittest.main()

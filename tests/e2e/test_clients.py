"""`archweld up` as the AWS CLI, boto3 and Docker see it."""

import json
import subprocess
import unittest

from botocore.exceptions import ClientError

from support import PLATFORMS, EndToEnd, command, wait_until


class Clients(EndToEnd):
    def test_a_console_start_is_followed_from_the_command_line(self):
        project = self.project()
        with self.up(project) as cloud:
            start = ("stepfunctions", "start-execution", "--state-machine-arn", cloud.state_machine)
            arn = cloud.aws(*start, "--name", "by-hand", "--input", "{}")["executionArn"]
            self.assertTrue(arn.endswith(":by-hand"))
            describe = ("stepfunctions", "describe-execution", "--execution-arn", arn)
            wait_until(lambda: cloud.aws(*describe)["status"] != "RUNNING", "the execution ends")
            execution = cloud.aws(*describe)
            self.assertEqual(execution["status"], "SUCCEEDED", execution)
            output = json.loads(execution["output"])
            self.assertEqual([image["platform"] for image in output["platforms"]], list(PLATFORMS))

            listed = cloud.aws("stepfunctions", "list-executions", "--state-machine-arn", cloud.state_machine)
            self.assertEqual([each["name"] for each in listed["executions"]], ["by-hand"])
            events = cloud.aws("stepfunctions", "get-execution-history", "--execution-arn", arn)["events"]
            self.assertEqual(events[0]["type"], "ExecutionStarted")
            self.assertEqual(events[-1]["type"], "ExecutionSucceeded")
            self.assertEqual([event["id"] for event in events], list(range(1, len(events) + 1)))

            builds = cloud.aws("codebuild", "batch-get-builds", "--ids", *cloud.aws("codebuild", "list-builds")["ids"])
            self.assertEqual({build["buildStatus"] for build in builds["builds"]}, {"SUCCEEDED"})
            self.assertEqual(len(builds["builds"]), len(PLATFORMS) + 1)
            images = cloud.aws("ecr", "describe-images", "--repository-name", "hello")["imageDetails"]
            (index,) = [image for image in images if "latest" in image.get("imageTags", [])]
            self.assertEqual(index["imageDigest"], output["digest"])

    def test_docker_logs_in_with_the_password_that_ecr_gives_and_with_no_other(self):
        with self.up(self.project()) as cloud:
            password = command("aws", "ecr", "get-login-password", env=cloud.environment).stdout
            config = self.folder / "docker"
            login = ("docker", "--config", config, "login", "--username", "AWS", "--password-stdin", cloud.registry)
            for given, status in [(password, 0), ("wrong", 1)]:
                done = subprocess.run(login, input=given, capture_output=True, text=True)
                self.assertEqual(done.returncode, status, done.stderr)

    def test_an_execution_is_stopped_and_its_builds_with_it(self):
        dockerfile = "ARG ARCH\nFROM ${ARCH}busybox:stable\nRUN sleep 300\n"
        with self.up(self.project(Dockerfile=dockerfile)) as cloud:
            states, codebuild = cloud.client("stepfunctions"), cloud.client("codebuild")
            arn = states.start_execution(stateMachineArn=cloud.state_machine, input="{}")["executionArn"]

            def builds():
                ids = codebuild.list_builds()["ids"]
                return codebuild.batch_get_builds(ids=ids)["builds"] if ids else []

            wait_until(
                lambda: [build["currentPhase"] for build in builds()] == ["BUILD"] * len(PLATFORMS),
                "both builds are in their build phase",
            )
            states.stop_execution(executionArn=arn, error="Stopped", cause="by hand")
            execution = states.describe_execution(executionArn=arn)
            self.assertEqual((execution["status"], execution["cause"]), ("ABORTED", "by hand"))
            wait_until(
                lambda: [build["buildStatus"] for build in builds()] == ["STOPPED"] * len(PLATFORMS),
                "both builds are stopped",
            )

    def test_an_input_with_an_unknown_field_fails_and_names_it(self):
        with self.up(self.project()) as cloud:
            execution = cloud.execute(imagee="hello")
            self.assertEqual(execution["status"], "FAILED")
            self.assertEqual(execution["error"], "Plan.Invalid")
            self.assertIn("imagee", execution["cause"])
            self.assertEqual(cloud.client("codebuild").list_builds()["ids"], [])

    def test_wrong_names_get_the_typed_errors_of_aws(self):
        with self.up(self.project()) as cloud:
            states, codebuild, ecr = (cloud.client(name) for name in ("stepfunctions", "codebuild", "ecr"))
            machine = cloud.state_machine
            absent = machine.replace(":stateMachine:", ":execution:") + ":absent"
            for call, error in [
                (
                    lambda: states.start_execution(stateMachineArn=f"{machine}x"),
                    states.exceptions.StateMachineDoesNotExist,
                ),
                (lambda: states.start_execution(stateMachineArn="machine"), states.exceptions.InvalidArn),
                (
                    lambda: states.start_execution(stateMachineArn=machine, input="{"),
                    states.exceptions.InvalidExecutionInput,
                ),
                (lambda: states.describe_execution(executionArn=absent), states.exceptions.ExecutionDoesNotExist),
                (lambda: states.stop_execution(executionArn=absent), states.exceptions.ExecutionDoesNotExist),
                (lambda: states.send_task_success(taskToken="absent", output="{}"), states.exceptions.InvalidToken),
                (lambda: codebuild.start_build(projectName="absent"), codebuild.exceptions.ResourceNotFoundException),
                (lambda: ecr.describe_images(repositoryName="absent"), ecr.exceptions.RepositoryNotFoundException),
                (
                    lambda: ecr.describe_images(repositoryName="hello", imageIds=[{"imageTag": "absent"}]),
                    ecr.exceptions.ImageNotFoundException,
                ),
            ]:
                with self.subTest(error=error.__name__), self.assertRaises(error):
                    call()
            with self.assertRaises(ClientError) as raised:
                states.list_activities()
            self.assertEqual(raised.exception.response["Error"]["Code"], "UnknownOperationException")


if __name__ == "__main__":
    unittest.main()

"""boto3 against the local cloud: answers with all that it models, and errors of the classes that it models."""

import json
import unittest

import boto3
from botocore.exceptions import ClientError

from support import (
    ENDS,
    GOES_ON,
    PLAN_BUILD,
    PLATFORMS,
    PROJECTS,
    STATE_MACHINE,
    execution,
    log_in,
    plan_request,
    registry_status,
    wait_until,
)

codebuild = boto3.client("codebuild")
ecr = boto3.client("ecr")
events = boto3.client("events")
functions = boto3.client("lambda")
logs = boto3.client("logs")
states = boto3.client("stepfunctions")


def assert_complete(shape, value, path):
    """Asserts that an answer has every member that the service's model requires."""
    if shape.type_name == "structure":
        missing = set(shape.required_members) - set(value)
        assert not missing, f"{path} has no {missing}"
        for name in value.keys() & shape.members.keys():
            assert_complete(shape.members[name], value[name], f"{path}.{name}")
    elif shape.type_name == "list":
        for position, each in enumerate(value):
            assert_complete(shape.member, each, f"{path}[{position}]")


def check_answer(http_response, parsed, model, **_):
    if http_response.status_code < 300 and model.output_shape:
        assert_complete(model.output_shape, parsed, model.name)


for client in (codebuild, ecr, events, functions, logs, states):
    client.meta.events.register("after-call", check_answer)


def start(name, input):
    return states.start_execution(stateMachineArn=STATE_MACHINE, name=name, input=input)["executionArn"]


def ended(arn):
    def over():
        described = states.describe_execution(executionArn=arn)
        return described if described["status"] != "RUNNING" else None

    return wait_until(over, f"{arn} ends")


def builds_of(run):
    """The builds of a run, by project."""
    builds = codebuild.batch_get_builds(ids=codebuild.list_builds()["ids"])["builds"]
    return {build["projectName"]: build for build in builds if variables(build)["ARCHWELD_RUN"] == run}


def variables(build):
    return {each["name"]: each["value"] for each in build["environment"]["environmentVariables"]}


class Executions(unittest.TestCase):
    def test_an_execution_is_started_and_described(self):
        arn = start("described", ENDS)
        self.assertEqual(arn, execution("described"))
        described = ended(arn)
        self.assertEqual(described["status"], "SUCCEEDED", described)
        self.assertEqual(described["stateMachineArn"], STATE_MACHINE)
        self.assertEqual(described["name"], "described")
        self.assertEqual(described["input"], ENDS)
        output = json.loads(described["output"])
        self.assertEqual([image["platform"] for image in output["platforms"]], PLATFORMS[:1])
        self.assertLessEqual(described["startDate"], described["stopDate"])

        by_metadata = states.describe_execution(executionArn=arn, includedData="METADATA_ONLY")
        self.assertEqual(by_metadata["inputDetails"], {"included": False})
        self.assertNotIn("input", by_metadata)

    def test_an_execution_without_a_name_gets_one(self):
        arn = states.start_execution(stateMachineArn=STATE_MACHINE, input=ENDS)["executionArn"]
        self.assertRegex(arn, r":[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
        self.assertEqual(ended(arn)["status"], "SUCCEEDED")

    def test_starting_a_running_execution_again_changes_nothing(self):
        arn = start("again", GOES_ON)
        self.assertEqual(start("again", GOES_ON), arn)
        with self.assertRaises(states.exceptions.ExecutionAlreadyExists):
            start("again", ENDS)
        states.stop_execution(executionArn=arn)

    def test_executions_are_listed_newest_first_by_status_and_in_pages(self):
        finished = [f"listed-{number}" for number in range(3)]
        for name in finished:
            ended(start(name, ENDS))
        running = start("listed-running", GOES_ON)
        listed = states.list_executions(stateMachineArn=STATE_MACHINE, statusFilter="RUNNING")["executions"]
        self.assertEqual([each["executionArn"] for each in listed], [running])
        states.stop_execution(executionArn=running)
        listed = states.list_executions(stateMachineArn=STATE_MACHINE, statusFilter="ABORTED")["executions"]
        self.assertEqual(listed[0]["name"], "listed-running")
        self.assertIn("stopDate", listed[0])

        succeeded = {"stateMachineArn": STATE_MACHINE, "statusFilter": "SUCCEEDED"}
        whole = [each["name"] for each in states.list_executions(**succeeded)["executions"]]
        self.assertEqual(whole[:3], finished[::-1])
        self.assertEqual(whole[-1], "published")
        first = states.list_executions(**succeeded, maxResults=2)
        self.assertEqual(len(first["executions"]), 2)
        self.assertIn("nextToken", first)
        pages = list(states.get_paginator("list_executions").paginate(**succeeded, PaginationConfig={"PageSize": 1}))
        self.assertEqual([each["name"] for page in pages for each in page["executions"]], whole)
        self.assertEqual(len(pages), len(whole))

    def test_a_stopped_execution_is_aborted_with_its_builds(self):
        arn = start("stopped", GOES_ON)
        wait_until(lambda: "archweld-arm64" in builds_of("stopped"), "the build for linux/arm64 starts")
        stopped = states.stop_execution(executionArn=arn, error="Stopped", cause="by hand")
        described = states.describe_execution(executionArn=arn)
        self.assertEqual(described["status"], "ABORTED")
        self.assertEqual((described["error"], described["cause"]), ("Stopped", "by hand"))
        self.assertEqual(described["stopDate"], stopped["stopDate"])
        self.assertNotIn("output", described)
        last = states.get_execution_history(executionArn=arn, reverseOrder=True, maxResults=1)["events"][0]
        self.assertEqual(last["type"], "ExecutionAborted")
        self.assertEqual(last["executionAbortedEventDetails"], {"error": "Stopped", "cause": "by hand"})
        wait_until(
            lambda: builds_of("stopped")["archweld-arm64"]["buildStatus"] == "STOPPED",
            "the build is stopped",
        )

    def test_a_stopped_execution_is_redriven_once_a_client_token(self):
        arn = start("redriven", GOES_ON)
        with self.assertRaises(states.exceptions.ExecutionNotRedrivable):
            states.redrive_execution(executionArn=arn)
        states.stop_execution(executionArn=arn)
        described = states.describe_execution(executionArn=arn)
        self.assertEqual((described["redriveStatus"], described["redriveCount"]), ("REDRIVABLE", 0))
        for _ in range(2):
            redriven = states.redrive_execution(executionArn=arn, clientToken="once")
        described = states.describe_execution(executionArn=arn)
        self.assertEqual((described["status"], described["redriveCount"]), ("RUNNING", 1))
        self.assertEqual(described["redriveDate"], redriven["redriveDate"])
        self.assertEqual(described["redriveStatusReason"], "Execution is RUNNING and cannot be redriven")
        self.assertNotIn("stopDate", described)
        (listed,) = states.list_executions(stateMachineArn=STATE_MACHINE, statusFilter="RUNNING")["executions"]
        self.assertEqual((listed["redriveCount"], listed["redriveDate"]), (1, redriven["redriveDate"]))
        history = states.get_execution_history(executionArn=arn)["events"]
        (redrive,) = [event for event in history if event["type"] == "ExecutionRedriven"]
        self.assertEqual(redrive["executionRedrivenEventDetails"], {"redriveCount": 1})
        states.stop_execution(executionArn=arn)

    def test_a_history_is_read_in_both_directions_and_in_pages(self):
        history = {"executionArn": execution("published")}
        whole = states.get_execution_history(**history)["events"]
        self.assertEqual([event["id"] for event in whole], list(range(1, len(whole) + 1)))
        self.assertEqual(whole[0]["type"], "ExecutionStarted")
        self.assertEqual(whole[0]["previousEventId"], 0)
        self.assertEqual(whole[-1]["type"], "ExecutionSucceeded")
        self.assertIn("output", whole[-1]["executionSucceededEventDetails"])
        entered = [event["stateEnteredEventDetails"]["name"] for event in whole if "stateEnteredEventDetails" in event]
        self.assertEqual(entered[:2], ["Plan", "Build platforms"])
        self.assertEqual(entered[-1], "Published")

        reverse = states.get_execution_history(**history, reverseOrder=True)["events"]
        self.assertEqual(reverse, whole[::-1])
        for order in (False, True):
            paginator = states.get_paginator("get_execution_history")
            pages = paginator.paginate(**history, reverseOrder=order, PaginationConfig={"PageSize": 7})
            events_of_pages = [event for page in pages for event in page["events"]]
            self.assertEqual(events_of_pages, reverse if order else whole)
        bare = states.get_execution_history(**history, includeExecutionData=False)["events"]
        self.assertNotIn("input", bare[0]["executionStartedEventDetails"])

    def test_the_state_machine_is_listed_and_described(self):
        listed = states.list_state_machines()["stateMachines"]
        self.assertEqual([each["stateMachineArn"] for each in listed], [STATE_MACHINE])
        self.assertEqual(listed[0]["type"], "STANDARD")
        described = states.describe_state_machine(stateMachineArn=STATE_MACHINE)
        self.assertEqual((described["name"], described["status"]), ("archweld-multi-arch-build", "ACTIVE"))
        definition = json.loads(described["definition"])
        self.assertEqual(definition["StartAt"], "Plan")
        plan = definition["States"]["Plan"]["Arguments"]["FunctionName"]
        self.assertTrue(plan.endswith(f":function:{PLAN_BUILD}"), plan)
        of_execution = states.describe_state_machine_for_execution(executionArn=execution("published"))
        self.assertEqual(of_execution["definition"], described["definition"])


class Builds(unittest.TestCase):
    def test_builds_are_listed_and_read(self):
        builds = builds_of("published")
        self.assertEqual(sorted(builds), PROJECTS)
        build = builds["archweld-arm64"]
        self.assertEqual((build["buildStatus"], build["buildComplete"]), ("SUCCEEDED", True))
        self.assertEqual(build["environment"]["type"], "ARM_CONTAINER")
        self.assertEqual(variables(build)["IMAGE_ARCH"], "arm64v8")
        phases = [phase["phaseType"] for phase in build["phases"]]
        self.assertEqual((phases[0], phases[-1]), ("SUBMITTED", "COMPLETED"))
        self.assertLessEqual(build["startTime"], build["endTime"])
        by_arn = codebuild.batch_get_builds(ids=[build["arn"], "archweld-arm64:absent"])
        self.assertEqual([each["id"] for each in by_arn["builds"]], [build["id"]])
        self.assertEqual(by_arn["buildsNotFound"], ["archweld-arm64:absent"])

    def test_builds_are_listed_by_project_in_both_directions(self):
        project = {"projectName": "archweld-manifest"}
        ascending = codebuild.list_builds_for_project(**project, sortOrder="ASCENDING")["ids"]
        descending = codebuild.list_builds_for_project(**project, sortOrder="DESCENDING")["ids"]
        self.assertEqual(descending, ascending[::-1])
        self.assertEqual(ascending[0], builds_of("published")["archweld-manifest"]["id"])

    def test_projects_are_listed_and_read(self):
        self.assertEqual(codebuild.list_projects()["projects"], PROJECTS)
        found = codebuild.batch_get_projects(names=[*PROJECTS, "absent"])
        self.assertEqual([project["name"] for project in found["projects"]], PROJECTS)
        self.assertEqual(found["projectsNotFound"], ["absent"])
        self.assertTrue(all(project["environment"]["privilegedMode"] for project in found["projects"]))

    def test_a_log_is_read_where_the_build_says_it_is(self):
        build = builds_of("published")["archweld-amd64"]
        place = {"logGroupName": build["logs"]["groupName"], "logStreamName": build["logs"]["streamName"]}
        read = logs.get_log_events(**place, startFromHead=True)
        self.assertEqual([event["message"] for event in read["events"]], ["building linux/amd64\n"])
        self.assertGreaterEqual(read["events"][0]["timestamp"], build["startTime"].timestamp() * 1000)
        end = logs.get_log_events(**place, nextToken=read["nextForwardToken"])
        self.assertEqual((end["events"], end["nextForwardToken"]), ([], read["nextForwardToken"]))
        streams = logs.describe_log_streams(logGroupName=place["logGroupName"])["logStreams"]
        self.assertIn(place["logStreamName"], [stream["logStreamName"] for stream in streams])

    def test_a_build_is_stopped(self):
        arn = start("build-stopped", GOES_ON)
        wait_until(lambda: "archweld-arm64" in builds_of("build-stopped"), "the build starts")
        stopped = codebuild.stop_build(id=builds_of("build-stopped")["archweld-arm64"]["id"])["build"]
        self.assertEqual(stopped["buildStatus"], "STOPPED")
        self.assertEqual(ended(arn)["error"], "Build.Stopped")


class Images(unittest.TestCase):
    def test_the_repository_is_described(self):
        (repository,) = ecr.describe_repositories()["repositories"]
        self.assertEqual(repository["repositoryName"], "hello")
        self.assertTrue(repository["repositoryUri"].endswith("/hello"), repository)
        self.assertEqual(ecr.describe_repositories(repositoryNames=["hello"])["repositories"], [repository])

    def test_images_are_listed_and_described(self):
        described = ecr.describe_images(repositoryName="hello", imageIds=[{"imageTag": "published"}])
        (index,) = described["imageDetails"]
        self.assertEqual(index["imageManifestMediaType"], "application/vnd.oci.image.index.v1+json")
        output = json.loads(ended(execution("published"))["output"])
        self.assertEqual(index["imageDigest"], output["digest"])

        listed = ecr.list_images(repositoryName="hello", filter={"tagStatus": "TAGGED"})["imageIds"]
        tags = {image["imageTag"]: image["imageDigest"] for image in listed}
        self.assertEqual(tags["published"], index["imageDigest"])
        pages = ecr.get_paginator("describe_images").paginate(repositoryName="hello", PaginationConfig={"PageSize": 1})
        paged = {
            tag: image["imageDigest"] for page in pages for image in page["imageDetails"] for tag in image["imageTags"]
        }
        self.assertEqual({tag: paged.get(tag) for tag in tags}, tags)

        got = ecr.batch_get_image(repositoryName="hello", imageIds=[{"imageTag": "published"}, {"imageTag": "absent"}])
        manifest = json.loads(got["images"][0]["imageManifest"])
        platforms = [
            f"{child['platform']['os']}/{child['platform']['architecture']}" for child in manifest["manifests"]
        ]
        self.assertEqual(platforms, PLATFORMS)
        self.assertEqual([failure["failureCode"] for failure in got["failures"]], ["ImageNotFound"])

    def test_the_authorization_token_logs_in_and_no_other(self):
        (data,) = ecr.get_authorization_token()["authorizationData"]
        self.assertEqual(registry_status(f"Basic {data['authorizationToken']}"), 200)
        self.assertEqual(registry_status(), 401)
        self.assertEqual(log_in("AWS", "wrong"), 401)


class Functions(unittest.TestCase):
    def test_a_function_is_invoked(self):
        answer = functions.invoke(FunctionName=PLAN_BUILD, Payload=plan_request())
        self.assertEqual((answer["StatusCode"], answer["ExecutedVersion"]), (200, "$LATEST"))
        self.assertNotIn("FunctionError", answer)
        plan = json.load(answer["Payload"])
        self.assertEqual((plan["image"], plan["run"]), ("hello", "by-hand"))

    def test_a_functions_error_is_told_apart(self):
        answer = functions.invoke(FunctionName=PLAN_BUILD, Payload=plan_request(platfroms=[]))
        self.assertEqual((answer["StatusCode"], answer["FunctionError"]), (200, "Unhandled"))
        error = json.load(answer["Payload"])
        self.assertEqual(error["errorType"], "Plan.Invalid")
        self.assertIn("platfroms", error["errorMessage"])

    def test_an_event_is_accepted_and_a_dry_run_checked(self):
        for kind, status in [("Event", 202), ("DryRun", 204)]:
            answer = functions.invoke(FunctionName=PLAN_BUILD, InvocationType=kind, Payload=plan_request())
            self.assertEqual(answer["StatusCode"], status, kind)


class Events(unittest.TestCase):
    def test_events_are_put_one_by_one(self):
        entry = {"Source": "clients.test", "DetailType": "Test", "Detail": json.dumps({"client": "boto3"})}
        put = events.put_events(Entries=[entry, {**entry, "Source": "aws.codebuild"}, {**entry, "Detail": "{"}])
        self.assertEqual(put["FailedEntryCount"], 2)
        self.assertIn("EventId", put["Entries"][0])
        codes = [each.get("ErrorCode") for each in put["Entries"]]
        self.assertEqual(codes, [None, "NotAuthorizedForSourceException", "MalformedDetail"])

    def test_rules_and_their_targets_are_read(self):
        rules = events.list_rules()["Rules"]
        patterns = [json.loads(rule["EventPattern"])["source"] for rule in rules]
        self.assertIn(["aws.codebuild"], patterns)
        for rule in rules:
            targets = events.list_targets_by_rule(Rule=rule["Name"])["Targets"]
            self.assertTrue(all(":function:" in target["Arn"] for target in targets), targets)


class Refusals(unittest.TestCase):
    def assert_refused(self, client, operation, error, **input):
        with self.subTest(operation=operation, error=error, **input):
            with self.assertRaises(getattr(client.exceptions, error)) as raised:
                getattr(client, operation)(**input)
            modelled = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[operation])
            self.assertIn(error, [shape.name for shape in modelled.error_shapes])
            told = raised.exception.response
            self.assertEqual(told["Error"]["Code"], error)
            self.assertTrue(told["Error"]["Message"])
            self.assertEqual(told["ResponseMetadata"]["HTTPStatusCode"], 404 if client is functions else 400)

    def test_wrong_executions_and_state_machines_are_told(self):
        machine = {"stateMachineArn": STATE_MACHINE}
        absent = {"executionArn": execution("absent")}
        for operation in ("describe_execution", "stop_execution", "get_execution_history"):
            self.assert_refused(states, operation, "ExecutionDoesNotExist", **absent)
            self.assert_refused(states, operation, "InvalidArn", executionArn="execution")
        for operation in ("start_execution", "list_executions", "describe_state_machine"):
            error = "StateMachineDoesNotExist"
            self.assert_refused(states, operation, error, stateMachineArn=f"{STATE_MACHINE}x")
            self.assert_refused(states, operation, "InvalidArn", stateMachineArn="machine")
        self.assert_refused(states, "start_execution", "InvalidName", **machine, name="a name")
        self.assert_refused(states, "start_execution", "InvalidExecutionInput", **machine, input="{")
        self.assert_refused(states, "start_execution", "ExecutionAlreadyExists", **machine, name="published")
        self.assert_refused(states, "list_executions", "InvalidToken", **machine, nextToken="absent")

    def test_wrong_task_tokens_are_told(self):
        self.assert_refused(states, "send_task_success", "InvalidToken", taskToken="absent", output="{}")
        self.assert_refused(states, "send_task_failure", "InvalidToken", taskToken="absent")
        self.assert_refused(states, "send_task_success", "InvalidOutput", taskToken="absent", output="{")
        used = variables(builds_of("published")["archweld-amd64"])["ARCHWELD_TASK_TOKEN"]
        self.assert_refused(states, "send_task_success", "TaskTimedOut", taskToken=used, output="{}")

    def test_wrong_builds_and_projects_are_told(self):
        error = "ResourceNotFoundException"
        self.assert_refused(codebuild, "start_build", error, projectName="absent")
        self.assert_refused(codebuild, "list_builds_for_project", error, projectName="absent")
        self.assert_refused(codebuild, "stop_build", error, id="archweld-amd64:absent")
        self.assert_refused(logs, "get_log_events", error, logGroupName="absent", logStreamName="absent")
        error = "InvalidInputException"
        self.assert_refused(codebuild, "list_builds", error, nextToken="absent")
        misnamed = [{"name": "A=B", "value": "", "type": "PLAINTEXT"}]
        start_build = {"projectName": "archweld-amd64", "environmentVariablesOverride": misnamed}
        self.assert_refused(codebuild, "start_build", error, **start_build)

    def test_wrong_images_and_repositories_are_told(self):
        absent = {"repositoryName": "absent"}
        for operation in ("describe_images", "list_images"):
            self.assert_refused(ecr, operation, "RepositoryNotFoundException", **absent)
            self.assert_refused(ecr, operation, "InvalidParameterException", repositoryName="Hello!")
        self.assert_refused(ecr, "describe_repositories", "RepositoryNotFoundException", repositoryNames=["absent"])
        image = {"repositoryName": "hello", "imageIds": [{"imageTag": "absent"}]}
        self.assert_refused(ecr, "describe_images", "ImageNotFoundException", **image)

    def test_wrong_functions_and_rules_are_told(self):
        self.assert_refused(functions, "invoke", "ResourceNotFoundException", FunctionName="absent")
        with self.assertRaises(events.exceptions.ResourceNotFoundException):
            events.describe_rule(Name="absent")

    def test_operations_that_are_not_served_are_told(self):
        for operation in (
            states.list_activities,
            codebuild.list_report_groups,
            ecr.describe_registry,
            events.list_event_buses,
            logs.describe_log_groups,
            functions.list_functions,
        ):
            with self.subTest(operation=operation.__name__):
                with self.assertRaises(ClientError) as raised:
                    operation()
                self.assertEqual(raised.exception.response["Error"]["Code"], "UnknownOperationException")


if __name__ == "__main__":
    unittest.main()

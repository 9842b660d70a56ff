"""The resources of a stack exist and are wired as the workflow needs them."""

import json
import re
import unittest

import boto3

from support import ACCOUNT, REGION, ROOT, STACK, arn, deployed, read_template

# What moto's CloudFormation does not make: what these say is tested as the translated template says it.
UNSUPPORTED = {
    "AWS::CloudWatch::Alarm",
    "AWS::CodeBuild::Project",
    "AWS::Lambda::EventInvokeConfig",
    "AWS::Lambda::Url",
    "AWS::SNS::Subscription",
    "AWS::SNS::TopicPolicy",
    "AWS::SQS::QueuePolicy",
    "AWS::Scheduler::Schedule",
    "AWS::SecretsManager::Secret",
}
PROJECTS = {"Amd64Project": "amd64", "Arm64Project": "arm64", "ManifestProject": "manifest"}
# Which rule of the template hands which events to which function.
RULES = {
    "TriggerRunFunctionCodeCommitPush": (
        "TriggerRunFunction",
        "aws.codecommit",
        {"event": ["referenceCreated", "referenceUpdated"]},
    ),
    "TriggerRunFunctionBaseImagePush": (
        "TriggerRunFunction",
        "aws.ecr",
        {
            "action-type": ["PUSH"],
            "result": ["SUCCESS"],
            "repository-name": [{"anything-but": "hello"}],
            "image-tag": [{"anything-but": {"prefix": "archweld."}}],
        },
    ),
    "BuildEventsFunctionBuildEnded": (
        "BuildEventsFunction",
        "aws.codebuild",
        {
            "project-name": [f"{STACK}-{suffix}" for suffix in PROJECTS.values()],
            "build-status": [{"anything-but": "IN_PROGRESS"}],
        },
    ),
    "ReconcileFunctionExecutionEnded": (
        "ReconcileFunction",
        "aws.states",
        {
            "stateMachineArn": [arn("states", f"stateMachine:{STACK}-multi-arch-build")],
            "status": [{"anything-but": "RUNNING"}],
        },
    ),
}


def of_type(stack, kind):
    """The properties of the resources of one type, by their logical names."""
    resources = stack.template["Resources"].items()
    return {name: each.get("Properties", {}) for name, each in resources if each["Type"] == kind}


class Stack(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = cls.enterClassContext(deployed())
        cls.functions = of_type(cls.stack, "AWS::Lambda::Function")
        cls.queue = arn("sqs", cls.stack.physical["DeadLetters"].rsplit("/", 1)[-1])

    def function_arn(self, name):
        return arn("lambda", f"function:{self.stack.physical[name]}")

    def test_what_moto_cannot_make_is_listed(self):
        print("not made by moto:", ", ".join(sorted(self.stack.unsupported)))
        self.assertEqual(set(self.stack.unsupported.values()) | {"AWS::SNS::Subscription"}, UNSUPPORTED)

    def test_all_else_is_made(self):
        made = set(self.stack.physical)
        self.assertEqual(set(self.stack.template["Resources"]) - set(self.stack.unsupported), made)
        # Permissions and layers have no name of their own.
        nameless = {"AWS::Lambda::Permission", "AWS::Lambda::LayerVersion"}
        for name, physical in self.stack.physical.items():
            with self.subTest(resource=name):
                kind = self.stack.template["Resources"][name]["Type"]
                self.assertTrue(physical or kind in nameless)

    def test_functions_are_as_their_binaries_need_them(self):
        client = boto3.client("lambda")
        for name, properties in self.functions.items():
            with self.subTest(function=name):
                made = client.get_function_configuration(FunctionName=self.stack.physical[name])
                self.assertEqual((made["Runtime"], made["Handler"]), ("provided.al2023", "bootstrap"))
                self.assertEqual(made["Role"], f"arn:aws:iam::{ACCOUNT}:role/{self.stack.physical[name + 'Role']}")
                self.assertEqual(made["Timeout"], properties["Timeout"])
                self.assertEqual(properties["Architectures"], [{"Ref": "Architecture"}])
                self.assertEqual(properties["TracingConfig"], {"Mode": "Active"})
                self.assertEqual(properties["LoggingConfig"]["LogFormat"], "JSON")
                self.assertIn(properties["LoggingConfig"]["LogGroup"]["Ref"], self.stack.physical)
                environment = made["Environment"]["Variables"]
                self.assertEqual(environment["ARCHWELD_STACK"], STACK)
                # Nothing that was meant to be filled in is left.
                self.assertNotRegex(json.dumps(environment), r"\$\{|Ref|Fn::|None")
                for variable, value in environment.items():
                    if variable.startswith("PROJECT_"):
                        self.assertEqual(value, f"{STACK}-{variable.removeprefix('PROJECT_').lower()}")
                # Who reads the configuration has the layer with it.
                self.assertEqual("ARCHWELD_CONFIG" in environment, "Layers" in properties)

    def test_environments_name_what_was_made(self):
        client = boto3.client("lambda")

        def environment(name):
            made = client.get_function_configuration(FunctionName=self.stack.physical[name])
            return made["Environment"]["Variables"]

        self.assertEqual(environment("TriggerRunFunction")["STATE_MACHINE_ARN"], self.stack.physical["StateMachine"])
        registry = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
        self.assertEqual(environment("PlanBuildFunction")["IMAGE_REGISTRY"], registry)

    def test_rules_hand_their_events_to_their_functions(self):
        events, functions = boto3.client("events"), boto3.client("lambda")
        made = {each["Name"]: json.loads(each["EventPattern"]) for each in events.list_rules()["Rules"]}
        for rule, (function, source, detail) in RULES.items():
            with self.subTest(rule=rule):
                name = self.stack.physical[rule]
                self.assertEqual(made[name]["source"], [source])
                self.assertEqual(made[name]["detail"], detail)
                [target] = events.list_targets_by_rule(Rule=name)["Targets"]
                self.assertEqual(target["Arn"], self.function_arn(function))
                self.assertEqual(target["DeadLetterConfig"], {"Arn": self.queue})
                self.assertGreater(target["RetryPolicy"]["MaximumRetryAttempts"], 0)
                policy = functions.get_policy(FunctionName=self.stack.physical[function])["Policy"]
                allowed = [each.get("Condition", {}).get("ArnLike", {}) for each in json.loads(policy)["Statement"]]
                self.assertIn({"AWS:SourceArn": arn("events", f"rule/{name}")}, allowed)

    def test_every_rule_and_schedule_has_retries_and_the_queue(self):
        rules = of_type(self.stack, "AWS::Events::Rule")
        schedules = of_type(self.stack, "AWS::Scheduler::Schedule")
        targets = [(name, target) for name, rule in rules.items() for target in rule["Targets"]]
        targets += [(name, schedule["Target"]) for name, schedule in schedules.items()]
        self.assertGreater(len(targets), len(RULES))
        for name, target in targets:
            with self.subTest(of=name):
                self.assertEqual(set(target["RetryPolicy"]), {"MaximumEventAgeInSeconds", "MaximumRetryAttempts"})
                # What a pass of reconcile could not do, the next one does.
                if name != "ReconcileSchedule":
                    self.assertEqual(target["DeadLetterConfig"]["Arn"], {"Fn::GetAtt": ["DeadLetters", "Arn"]})

    def test_functions_of_events_tell_the_queue_what_they_could_not_do(self):
        configured = of_type(self.stack, "AWS::Lambda::EventInvokeConfig")
        told = {each["FunctionName"]["Ref"] for each in configured.values()}
        targets = re.findall(r'"(\w+Function)"', json.dumps(of_type(self.stack, "AWS::Events::Rule")))
        targets += re.findall(r'"(\w+Function)"', json.dumps(of_type(self.stack, "AWS::Scheduler::Schedule")))
        self.assertEqual(told, set(targets))
        for each in configured.values():
            failed = each["DestinationConfig"]["OnFailure"]["Destination"]
            self.assertEqual(failed, {"Fn::GetAtt": ["DeadLetters", "Arn"]})

    def test_the_state_machine_invokes_what_was_made(self):
        made = boto3.client("stepfunctions").describe_state_machine(stateMachineArn=self.stack.physical["StateMachine"])
        role = self.stack.physical["StateMachineRole"]
        self.assertEqual(made["roleArn"], f"arn:aws:iam::{ACCOUNT}:role/{role}")
        invoked = set(re.findall(r'"FunctionName": "([^"]*)"', made["definition"]))
        names = ["PlanBuildFunction", "StartBuildFunction", "PublishFunction", "ReconcileFunction"]
        self.assertEqual(invoked, {self.function_arn(name) for name in names})
        self.assertNotIn("${", made["definition"])
        # moto keeps neither.
        [properties] = of_type(self.stack, "AWS::StepFunctions::StateMachine").values()
        self.assertEqual(properties["TracingConfiguration"], {"Enabled": True})
        logging = properties["LoggingConfiguration"]
        self.assertEqual((logging["Level"], logging["IncludeExecutionData"]), ("ERROR", False))

    def test_providers_may_call_the_url_and_nothing_else(self):
        functions = boto3.client("lambda")
        public = {}
        for name in self.functions:
            try:
                policy = functions.get_policy(FunctionName=self.stack.physical[name])["Policy"]
            except functions.exceptions.ResourceNotFoundException:
                continue
            for statement in json.loads(policy)["Statement"]:
                if statement["Principal"] == "*":
                    public.setdefault(name, {})[statement["Action"]] = statement
        # Both since October 2025: https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html
        self.assertEqual(set(public), {"TriggerRunFunction"})
        statements = public["TriggerRunFunction"]
        self.assertEqual(set(statements), {"lambda:InvokeFunctionUrl", "lambda:InvokeFunction"})
        self.assertEqual(statements["lambda:InvokeFunctionUrl"]["FunctionUrlAuthType"], "NONE")
        self.assertTrue(statements["lambda:InvokeFunction"]["InvokedViaFunctionUrl"])

    def test_projects_differ_in_their_machines_and_buildspecs_alone(self):
        projects = of_type(self.stack, "AWS::CodeBuild::Project")
        self.assertEqual(set(projects), set(PROJECTS))
        alike = []
        for name, properties in projects.items():
            plain = json.loads(json.dumps(properties))
            for own in ["Name", "Description", "Cache", "LogsConfig"]:
                plain.pop(own)
            for own in ["Type", "Image", "ComputeType", "Fleet"]:
                plain["Environment"].pop(own, None)
            alike.append(plain | {"Source": {**plain["Source"], "BuildSpec": None}})
            with self.subTest(project=name):
                self.assertEqual(properties["Name"], {"Fn::Sub": f"${{AWS::StackName}}-{PROJECTS[name]}"})
                # A build that CodeBuild starts again by itself is nobody's.
                self.assertEqual(properties["AutoRetryLimit"], 0)
                log = properties["LogsConfig"]["CloudWatchLogs"]["GroupName"]["Ref"]
                self.assertEqual(self.stack.physical[log], f"/aws/codebuild/{STACK}-{PROJECTS[name]}")
        self.assertEqual(alike, [alike[0]] * 3)
        types = {name: properties["Environment"]["Type"] for name, properties in projects.items()}
        self.assertEqual((types["Amd64Project"], types["Arm64Project"]), ("LINUX_CONTAINER", "ARM_CONTAINER"))

    def test_logs_are_kept_for_as_long_as_is_said(self):
        groups = boto3.client("logs").describe_log_groups()["logGroups"]
        self.assertEqual(len(groups), len(self.functions) + len(PROJECTS) + 1)
        self.assertEqual({group["retentionInDays"] for group in groups}, {30})

    def test_alarms_tell_the_topic(self):
        alarms = of_type(self.stack, "AWS::CloudWatch::Alarm")
        needed = {"FailedExecutionsAlarm", "DeadLettersAlarm", "ReconcileRepairsAlarm", "ThrottlesAlarm"}
        self.assertLessEqual(needed, set(alarms))
        for name, alarm in alarms.items():
            with self.subTest(alarm=name):
                self.assertEqual(alarm["AlarmActions"], [{"Ref": "Results"}])
                self.assertTrue(alarm["AlarmDescription"])
                self.assertEqual(alarm["TreatMissingData"], "notBreaching")
        throttled = re.findall(r'"Name": "FunctionName", "Value": \{"Ref": "(\w+)"', json.dumps(alarms))
        self.assertEqual(set(throttled), set(self.functions))
        repairs = alarms["ReconcileRepairsAlarm"]
        self.assertEqual((repairs["Namespace"], repairs["MetricName"]), ("archweld", "ReconcileRepairs"))
        self.assertEqual(repairs["Dimensions"], [{"Name": "Stack", "Value": {"Ref": "AWS::StackName"}}])

    def test_results_and_alarms_reach_the_topic_and_dead_letters_the_queue(self):
        events = boto3.client("events")
        rule = self.stack.physical["RunEnded"]
        [target] = events.list_targets_by_rule(Rule=rule)["Targets"]
        self.assertEqual(target["Arn"], self.stack.physical["Results"])
        pattern = json.loads(events.describe_rule(Name=rule)["EventPattern"])
        self.assertEqual(pattern["source"], ["archweld"])
        self.assertEqual(pattern["resources"], [self.stack.physical["StateMachine"]])
        [topic] = of_type(self.stack, "AWS::SNS::TopicPolicy").values()
        [statement] = topic["PolicyDocument"]["Statement"]
        services = {"cloudwatch.amazonaws.com", "events.amazonaws.com"}
        self.assertEqual(set(statement["Principal"]["Service"]), services)
        [queue] = of_type(self.stack, "AWS::SQS::QueuePolicy").values()
        [statement] = queue["PolicyDocument"]["Statement"]
        self.assertEqual(statement["Principal"], {"Service": "events.amazonaws.com"})
        for name in RULES:
            # Rules are named after the stack, so that the policy is for them alone.
            self.assertTrue(self.stack.physical[name].startswith(f"{STACK}-"))

    def test_the_dashboard_shows_every_metric_of_this_stack(self):
        body = boto3.client("cloudwatch").get_dashboard(DashboardName=STACK)["DashboardBody"]
        # Labels of series are filled in by CloudWatch.
        self.assertEqual(set(re.findall(r"\$\{[^}]*\}", body)), {"${PROP('Dim.Platform')}", "${PROP('Dim.Image')}"})
        self.assertIn(self.stack.physical["DeadLetters"].rsplit("/", 1)[-1], body)
        shown = []
        for widget in json.loads(body)["widgets"]:
            before = []
            for metric in widget["properties"]["metrics"]:
                if isinstance(metric[0], str):
                    # A dot is what stands there in the line before.
                    before = [before[at] if part == "." else part for at, part in enumerate(metric)]
                    shown.append(before)
                else:
                    shown.append(re.split(r"""[^\w./-]+""", metric[0]["expression"]))
        metrics = (ROOT / "docs/logging.md").read_text(encoding="utf-8")
        rows = re.findall(r"^\| `(\w+)` \| (?:Count|Seconds) \| (.*) \| (.*) \|$", metrics, re.M)
        self.assertGreaterEqual(len(rows), 6)
        for name, dimensions, says in rows:
            of_metric = [words for words in shown if "archweld" in words and name in words]
            for dimension in re.findall(r"`(\w+)`", dimensions):
                self.assertTrue(
                    any({"Stack", STACK, dimension} <= set(words) for words in of_metric), (name, dimension)
                )
            for value in re.findall(r"`([A-Z][\w.]+)`", says):
                self.assertTrue(any(value in words for words in of_metric), (name, value))

    def test_outputs_say_what_to_do_next(self):
        [stack] = boto3.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
        outputs = {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]}
        self.assertEqual(set(outputs), set(read_template()["Outputs"]))
        self.assertNotIn("${", json.dumps(outputs))
        self.assertIn("https://", outputs["WebhookUrl"])
        self.assertTrue(outputs["StateMachineConsole"].endswith(self.stack.physical["StateMachine"]))
        self.assertEqual(outputs["PullCommand"], f"docker pull {outputs['RepositoryUri']}:latest")


class Choices(unittest.TestCase):
    """What the parameters change."""

    def test_moving_tags_are_left_out_of_immutability(self):
        with deployed({"ImmutableTags": "true", "MovingTags": "latest,1.*,2.*"}) as stack:
            [made] = boto3.client("ecr").describe_repositories()["repositories"]
            [properties] = of_type(stack, "AWS::ECR::Repository").values()
        self.assertEqual(made["imageTagMutability"], "IMMUTABLE_WITH_EXCLUSION")
        filters = [each["filter"] for each in made["imageTagMutabilityExclusionFilters"]]
        self.assertEqual(filters, ["archweld.*", "latest", "1.*", "2.*"])
        # moto keeps neither.
        self.assertTrue(properties["ImageScanningConfiguration"]["ScanOnPush"])
        self.assertIn("untagged", properties["LifecyclePolicy"]["LifecyclePolicyText"]["Fn::Sub"])

    def test_the_public_function_can_be_held_to_its_share(self):
        with deployed({"TriggerConcurrency": "7"}) as stack:
            name = stack.physical["TriggerRunFunction"]
            held = boto3.client("lambda").get_function_concurrency(FunctionName=name)
        self.assertEqual(held["ReservedConcurrentExecutions"], 7)

    def test_builds_have_the_credential_that_their_source_needs(self):
        connection = "arn:aws:codeconnections:us-east-1:123456789012:connection/0f3a1f6e"
        secret = arn("secretsmanager", "secret:codebuild-AbCdEf")
        for parameters, kind in [
            ({}, None),
            ({"SourceConnection": connection}, "CODECONNECTIONS"),
            ({"SourceSecret": secret}, "SECRETS_MANAGER"),
        ]:
            with self.subTest(kind=kind), deployed(parameters) as stack:
                for project in of_type(stack, "AWS::CodeBuild::Project").values():
                    self.assertEqual(project["Source"].get("Auth", {}).get("Type"), kind)

    def test_builds_run_in_the_network_or_the_fleet_that_is_named(self):
        network = {"VpcId": "vpc-0", "SubnetIds": "subnet-0,subnet-1", "SecurityGroupIds": "sg-0"}
        with deployed(network) as stack:
            for project in of_type(stack, "AWS::CodeBuild::Project").values():
                self.assertEqual(project["VpcConfig"]["Subnets"], {"Fn::Split": [",", {"Ref": "SubnetIds"}]})
        with deployed({"ArmFleet": arn("codebuild", "fleet/arm:0")}) as stack:
            projects = of_type(stack, "AWS::CodeBuild::Project")
            of_fleet = {name for name, project in projects.items() if "Fleet" in project["Environment"]}
            self.assertEqual(of_fleet, {"Arm64Project"})
            self.assertFalse(any("VpcConfig" in project for project in projects.values()))

    def test_failures_are_mailed_to_whom_they_concern(self):
        with deployed({"NotificationEmail": "platform@example.com"}) as stack:
            [mail] = of_type(stack, "AWS::SNS::Subscription").values()
        self.assertEqual(mail["FilterPolicy"], {"detail": {"status": ["FAILED"]}})
        with deployed() as stack:
            self.assertEqual(of_type(stack, "AWS::SNS::Subscription"), {})


if __name__ == "__main__":
    unittest.main()

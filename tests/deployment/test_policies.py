"""What functions call is what their roles allow, and nothing else."""

import json
import re
import unittest

from support import DEFINITION, ROOT, arn, deployed, examples, read_template

RECORD = ROOT / "tests/deployment/calls.snap"
# What Lambda does in a function's name, by AWS's own policies: writing its log and its traces.
OF_LAMBDA = {
    "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole",
    "arn:aws:iam::aws:policy/AWSXrayWriteOnlyAccess",
}
# What Step Functions does in a state machine's name to write its log and its traces
# (https://docs.aws.amazon.com/step-functions/latest/dg/cw-logs.html#cloudwatch-iam-policy).
OF_STEP_FUNCTIONS = {
    (action, "*")
    for action in [
        "logs:CreateLogDelivery",
        "logs:DeleteLogDelivery",
        "logs:DescribeLogGroups",
        "logs:DescribeResourcePolicies",
        "logs:GetLogDelivery",
        "logs:ListLogDeliveries",
        "logs:PutResourcePolicy",
        "logs:UpdateLogDelivery",
        "xray:GetSamplingRules",
        "xray:GetSamplingTargets",
        "xray:PutTelemetryRecords",
        "xray:PutTraceSegments",
    ]
}
# Who is invoked by events: Lambda tells the queue, in the function's name, what could not be handled.
BY_EVENTS = {"trigger-run", "build-events", "reconcile", "report"}


def recorded():
    """The calls of the recorded runs: binary, action and resource."""
    _, _, lines = RECORD.read_text().split("---\n", 2)
    return [tuple(line.split(" ")) for line in lines.splitlines()]


def functions():
    """The logical names of the functions, by their binaries."""
    resources = read_template()["Resources"].items()
    return {
        resource["Metadata"]["BuildProperties"]["Binary"]: name
        for name, resource in resources
        if resource["Type"] == "AWS::Serverless::Function"
    }


def as_list(value):
    return value if isinstance(value, list) else [value]


def matches(pattern, text):
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_resource.html"""
    parts = {"*": ".*", "?": "."}
    return re.fullmatch("".join(parts.get(part) or re.escape(part) for part in pattern), text) is not None


def grants(statements):
    """Each action with each resource that it is allowed for, as patterns."""
    for statement in statements:
        assert set(statement) <= {"Effect", "Action", "Resource", "Sid", "Condition"}, statement
        assert statement["Effect"] == "Allow", statement
        for action in as_list(statement["Action"]):
            for resource in as_list(statement["Resource"]):
                yield action, resource


def is_allowed(statements, action, resource):
    """Whether a role may do it. Actions are the same in any case, resources are not."""
    return any(
        matches(pattern.lower(), action.lower()) and matches(resources, resource)
        for pattern, resources in grants(statements)
    )


class Policies(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = cls.enterClassContext(deployed())
        queue = cls.stack.physical["DeadLetters"].rsplit("/", 1)[-1]
        cls.dead_letters = ("sqs:SendMessage", arn("sqs", queue))

    def test_the_evaluator_knows_patterns(self):
        statements = [{"Effect": "Allow", "Action": ["a:Get*"], "Resource": "arn:x:y/*"}]
        self.assertTrue(is_allowed(statements, "a:getIt", "arn:x:y/z"))
        self.assertFalse(is_allowed(statements, "a:PutIt", "arn:x:y/z"))
        self.assertFalse(is_allowed(statements, "a:GetIt", "arn:x:Y/z"))
        self.assertFalse(is_allowed(statements, "a:GetIt", "arn.x.y/z"))

    def test_every_function_was_recorded(self):
        self.assertEqual({function for function, _, _ in recorded()}, set(functions()))

    def test_every_call_is_allowed(self):
        names = functions()
        for function, action, resource in recorded():
            with self.subTest(function=function, action=action, resource=resource):
                statements, _ = self.stack.policies(f"{names[function]}Role")
                self.assertTrue(is_allowed(statements, action, resource))

    def test_nothing_is_allowed_that_is_not_called(self):
        for function, name in functions().items():
            statements, managed = self.stack.policies(f"{name}Role")
            self.assertEqual(managed, OF_LAMBDA)
            granted = set(grants(statements))
            self.assertEqual(self.dead_letters in granted, function in BY_EVENTS)
            for allowed, resources in granted - {self.dead_letters}:
                with self.subTest(function=function, action=allowed, resource=resources):
                    # Of actions, each is named.
                    self.assertNotIn("*", allowed)
                    self.assertTrue(
                        any(
                            (caller, action) == (function, allowed) and matches(resources, resource)
                            for caller, action, resource in recorded()
                        )
                    )

    def test_the_state_machine_may_do_what_its_states_do(self):
        tasks = re.findall(r'"Resource": "arn:aws:states:::([a-z]+:[A-Za-z]+)', DEFINITION.read_text())
        self.assertEqual(set(tasks), {"events:putEvents", "lambda:invoke"})
        invoked = set(re.findall(r"\$\{([A-Za-z]+)\}", DEFINITION.read_text()))
        names = {function: self.stack.physical[function] for function in invoked}
        needed = {("lambda:InvokeFunction", arn("lambda", f"function:{name}")) for name in names.values()}
        needed.add(("events:PutEvents", arn("events", "event-bus/default")))
        statements, managed = self.stack.policies("StateMachineRole")
        self.assertEqual((set(grants(statements)), managed), (needed | OF_STEP_FUNCTIONS, set()))

    def test_schedules_may_invoke_what_they_are_for(self):
        function = arn("lambda", f"function:{self.stack.physical['TriggerRunFunction']}")
        statements, managed = self.stack.policies("ScheduleRole")
        needed = {("lambda:InvokeFunction", function), self.dead_letters}
        self.assertEqual((set(grants(statements)), managed), (needed, set()))

    def test_the_schedule_of_reconcile_may_invoke_it(self):
        function = arn("lambda", f"function:{self.stack.physical['ReconcileFunction']}")
        statements, managed = self.stack.policies("ReconcileScheduleRole")
        self.assertEqual((set(grants(statements)), managed), ({("lambda:InvokeFunction", function)}, set()))

    def test_builds_may_push_to_the_repository_and_write_their_logs(self):
        statements, managed = self.stack.policies("BuildRole")
        self.assertEqual(managed, set())
        # On AWS, the ARN of a log group has `:*` behind it; not so in moto.
        groups = [f"log-group:/aws/codebuild/archweld-{of}" for of in ("amd64", "arm64", "manifest")]
        for action, resource in grants(statements):
            with self.subTest(action=action):
                self.assertNotIn("*", action)
                if action == "ecr:GetAuthorizationToken":
                    self.assertEqual(resource, "*")
                elif action.startswith("ecr:"):
                    self.assertEqual(resource, arn("ecr", "repository/hello"))
                else:
                    self.assertIn(resource, [arn("logs", group) for group in groups])

    def test_every_role_is_assumed_by_its_service_alone(self):
        for name, resource in self.stack.template["Resources"].items():
            if resource["Type"] != "AWS::IAM::Role":
                continue
            with self.subTest(role=name):
                [statement] = resource["Properties"]["AssumeRolePolicyDocument"]["Statement"]
                [service] = as_list(statement["Principal"]["Service"])
                self.assertEqual(as_list(statement["Action"]), ["sts:AssumeRole"])
                # Lambda assumes the role of a function of this account only.
                if service != "lambda.amazonaws.com":
                    account = {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}
                    self.assertEqual(json.loads(json.dumps(statement["Condition"])), account)


class GitToken(unittest.TestCase):
    def readable(self, stack):
        statements, _ = stack.policies("TriggerRunFunctionRole")
        return {of for action, of in grants(statements) if action == "secretsmanager:GetSecretValue"}

    def test_its_secret_is_readable_where_there_is_one(self):
        secret = arn("secretsmanager", "secret:git-token-AbCdEf")
        with deployed() as plain:
            before = self.readable(plain)
        with deployed({"GitTokenSecret": secret}) as stack:
            after = self.readable(stack)
        self.assertEqual(len(before), 1)
        self.assertEqual(after - before, {secret})


class Builds(unittest.TestCase):
    """What builds may do beside what every build does, by the deployments that the documents describe."""

    @classmethod
    def setUpClass(cls):
        cls.parameters = examples()
        cls.always = cls.of(cls, {})

    def of(self, parameters):
        with deployed(parameters) as stack:
            statements, managed = stack.policies("BuildRole")
        assert managed == set()
        return set(grants(statements))

    def more(self, example):
        return self.of(self.parameters[example]) - self.always

    def test_a_public_source_needs_nothing(self):
        for example in ["minimal", "lambda-publisher", "three-platforms", "immutable-tags", "fleet", "production"]:
            with self.subTest(example=example):
                self.assertEqual(self.more(example), set())

    def test_codecommit_is_pulled_from(self):
        self.assertEqual(self.more("codecommit"), {("codecommit:GitPull", arn("codecommit", "hello"))})

    def test_a_connection_is_used(self):
        connection = self.parameters["codeconnections"]["SourceConnection"]
        actions = ["GetConnection", "GetConnectionToken"]
        prefixes = ["codeconnections", "codestar-connections"]
        needed = {(f"{prefix}:{action}", connection) for prefix in prefixes for action in actions}
        self.assertEqual(self.more("codeconnections"), needed)

    def test_a_secret_is_read(self):
        secret = self.parameters["git-secret"]["SourceSecret"]
        self.assertEqual(self.more("git-secret"), {("secretsmanager:GetSecretValue", secret)})

    def test_a_network_is_joined(self):
        parameters = self.parameters["vpc"]
        secret = ("secretsmanager:GetSecretValue", parameters["SourceSecret"])
        granted = self.more("vpc")
        self.assertIn(secret, granted)
        # As CodeBuild's user guide has it (https://docs.aws.amazon.com/codebuild/latest/userguide/vpc-support.html).
        described = ["DhcpOptions", "NetworkInterfaces", "SecurityGroups", "Subnets", "Vpcs"]
        everywhere = {action for action, resource in granted if resource == "*"}
        self.assertEqual(everywhere, {f"ec2:Describe{what}" for what in described})
        changing = {action for action, resource in granted if resource != "*"} - {secret[0]}
        names = ["CreateNetworkInterface", "CreateNetworkInterfacePermission", "DeleteNetworkInterface"]
        self.assertEqual(changing, {f"ec2:{name}" for name in names})
        with deployed(parameters) as stack:
            statements, _ = stack.policies("BuildRole")
        [conditional] = [statement for statement in statements if "Condition" in statement]
        self.assertEqual(conditional["Action"], "ec2:CreateNetworkInterfacePermission")
        self.assertEqual(
            conditional["Condition"],
            {
                "StringEquals": {"ec2:AuthorizedService": "codebuild.amazonaws.com"},
                "ArnLike": {
                    "ec2:Subnet": [f"arn:*:ec2:*:*:subnet/{subnet}" for subnet in parameters["SubnetIds"].split(",")]
                },
            },
        )


class Repositories(unittest.TestCase):
    def test_further_repositories_are_as_good_as_the_first(self):
        with deployed({"MoreRepositories": "shop/*"}) as stack:
            roles = [name for name in stack.physical if name.endswith("Role")]
            of_roles = {role: set(grants(stack.policies(role)[0])) for role in roles}
        first, more = arn("ecr", "repository/hello"), arn("ecr", "repository/shop/*")
        pushing = []
        for role, granted in of_roles.items():
            with self.subTest(role=role):
                of_first = {action for action, resource in granted if resource == first}
                self.assertEqual(of_first, {action for action, resource in granted if resource == more})
                if "ecr:PutImage" in of_first:
                    pushing.append(role)
        self.assertEqual(set(pushing), {"BuildRole", "PublishFunctionRole", "ReconcileFunctionRole"})
        statements = [{"Effect": "Allow", "Action": action, "Resource": of} for action, of in of_roles["BuildRole"]]
        self.assertTrue(is_allowed(statements, "ecr:PutImage", arn("ecr", "repository/shop/api")))
        self.assertFalse(is_allowed(statements, "ecr:PutImage", arn("ecr", "repository/other/api")))


if __name__ == "__main__":
    unittest.main()

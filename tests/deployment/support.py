"""What the tests of the deployment share: the template as CloudFormation gets it, and a stack of it in moto.

SAM's own translator turns the template into plain CloudFormation, as AWS does when it is deployed. moto is an
implementation of AWS that is not ours; what it does not know of a stack has a stand-in here, and is listed.
"""

import ast
import contextlib
import json
import logging
import os
import warnings
from pathlib import Path

import boto3
import moto
from moto.cloudformation.parsing import parse_condition, resource_class_from_type
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "infra/template.yaml"
EXAMPLES = ROOT / "infra/examples"
DEFINITION = ROOT / "state-machine/multi-arch-build.asl.json"
STACK = "archweld"
ACCOUNT = "123456789012"
REGION = "us-east-1"
BUCKET = "artifacts"

os.environ |= {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": REGION,
}


# What moto cannot make is listed by a test.
for noisy in ["moto", "samtranslator.metrics.metrics"]:
    logging.getLogger(noisy).setLevel(logging.ERROR)


class ManagedPolicies:
    """The policies of AWS's that the translator gives to roles, by their names."""

    def load(self):
        names = ["service-role/AWSLambdaBasicExecutionRole", "AWSXrayWriteOnlyAccess"]
        return {name.rsplit("/", 1)[-1]: f"arn:aws:iam::aws:policy/{name}" for name in names}


def read_template():
    """The template as it is written."""
    return yaml_parse(TEMPLATE.read_text())


def translated(parameters=None):
    """The template in plain CloudFormation, with its artifacts where `sam package` would put them."""
    template = read_template()
    for resource in template["Resources"].values():
        match resource["Type"]:
            case "AWS::Serverless::Function":
                resource["Properties"]["CodeUri"] = f"s3://{BUCKET}/function.zip"
            case "AWS::Serverless::LayerVersion":
                resource["Properties"]["ContentUri"] = f"s3://{BUCKET}/layer.zip"
            case "AWS::Serverless::StateMachine":
                resource["Properties"]["DefinitionUri"] = {"Bucket": BUCKET, "Key": DEFINITION.name}
    return transform(template, dict(parameters or {}), ManagedPolicies())


def examples():
    """The parameters of each deployment that the documents describe, by its name."""
    return {path.parent.name: read_parameters(path) for path in sorted(EXAMPLES.glob("*/parameters.yaml"))}


def read_parameters(path):
    """Each in text, as CloudFormation takes them."""
    return {name: str(value) for name, value in yaml_parse(path.read_text()).items()}


def values_of(template, parameters):
    """The values of a template's parameters: those given, or else the defaults."""
    declared = template["Parameters"]
    values = {name: str(each.get("Default", "")) for name, each in declared.items()} | dict(parameters or {})
    for name, each in declared.items():
        if each["Type"] == "CommaDelimitedList":
            values[name] = values[name].split(",")
    return values


def conditions(template, parameters):
    """What each condition says, by moto's evaluation."""
    values = values_of(template, parameters)

    class Lazily(dict):
        def __missing__(self, name):
            return parse_condition(template["Conditions"][name], values, self)

    lazily = Lazily()
    return {name: lazily[name] for name in template["Conditions"]}


def broken_rules(template, parameters):
    """What the template's own rules have against these parameters, in their words."""
    values = values_of(template, parameters)
    return [
        assertion["AssertDescription"]
        for rule in template["Rules"].values()
        if parse_condition(rule["RuleCondition"], values, {})
        for assertion in rule["Assertions"]
        if not parse_condition(assertion["Assert"], values, {})
    ]


NO_VALUE = {"Ref": "AWS::NoValue"}


def settled(value, holds):
    """The same with the branch of every `Fn::If` that is taken. moto leaves gaps where lists have none."""
    match value:
        case {"Fn::If": [condition, then, otherwise]}:
            return settled(then if holds[condition] else otherwise, holds)
        case dict() if value != NO_VALUE:
            entries = {key: settled(each, holds) for key, each in value.items()}
            return {key: each for key, each in entries.items() if each != NO_VALUE}
        case list():
            return [each for each in (settled(each, holds) for each in value) if each != NO_VALUE]
        case _:
            return value


def of_condition(section, holds):
    """The entries of a section whose conditions hold, settled."""
    return {name: settled(each, holds) for name, each in section.items() if holds.get(each.get("Condition"), True)}


def arn(service, resource):
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{resource}"


def stand_in(logical_id, resource):
    """What `Ref` and attributes of a resource give that moto cannot make; named as the local cloud does."""
    match resource["Type"]:
        case "AWS::CodeBuild::Project":
            name = resource["Properties"]["Name"]["Fn::Sub"].replace("${AWS::StackName}", STACK)
            return {"Ref": name, "Arn": arn("codebuild", f"project/{name}")}
        case "AWS::SecretsManager::Secret":
            return {"Ref": arn("secretsmanager", f"secret:{STACK}-{logical_id}-000000")}
        case "AWS::Lambda::Url":
            return {"FunctionUrl": f"https://{logical_id.lower()}.lambda-url.{REGION}.on.aws/"}
        case _:
            return {}


def with_stand_ins(value, stand_ins):
    """The same with every reference to a resource that has a stand-in replaced."""
    match value:
        case {"Ref": name} if name in stand_ins:
            return stand_ins[name]["Ref"]
        case {"Fn::GetAtt": [name, attribute]} if name in stand_ins:
            return stand_ins[name][attribute]
        case {"Fn::Sub": str(text)}:
            for name, known in stand_ins.items():
                for attribute, text_of in known.items():
                    place = name if attribute == "Ref" else f"{name}.{attribute}"
                    text = text.replace(f"${{{place}}}", text_of)
            return {"Fn::Sub": text}
        case dict():
            return {key: with_stand_ins(each, stand_ins) for key, each in value.items()}
        case list():
            return [with_stand_ins(each, stand_ins) for each in value]
        case _:
            return value


class Deployed:
    """A stack in moto."""

    def __init__(self, template, unsupported):
        # As it was deployed: with no conditions left.
        self.template = template
        # The logical names of what moto cannot make, with their types.
        self.unsupported = unsupported
        resources = boto3.client("cloudformation").describe_stack_resources(StackName=STACK)
        self.physical = {
            each["LogicalResourceId"]: each.get("PhysicalResourceId") for each in resources["StackResources"]
        }

    def policies(self, role):
        """The statements of a role's own policies, and the ARNs of those of AWS's, by its logical name."""
        iam, name = boto3.client("iam"), self.physical[role]
        statements = []
        for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
            document = iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
            # moto keeps the policies of a stack as Python prints them.
            statements += ast.literal_eval(document)["Statement"]
        managed = self.template["Resources"][role]["Properties"].get("ManagedPolicyArns", [])
        return statements, set(managed)


@contextlib.contextmanager
def deployed(parameters=None):
    """A stack of the template with these parameters."""
    template = translated(parameters)
    holds = conditions(template, parameters)
    template |= {section: of_condition(template[section], holds) for section in ("Resources", "Outputs")}
    template.pop("Conditions")
    unsupported = {
        name: resource["Type"]
        for name, resource in template["Resources"].items()
        if resource_class_from_type(resource["Type"]) is None
    }
    stand_ins = {name: stand_in(name, template["Resources"][name]) for name in unsupported}
    with moto.mock_aws(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket=BUCKET)
        for key, body in [
            ("function.zip", b"a function"),
            ("layer.zip", b"a layer"),
            (DEFINITION.name, DEFINITION.read_bytes()),
        ]:
            s3.put_object(Bucket=BUCKET, Key=key, Body=body)
        supported = {
            name: with_stand_ins(resource, stand_ins)
            for name, resource in template["Resources"].items()
            if name not in unsupported
        }
        for resource in supported.values():
            # moto reads no definition from S3, and substitutes nothing in it.
            if resource["Type"] == "AWS::StepFunctions::StateMachine":
                substitutions = resource["Properties"]["DefinitionSubstitutions"]
                definition = {"Fn::Sub": [DEFINITION.read_text(), substitutions]}
                resource["Properties"] = dict(resource["Properties"], DefinitionString=definition)
        body = template | {
            "Resources": supported,
            "Outputs": with_stand_ins(template["Outputs"], stand_ins),
        }
        boto3.client("cloudformation").create_stack(
            StackName=STACK,
            TemplateBody=json.dumps(body),
            Capabilities=["CAPABILITY_IAM"],
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in (parameters or {}).items()],
        )
        yield Deployed(template, unsupported)

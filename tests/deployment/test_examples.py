"""The deployments that docs/operations.md describes: the template takes them, and cfn-lint finds nothing."""

import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from support import EXAMPLES, ROOT, broken_rules, examples, read_template

CFN_LINT = Path(sys.executable).with_name("cfn-lint")
OPERATIONS = ROOT / "docs/operations.md"


def with_defaults(parameters):
    """The template with these values as its defaults: cfn-lint resolves no others."""
    template = read_template()
    for name, value in parameters.items():
        parameter = template["Parameters"][name]
        parameter["Default"] = int(value) if parameter["Type"] == "Number" else value
    if "VpcId" in parameters:
        # What it ignores is about a network that is not named.
        del template["Metadata"]["cfn-lint"]
    return template


def cfn_lint(named):
    """What cfn-lint says of the template with each of several sets of parameters."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{name}.json") for name in named]
        for path, parameters in zip(paths, named.values(), strict=True):
            path.write_text(json.dumps(with_defaults(parameters)))
        done = subprocess.run([CFN_LINT, *paths], capture_output=True, text=True)
    return done.stdout + done.stderr


class Examples(unittest.TestCase):
    def test_cfn_lint_finds_nothing(self):
        self.assertEqual(cfn_lint(examples()), "")

    def test_cfn_lint_looks_at_the_parameters(self):
        network = examples()["vpc"] | {"SubnetIds": "nonsense"}
        self.assertIn("'nonsense' is not a 'AWS::EC2::Subnet.Id'", cfn_lint({"network": network}))

    def test_archweld_validates_them(self):
        for name, parameters in examples().items():
            with self.subTest(example=name):
                given = [
                    argument for key, value in parameters.items() for argument in ("--parameter", f"{key}={value}")
                ]
                config = EXAMPLES / name / "archweld.toml"
                command = [os.environ["ARCHWELD"], "validate", "--config", config, *given]
                done = subprocess.run(command, capture_output=True, text=True)
                self.assertEqual(done.returncode, 0, done.stderr)

    def test_a_repository_that_no_parameter_names_is_an_error(self):
        config = EXAMPLES / "several-images/archweld.toml"
        command = [os.environ["ARCHWELD"], "validate", "--config", config, "--parameter", "RepositoryName=shop/web"]
        done = subprocess.run(command, capture_output=True, text=True)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("repository shop/api is not in the template", done.stderr)

    def test_the_rules_of_the_template_have_nothing_against_them(self):
        for name, parameters in examples().items():
            with self.subTest(example=name):
                self.assertEqual(broken_rules(read_template(), parameters), [])

    def test_parameters_are_declared_and_as_their_patterns_say(self):
        declared = read_template()["Parameters"]
        for name, parameters in examples().items():
            for key, value in parameters.items():
                with self.subTest(example=name, parameter=key):
                    parameter = declared[key]
                    self.assertIn(value, [str(each) for each in parameter.get("AllowedValues", [value])])
                    values = value.split(",") if parameter["Type"] == "CommaDelimitedList" else [value]
                    for each in values:
                        self.assertRegex(each, f"^(?:{parameter.get('AllowedPattern', '.*')})$")

    def test_every_parameter_is_explained_and_in_a_group(self):
        template = read_template()
        groups = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
        grouped = [name for group in groups for name in group["Parameters"]]
        self.assertEqual(sorted(grouped), sorted(template["Parameters"]))
        for name, parameter in template["Parameters"].items():
            with self.subTest(parameter=name):
                self.assertIn("Default", parameter)
                self.assertTrue(parameter["Description"].endswith("."))
                if "AllowedPattern" in parameter:
                    self.assertTrue(parameter["ConstraintDescription"])

    def test_every_parameter_is_used_by_some_example_or_has_a_default_that_suits_all(self):
        used = {key for parameters in examples().values() for key in parameters}
        defaults = {"X86Image", "ArmImage", "NightlyWindowMinutes"}
        self.assertEqual(set(read_template()["Parameters"]) - used, defaults)

    def test_the_document_and_the_folders_name_the_same(self):
        named = set(re.findall(r"infra/examples/([\w-]+)", OPERATIONS.read_text()))
        self.assertEqual(named, set(examples()))
        for name in named:
            self.assertTrue((EXAMPLES / name / "archweld.toml").exists(), name)


class Refused(unittest.TestCase):
    def test_what_does_not_go_together(self):
        secret = examples()["git-secret"]["SourceSecret"]
        for example, more, said in [
            ("codecommit", {"SourceSecret": secret}, "CodeCommit is reached with the build's role"),
            ("codeconnections", {"SourceSecret": secret}, "not both"),
            ("vpc", {"SubnetIds": ""}, "A VPC needs SubnetIds"),
            ("vpc", {"SecurityGroupIds": ""}, "A VPC needs SubnetIds"),
            ("fleet", examples()["vpc"], "A fleet has a network of its own"),
        ]:
            with self.subTest(example=example, more=more):
                [found] = broken_rules(read_template(), examples()[example] | more)
                self.assertIn(said, found)

    def test_values_that_no_pattern_takes(self):
        declared = read_template()["Parameters"]
        for name, value in [
            ("MoreRepositories", "*"),
            ("MoreRepositories", "/x*"),
            ("MoreRepositories", "shop*"),
            ("SourceLocation", "http://github.com/team/hello.git"),
            ("SourceLocation", "https://user:password@github.com/team/hello.git"),
            ("SourceConnection", "arn:aws:codeconnections:us-east-1:123456789012:connection/*"),
            ("SourceSecret", "arn:aws:secretsmanager:us-east-1:123456789012:secret:*"),
            ("SubnetIds", "subnet-0, subnet-1"),
            ("X86Fleet", "fleet"),
            ("NotificationEmail", "nobody"),
        ]:
            with self.subTest(parameter=name, value=value):
                self.assertNotRegex(value, f"^(?:{declared[name]['AllowedPattern']})$")


if __name__ == "__main__":
    unittest.main()

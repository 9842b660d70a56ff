"""What the clients' tests know of the cloud that `tests/tests/clients.rs` started for them.

The execution `published` has published image `hello` for every platform. From then on builds for
linux/arm64 go on until they are stopped, so that an execution runs for as long as a test wants.
"""

import base64
import json
import os
import time
import urllib.error
import urllib.request

STATE_MACHINE = os.environ["STATE_MACHINE"]
PLAN_BUILD = os.environ["PLAN_BUILD_FUNCTION"]
ENDPOINT = os.environ["AWS_ENDPOINT_URL"]

PLATFORMS = ["linux/amd64", "linux/arm64"]
PROJECTS = ["archweld-amd64", "archweld-arm64", "archweld-manifest"]
# An input whose execution ends by itself, and one whose execution has to be stopped.
ENDS = json.dumps({"platforms": ["linux/amd64"]})
GOES_ON = "{}"

SECONDS_MAX = 60


def execution(name):
    """The ARN of an execution, whether there is such a one or not."""
    return f"{STATE_MACHINE.replace(':stateMachine:', ':execution:')}:{name}"


def plan_request(**given):
    """What the state machine sends to plan-build."""
    by = {"arn": execution("by-hand"), "name": "by-hand", "start_time": "2026-11-23T10:00:00.000Z"}
    return json.dumps({"input": given, "execution": by})


def wait_until(condition, what):
    """Waits for a condition's value to be true and returns it."""
    deadline = time.monotonic() + SECONDS_MAX
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {SECONDS_MAX} s: {what}")
        time.sleep(0.05)
    return value


def log_in(user, password):
    """The status that the registry answers to a login, which is what `docker login` does."""
    credential = base64.b64encode(f"{user}:{password}".encode()).decode()
    return registry_status(f"Basic {credential}")


def registry_status(authorization=None):
    headers = {"Authorization": authorization} if authorization else {}
    request = urllib.request.Request(f"{ENDPOINT}/v2/", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS_MAX) as response:
            return response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code

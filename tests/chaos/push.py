"""A build of the chaos tests: pushes an image, or an index of images, with nothing but Python.

Usage: push.py image|index
"""

import hashlib
import io
import json
import os
import sys
import tarfile
import time
import urllib.error
import urllib.request
from urllib.parse import urljoin

ENDPOINT = os.environ["AWS_ENDPOINT_URL"]
REPOSITORY = os.environ["IMAGE_REPO_NAME"]
TAG = os.environ["IMAGE_TAG"]
RUN = os.environ["ARCHWELD_RUN"]
OCI = "application/vnd.oci.image"
# The machine that a program is for, by architecture: https://gabi.xinuos.com/elf/02-eheader.html
MACHINES = {"amd64": 62, "arm64": 183}
# A layer takes this many requests and seconds, so that much can happen in the middle of it.
PIECES = 4
LAYER_SECONDS = float(os.environ.get("CHAOS_LAYER_SECONDS", "0.8"))
LAYER_BYTES = int(os.environ.get("CHAOS_LAYER_BYTES", "200000"))


def request(method, path, body=b"", **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(urljoin(ENDPOINT, path), body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        sys.exit(f"{method} {path}: {error.code} {error.read().decode()}")
    except OSError as error:
        sys.exit(f"{method} {path}: {error}")


def authorization():
    _, answer = request(
        "POST",
        "/",
        b"{}",
        X_Amz_Target="AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken",
        Content_Type="application/x-amz-json-1.1",
    )
    return "Basic " + json.loads(answer)["authorizationData"][0]["authorizationToken"]


def digest_of(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def put_blob(content, media_type, login, pieces=1):
    headers, _ = request("POST", f"/v2/{REPOSITORY}/blobs/uploads/", Authorization=login)
    size = -(-len(content) // pieces)
    for start in range(0, len(content), size):
        piece = content[start : start + size]
        headers, _ = request(
            "PATCH",
            headers["Location"],
            piece,
            Authorization=login,
            Content_Type="application/octet-stream",
            Content_Range=f"{start}-{start + len(piece) - 1}",
        )
        if pieces > 1:
            time.sleep(LAYER_SECONDS / pieces)
    digest = digest_of(content)
    request("PUT", f"{headers['Location']}?digest={digest}", Authorization=login)
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def put_manifest(manifest, login):
    content = json.dumps(manifest).encode()
    path = f"/v2/{REPOSITORY}/manifests/{TAG}"
    request("PUT", path, content, Authorization=login, Content_Type=manifest["mediaType"])
    print(f"pushed {REPOSITORY}:{TAG}", digest_of(content))


def layer(architecture):
    """A program, which is the whole of the image, and some content of this run's own."""
    program = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + b"\x02\0"
    program = (program + MACHINES[architecture].to_bytes(2, "little")).ljust(64, b"\0")
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, mode, data in [("app", 0o755, program), ("noise", 0o644, os.urandom(LAYER_BYTES))]:
            file = tarfile.TarInfo(name)
            file.mode, file.size = mode, len(data)
            archive.addfile(file, io.BytesIO(data))
    return content.getvalue()


def image():
    system, architecture = os.environ["IMAGE_PLATFORM"].split("/")
    login = authorization()
    config = {
        "os": system,
        "architecture": architecture,
        "config": {"Entrypoint": ["/app"], "Labels": {"run": RUN}},
        "rootfs": {"type": "layers", "diff_ids": []},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "layers": [put_blob(layer(architecture), f"{OCI}.layer.v1.tar+gzip", login, PIECES)],
        "config": put_blob(json.dumps(config).encode(), f"{OCI}.config.v1+json", login),
    }
    put_manifest(manifest, login)


def index():
    login = authorization()
    manifests = []
    for source in os.environ["IMAGE_SOURCES"].split():
        platform, digest = source.split("=")
        system, architecture = platform.split("/")
        headers, content = request(
            "GET", f"/v2/{REPOSITORY}/manifests/{digest}", None, Accept=f"{OCI}.manifest.v1+json"
        )
        manifests.append(
            {
                "mediaType": headers["Content-Type"],
                "digest": digest,
                "size": len(content),
                "platform": {"os": system, "architecture": architecture},
            }
        )
    put_manifest({"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": manifests}, login)


{"image": image, "index": index}[sys.argv[1]]()

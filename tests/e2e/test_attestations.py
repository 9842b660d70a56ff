"""Attestations that BuildKit makes of an image's provenance stay with the image, in one flat index."""

import contextlib
import json
import os
import platform
import subprocess
import unittest

from support import PLATFORMS, ROOT, SETTLE_SECONDS_MAX, EndToEnd, command, digest_of, wait_until

ENGINE_SECONDS_MAX = 30
IS_DEBIAN = platform.freedesktop_os_release()["ID"] == "debian"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
REFERENCE = "vnd.docker.reference."

# No step runs, so that the engine needs neither a network nor emulation.
DOCKERFILE = """\
FROM scratch
ARG TARGETARCH
COPY busybox-${TARGETARCH} /bin/busybox
ENTRYPOINT ["/bin/busybox", "true"]
"""
BUILDSPEC = r"""
version: 0.2
env:
  exported-variables: [IMAGE_DIGEST]
phases:
  install:
    commands:
      - mkdir -p ~/.docker/cli-plugins
      - ln -s "$(command -v docker-buildx)" ~/.docker/cli-plugins/
  pre_build:
    commands:
      - aws ecr get-login-password | docker login --username AWS --password-stdin "$IMAGE_REGISTRY"
  build:
    commands:
      - >-
        docker buildx build --provenance=true --platform "$IMAGE_PLATFORM" --metadata-file metadata.json
        --push --tag "$IMAGE_REGISTRY/$IMAGE_REPO_NAME:$IMAGE_TAG" .
      - |
        IMAGE_DIGEST=$(sed -n 's/.*"containerimage.digest": "\([^"]*\)".*/\1/p' metadata.json)
"""


class Attestations(EndToEnd):
    @contextlib.contextmanager
    def engine(self):
        """An engine that keeps attestations, with buildx: the environment of its clients."""
        programs = command(ROOT / "scripts" / "buildx").stdout.strip()
        environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
        # A socket's path may have 107 bytes.
        run = self.folder / "engine"
        socket = f"unix://{run}/socket"
        run.mkdir()
        (run / "daemon.json").write_text(
            json.dumps(
                {
                    "hosts": [socket],
                    "data-root": f"{run}/data",
                    "exec-root": f"{run}/run",
                    "pidfile": f"{run}/pid",
                    "bridge": "none",
                    "iptables": False,
                    "ip6tables": False,
                    "features": {"containerd-snapshotter": True},
                }
            )
        )
        with (run / "log").open("wb") as log:
            engine = subprocess.Popen(
                ["dockerd", "--config-file", run / "daemon.json"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        environment["DOCKER_HOST"] = socket

        def answers():
            self.assertIsNone(engine.poll(), (run / "log").read_text())
            return command("docker", "version", check=False, env=environment).returncode == 0

        try:
            wait_until(answers, "the engine answers", ENGINE_SECONDS_MAX)
            yield environment
        finally:
            engine.terminate()
            engine.wait(SETTLE_SECONDS_MAX)

    def programs(self, project):
        """Each platform's busybox, out of the base images."""
        for image, architecture in (("amd64/busybox:stable", "amd64"), ("arm64v8/busybox:stable", "arm64")):
            container = command("docker", "create", image).stdout.strip()
            command("docker", "cp", f"{container}:/bin/busybox", project / f"busybox-{architecture}")
            command("docker", "rm", container)
        self.commit(project)

    @unittest.skipUnless(IS_DEBIAN and os.geteuid() == 0, "its engine needs Debian and root")
    def test_provenance_stays_with_its_image(self):
        project = self.project(Dockerfile=DOCKERFILE, buildspec_yml=BUILDSPEC)
        self.programs(project)
        with self.engine() as environment:
            summary, _ = self.publish(project, "--publisher", "lambda", env=environment)
        self.assertEqual(summary["media_type"], OCI_INDEX)
        images = {image["platform"]: image["digest"] for image in summary["platforms"]}
        self.assertEqual(list(images), list(PLATFORMS))

        with self.up(project) as cloud:
            repository = f"{cloud.registry}/hello"
            raw = cloud.raw(f"{repository}:latest")
            self.assertEqual(digest_of(raw), summary["digest"])
            entries = json.loads(raw)["manifests"]
            self.assertEqual([entry["digest"] for entry in entries[:2]], list(images.values()))
            attestations = entries[2:]
            for entry, image in zip(attestations, images.values(), strict=True):
                self.assertEqual((entry["platform"]["os"], entry["platform"]["architecture"]), ("unknown", "unknown"))
                annotations = {name.removeprefix(REFERENCE): value for name, value in entry["annotations"].items()}
                self.assertEqual(annotations, {"type": "attestation-manifest", "digest": image})
                manifest = json.loads(cloud.raw(f"{repository}@{entry['digest']}"))
                (layer,) = manifest["layers"]
                predicate = layer["annotations"]["in-toto.io/predicate-type"]
                self.assertTrue(predicate.startswith("https://slsa.dev/provenance/"), predicate)

            # What was pushed for each platform is an index of the image and its attestation.
            tags = cloud.tags()
            pairs = zip(images.values(), attestations, strict=True)
            for architecture, (image, attestation) in zip(("amd64", "arm64v8"), pairs, strict=True):
                tag = f"{summary['run']}-{architecture}"
                pushed = json.loads(cloud.raw(f"{repository}@{tags[tag]}"))
                digests = [entry["digest"] for entry in pushed["manifests"]]
                self.assertEqual(digests, [image, attestation["digest"]])

            # Clients that know nothing of attestations take the index as any other.
            inspected = command("docker", "manifest", "inspect", "--insecure", f"{repository}:latest").stdout
            self.assertEqual(
                [entry["digest"] for entry in json.loads(inspected)["manifests"]][:2], list(images.values())
            )
            self.addCleanup(command, "docker", "image", "rm", "--force", f"{repository}:latest")
            for name in PLATFORMS:
                command("docker", "pull", "--platform", name, f"{repository}:latest")
                command("docker", "run", "--rm", "--platform", name, f"{repository}:latest")

            copy = self.folder / "copy"
            command("skopeo", "copy", "--all", "--src-tls-verify=false", f"docker://{repository}:latest", f"dir:{copy}")
            self.assertEqual((copy / "manifest.json").read_text(), raw)

        again, reports = self.publish(project, "--publisher", "lambda")
        self.assertEqual(again["digest"], summary["digest"])
        self.assertNotIn("build", {report["type"] for report in reports})


if __name__ == "__main__":
    unittest.main()

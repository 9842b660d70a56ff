"""From a push to an image, with real git, real builds and nobody at the keyboard."""

import json
import subprocess

from support import ARCHWELD, EndToEnd, command, wait_until


class Triggers(EndToEnd):
    def push(self, project, cloud, ref="main"):
        """Pushes to the git remote; gives what the remote said."""
        url = f"{cloud.endpoint}/git/{project.name}.git"
        return command("git", "-C", project, "push", url, ref).stderr

    def executions(self, cloud):
        """The executions, the newest first."""
        listed = cloud.client("stepfunctions").list_executions(stateMachineArn=cloud.state_machine)
        return listed["executions"]

    def over(self, cloud, number):
        """The executions, once there are that many and all are over."""

        def ended():
            found = self.executions(cloud)
            is_over = len(found) == number and all(one["status"] != "RUNNING" for one in found)
            return found if is_over else None

        return wait_until(ended, f"{number} executions are over")

    def test_a_push_publishes_an_image_and_tells_who_pushed(self):
        project = self.project()
        with self.up(project) as cloud:
            said = self.push(project, cloud)
            self.assertIn("remote: ", said)
            self.assertIn("started", said)
            [execution] = self.over(cloud, 1)
            self.assertEqual(execution["status"], "SUCCEEDED", execution)
            commit = command("git", "-C", project, "rev-parse", "HEAD").stdout.strip()
            tags = cloud.tags()
            self.assertEqual(tags["latest"], tags[commit[:7]])
            pulled = command("docker", "run", "--rm", f"{cloud.registry}/hello:{commit[:7]}")
            self.assertTrue(pulled.stdout, pulled)
            command("docker", "image", "rm", f"{cloud.registry}/hello:{commit[:7]}")

            self.commit(project, Dockerfile=(project / "Dockerfile").read_text() + "# skipped\n")
            git = ("git", "-C", project, "-c", "user.name=e2e", "-c", "user.email=e2e@example.com")
            command(*git, "commit", "--quiet", "--amend", "--message=again [skip archweld]")
            self.assertIn("skip", self.push(project, cloud))
            self.assertEqual(len(self.executions(cloud)), 1)

    def test_of_two_quick_pushes_the_newer_is_published_and_the_older_ones_builds_are_stopped(self):
        project = self.project()
        buildspec = (project / "buildspec.yml").read_text()
        slow = "    commands:\n      - if grep --quiet slow Dockerfile; then sleep 600; fi\n"
        dockerfile = (project / "Dockerfile").read_text()
        slowly = buildspec.replace("    commands:\n", slow, 1)
        self.assertNotEqual(slowly, buildspec)
        self.commit(project, buildspec_yml=slowly, Dockerfile=dockerfile + "# slow\n")
        with self.up(project) as cloud:
            self.push(project, cloud)
            builds = cloud.client("codebuild")

            def statuses():
                ids = builds.list_builds()["ids"]
                described = builds.batch_get_builds(ids=ids)["builds"] if ids else []
                return sorted(build["buildStatus"] for build in described)

            wait_until(lambda: statuses() == ["IN_PROGRESS"] * 2, "two slow builds run")
            newer = self.commit(project, Dockerfile=dockerfile + "# quick\n")
            said = self.push(project, cloud)
            self.assertIn("superseded", said)
            ended = {one["status"] for one in self.over(cloud, 2)}
            self.assertEqual(ended, {"ABORTED", "SUCCEEDED"})
            tags = cloud.tags()
            self.assertEqual(tags["latest"], tags[newer])
            expected = ["STOPPED"] * 2 + ["SUCCEEDED"] * 3
            wait_until(lambda: statuses() == expected, f"{expected} and not {statuses()}")

    def test_a_delivery_sent_ten_times_at_once_starts_one_execution(self):
        project = self.project()
        with self.up(project) as cloud:
            self.push(project, cloud)
            self.over(cloud, 1)
            commit = command("git", "-C", project, "rev-parse", "HEAD").stdout.strip()
            location = f"{cloud.endpoint}/git/{project.name}.git"
            payload = self.folder / "payload.json"
            head = {
                "id": commit,
                "timestamp": "2026-11-23T10:00:00Z",
                "message": "by hand",
                "added": [],
                "removed": [],
                "modified": ["Dockerfile"],
            }
            payload.write_text(
                json.dumps(
                    {
                        "ref": "refs/heads/main",
                        "before": commit[::-1],
                        "after": commit,
                        "created": False,
                        "deleted": False,
                        "forced": False,
                        "repository": {
                            "full_name": "archweld/project",
                            "clone_url": location,
                            "pushed_at": 1_795_428_000,
                        },
                        "pusher": {"name": "e2e"},
                        "head_commit": head,
                        "commits": [head],
                    }
                )
            )
            port = cloud.endpoint.rpartition(":")[2]
            send = [ARCHWELD, "trigger", "--provider", "github", "--payload", payload, "--port", port]
            sent = [
                subprocess.Popen([*send, "--delivery", "one"], stdout=subprocess.PIPE, text=True) for _ in range(10)
            ]
            answers = [json.loads(process.communicate()[0]) for process in sent]
            self.assertTrue(all(process.returncode == 0 for process in sent), answers)
            self.assertEqual(len(self.over(cloud, 2)), 2, answers)

            secret = self.folder / "secret"
            secret.write_text("a guess")
            refused = command(*send, "--secret-file", secret, check=False)
            self.assertEqual(refused.returncode, 1, refused)
            self.assertEqual(len(self.executions(cloud)), 2)

    def test_names_that_try_to_break_out_are_harmless(self):
        project = self.project()
        config = (project / "archweld.toml").read_text()
        config = config.replace('tags = ["', 'refs = ["*"]\ntags = ["b-{branch}", "', 1)
        self.commit(project, archweld_toml=config)
        with self.up(project) as cloud:
            for number, branch in enumerate(("$(touch${IFS}broken-out)", "`touch${IFS}broken-out`", "größe/日本"), 1):
                said = self.push(project, cloud, f"main:refs/heads/{branch}")
                self.assertIn("started", said)
                found = self.over(cloud, number)
                self.assertEqual({one["status"] for one in found}, {"SUCCEEDED"}, found)
                for one in found:
                    self.assertRegex(one["name"], r"\A[A-Za-z0-9._-]{1,80}\Z")
            for folder in (self.folder, self.state):
                self.assertEqual(list(folder.rglob("*broken-out")), [])

"""The files for CI systems: their form is checked by those systems' own schemas, and their shell is run for real."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from incomingd.client.bundle import bundle
from tests.support import packages
from tests.support.apt import Apt
from tests.support.instance import Instance
from tests.support.keys import Keys
from tests.support.sshd import Sshd, sshd

FOLDER = Path(__file__).parents[2] / "conf/ci"
SYSTEMS = ("gitlab", "github", "jenkins")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd") / "sshd") as one:
        yield one


@pytest.mark.parametrize(
    ("file", "schema"),
    [("gitlab-ci.yml", "vendor.gitlab-ci"), ("github-actions.yml", "vendor.github-workflows")],
)
def test_their_systems_know_every_word(file: str, schema: str) -> None:
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, FOLDER / file]
    done = subprocess.run(checker, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


class Job:
    """One run of a job: a home, a checkout with one package, and what the system sets for it."""

    def __init__(self, folder: Path, server: Sshd, keys: Keys, key: str, incoming: Path, number: int) -> None:
        self.folder = folder
        folder.mkdir()
        self.home = Path(tempfile.mkdtemp(prefix="incomingd-ci-"))  # short, for the socket of gpg's agent
        (folder / "ci").mkdir()
        (folder / "ci/incomingctl-submit").write_bytes(bundle())
        packages.binary(folder, f"job-{number}", "1.0-1", "amd64")
        (folder / "signing.asc").write_bytes(keys.gpg("--armor", "--export-secret-keys", key))
        self.files = {
            "SSH_KEY": server.folder / "id",
            "SSH_KNOWN_HOSTS": server.folder / "known_hosts",
            "SIGNING_KEY": folder / "signing.asc",
            "INCOMINGCTL_SUBMIT": folder / "ci/incomingctl-submit",
        }
        self.variables = {"SUITE": "stable", "SSH_PORT": str(server.port)}
        self.incoming = incoming
        self.number = str(number)

    def command(self, system: str) -> tuple[list[str], dict[str, str]]:
        """What is run, and its environment, as ``system`` does."""
        files = {name: str(path) for name, path in self.files.items()}
        own: dict[str, str]
        if system == "gitlab":
            job: dict[str, Any] = yaml.safe_load((FOLDER / "gitlab-ci.yml").read_text())["publish"]
            lines = [*job["before_script"], *job["script"]]
            assert [line for line in lines if line.startswith("apt-get")] == lines[:2]
            script = "\n".join(["set -eo pipefail", *lines[2:]])
            own = {**files, "INCOMING": f"root@127.0.0.1:{self.incoming}", "CI_JOB_ID": self.number}
            shell = ["bash", "-c", script]
        elif system == "github":
            steps = yaml.safe_load((FOLDER / "github-actions.yml").read_text())["jobs"]["publish"]["steps"]
            step = next(one for one in steps if one.get("name") == "Publish")
            texts = {name: path.read_text() for name, path in self.files.items() if name in step["env"]}
            own = {**texts, "INCOMING": f"root@127.0.0.1:{self.incoming}"}
            assert set(step["env"]) == {*own, *self.variables}
            own |= {"GITHUB_RUN_ID": self.number, "GITHUB_RUN_ATTEMPT": "1"}
            # As the runner calls it where the step names it.
            assert step["shell"] == "bash"
            shell = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", step["run"]]
        else:
            [script] = re.findall(r"sh '''(.*?)'''", (FOLDER / "Jenkinsfile").read_text(), re.DOTALL)
            own = {**files, "SSH_USER": "root", "HOST": "127.0.0.1", "INCOMING": str(self.incoming)}
            own |= {"BUILD_NUMBER": self.number}
            shell = ["sh", "-xe", "-c", script.replace("\\\\", "\\")]
        kept = {"PATH": "/usr/bin:/bin", "HOME": str(self.home), "LC_ALL": "C.UTF-8"}
        return shell, {**kept, **self.variables, **own}

    def start(self, system: str) -> subprocess.Popen[str]:
        """Run it."""
        command, environment = self.command(system)
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def close(self) -> None:
        """End its agent."""
        subprocess.run(["gpgconf", "--kill", "all"], env={**os.environ, "HOME": str(self.home)}, check=False)
        shutil.rmtree(self.home, ignore_errors=True)


@pytest.mark.parametrize("system", SYSTEMS)
def test_jobs_at_the_same_time_publish_what_they_have_built(
    system: str, instance: Instance, server: Sshd, keys: Keys, tmp_path: Path
) -> None:
    key = keys.make(f"{system} key")
    assert instance.ctl("trust", keys.public(key)).returncode == 0
    jobs = [Job(tmp_path / f"{number}", server, keys, key, instance.incoming, number) for number in (1, 2, 3)]
    running = [job.start(system) for job in jobs]
    try:
        for process in running:
            said, _ = process.communicate(timeout=120)
            assert process.returncode == 0, said
            assert f"{system}-" in said
            assert "SUCCEEDED: published in stable generation" in said
    finally:
        for process in running:
            process.kill()
        for job in jobs:
            job.close()
    apt = Apt(tmp_path / "apt", instance.archive.as_uri(), instance.keyring)
    apt.update()
    assert [apt.candidate(f"job-{number}") for number in (1, 2, 3)] == ["1.0-1"] * 3


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_job_fails_if_its_upload_does(
    system: str, instance: Instance, server: Sshd, keys: Keys, tmp_path: Path
) -> None:
    key = keys.make(f"{system} stranger")  # whom the archive does not trust
    job = Job(tmp_path / "job", server, keys, key, instance.incoming, 7)
    try:
        process = job.start(system)
        said, _ = process.communicate(timeout=120)
    finally:
        job.close()
    assert process.returncode == 1, said
    assert "FAILED" in said
    assert "[unknown-key]" in said


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_job_that_is_run_again_succeeds_again(
    system: str, instance: Instance, server: Sshd, keys: Keys, tmp_path: Path
) -> None:
    key = keys.make(f"{system} again")
    assert instance.ctl("trust", keys.public(key)).returncode == 0
    job = Job(tmp_path / "job", server, keys, key, instance.incoming, 1)
    try:
        for number in ("1", "2"):  # each of these systems gives the second run another number
            job.number = number
            process = job.start(system)
            said, _ = process.communicate(timeout=120)
            assert process.returncode == 0, said
            assert "SUCCEEDED" in said
    finally:
        job.close()


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_job_sends_nothing_to_a_host_with_another_key(
    system: str, instance: Instance, server: Sshd, keys: Keys, tmp_path: Path
) -> None:
    key = keys.make(f"{system} misled")
    assert instance.ctl("trust", keys.public(key)).returncode == 0
    job = Job(tmp_path / "job", server, keys, key, instance.incoming, 1)
    job.files["SSH_KNOWN_HOSTS"] = tmp_path / "known_hosts"
    kind, other = (server.folder / "id.pub").read_text().split()[:2]
    job.files["SSH_KNOWN_HOSTS"].write_text(f"[127.0.0.1]:{server.port} {kind} {other}\n")
    try:
        process = job.start(system)
        said, _ = process.communicate(timeout=120)
    finally:
        job.close()
    assert process.returncode == 5, said
    assert "Host key verification failed" in said
    assert list(instance.incoming.iterdir()) == []


SECRETS = {
    "gitlab": {"INCOMING", "SUITE", "SSH_KEY", "SSH_KNOWN_HOSTS", "SIGNING_KEY", "INCOMINGCTL_SUBMIT"},
    "github": {"INCOMING", "SUITE", "SSH_KEY", "SSH_KNOWN_HOSTS", "SIGNING_KEY"},
    "jenkins": {"incomingd-ssh", "incomingd-hosts", "incomingd-signing", "HOST", "INCOMING", "SUITE"},
}


def test_the_page_says_what_each_of_them_needs() -> None:
    page = (FOLDER.parents[1] / "docs/clients.md").read_text()
    files = {"gitlab": "gitlab-ci.yml", "github": "github-actions.yml", "jenkins": "Jenkinsfile"}
    assert sorted(files.values()) == sorted(file.name for file in FOLDER.iterdir())
    for system, file in files.items():
        row = next(line for line in page.splitlines() if f"conf/ci/{file}" in line)
        assert set(re.findall(r"`([^`]+)`", row)) == SECRETS[system]
        comment = (FOLDER / file).read_text()
        assert [name for name in SECRETS[system] if name not in comment] == []

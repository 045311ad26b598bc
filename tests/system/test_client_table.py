"""Every row of the table in docs/clients.md, typed as it stands there, with the real client; apt is the witness.

Those of dput and dput-ng are in ``test_dput.py``.
"""

import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.apt import Apt, served
from tests.support.client_docs import Row, ci_job, making_out, rows, table
from tests.support.clients import DEVSCRIPTS, Home
from tests.support.instance import BIN, Instance, until
from tests.support.sshd import Sshd, sshd
from tests.support.uploads import Builder, Upload

#: Clients whose rows say what is typed.
TYPED = ("mv", "incomingctl", "rsync", "scp", "sftp", "curl")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd") / "sshd") as one:
        yield one


@pytest.fixture
def apt(instance: Instance, tmp_path: Path) -> Iterator[Apt]:
    with served(instance.archive) as address:
        yield Apt(tmp_path / "apt", address, instance.keyring)


@pytest.fixture
def home(tmp_path: Path, builder: Builder, server: Sshd) -> Home:
    return Home(tmp_path / "home", builder.keys.home, server)


def typed(row: Row, instance: Instance, server: Sshd) -> list[str]:
    """The commands, for this machine."""
    # curl does not read ssh_config(5), where the others find the port.
    host = f"root@127.0.0.1:{server.port}" if row.client == "curl" else "root@127.0.0.1"
    there = {"HOST": host, "IN": str(instance.incoming)}
    return [re.sub(r"\b(HOST|IN)\b", lambda word: there[word[0]], line) for line in row.typed]


def name_of(row: Row, upload: Upload, said: str) -> str:
    return {"the .changes": upload.flat_name, "printed": said.partition(":")[0]}.get(row.name, row.name)


def test_no_row_is_without_a_test() -> None:
    assert {row.client for row in table()} == {*TYPED, "dput", "dput-ng"}


@pytest.mark.parametrize("row", [row for client in TYPED for row in rows(client)], ids=str)
def test_what_is_typed(
    instance: Instance, builder: Builder, home: Home, server: Sshd, apt: Apt, tmp_path: Path, row: Row
) -> None:
    upload = builder.upload("hello", "1.0-1", source="quilt", buildinfo=True)
    upload.folder.rename(home.folder / "out")
    lines = typed(row, instance, server)
    if row.client == "sftp":
        batch = tmp_path / "batch"
        batch.write_text("".join(f"{line}\n" for line in lines))
        done = home.run("sftp", "-b", batch, "root@127.0.0.1")
    else:
        done = home.run("sh", "-c", " && ".join(lines))
    assert done.returncode == 0, done.stdout + done.stderr
    found = instance.succeeded(name_of(row, upload, done.stdout))
    assert found["warnings"] == []
    apt.update()
    assert apt.download("hello") == ["hello_1.0-1_amd64.deb"]
    assert "hello_1.0-1.debian.tar.xz" in apt.source("hello")
    assert list(instance.incoming.iterdir()) == []


def test_the_readme_and_a_directory_of_ones_own(
    instance: Instance, builder: Builder, home: Home, server: Sshd, apt: Apt, tmp_path: Path
) -> None:
    """A build leaves more than one upload, and an upload has more than what is called as its source is."""
    if not DEVSCRIPTS.exists():
        pytest.skip("devscripts is not unpacked")
    upload = builder.upload("hello", "2.10-3", source="quilt", binaries=["hello", "libhello1"], buildinfo=True)
    (home.folder / "work").mkdir()
    wanted = {file.name for file in upload.files}
    for file in (*upload.files, *builder.upload("hello", "1.0-1", source="quilt").files):
        file.rename(home.folder / file.name)
    out = home.run("sh", "-ec", making_out().replace("1.0-1", "2.10-3"), folder=home.folder / "work")
    assert out.returncode == 0, out.stderr
    assert {file.name for file in (home.folder / "work/out").iterdir()} == wanted
    job = ci_job().replace("apt@repo", "root@127.0.0.1").replace("/srv/apt/incoming ", f"{instance.incoming} ")
    job = job.replace(" incomingctl --config /srv/apt/incomingd.toml", f" {BIN}/incomingctl --config {instance.config}")
    done = home.run("sh", "-exc", f"ID=7\n{job}", folder=home.folder / "work")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "job-7: SUCCEEDED" in done.stdout
    apt.update()
    assert "hello_2.10.orig.tar.gz" in apt.source("hello")


@pytest.mark.parametrize("row", [row for row in rows("rsync") if row.mode.endswith("again after a cut")], ids=str)
def test_an_rsync_that_is_cut_and_run_again(
    instance: Instance, builder: Builder, home: Home, server: Sshd, row: Row
) -> None:
    """What came of the .deb lies under its own name then, and the .changes may be there before it."""
    upload = builder.upload("hello", "1.0-1", content=random.Random(1).randbytes(1 << 20).hex())
    deb, there = upload.file("*.deb"), instance.incoming / row.name
    upload.folder.rename(home.folder / "out")
    size = (home.folder / "out" / deb.name).stat().st_size
    (line,) = typed(row, instance, server)
    slowly = line.replace("rsync ", "exec rsync --bwlimit=256 ", 1)
    first = subprocess.Popen(["sh", "-c", slowly], env=home.environment, cwd=home.folder, stderr=subprocess.DEVNULL)
    until(lambda: any(file.stat().st_size > 100_000 for file in there.glob("*hello*.deb*")), "a part of it")
    first.terminate()
    assert first.wait() != 0
    until((there / deb.name).exists, "the part under the name of the whole")
    assert (there / deb.name).stat().st_size < size
    assert instance.status(row.name)["stage"] == "receiving"  # type: ignore[index]
    done = home.run("sh", "-c", line)
    assert done.returncode == 0, done.stderr
    assert instance.succeeded(row.name)["warnings"] == []

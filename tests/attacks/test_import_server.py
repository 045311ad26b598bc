"""``import --from-repo`` from a server, or through a man in the middle, that does what it likes.

What it cannot do is sign. All of it is refused with a sentence, in bounded time and room, and nothing is left behind.
"""

import lzma
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import packages
from tests.support.instance import BIN, Instance, until
from tests.support.keys import Keys
from tests.support.repository import Answer, Repository, Server, days, rfc2822, serving, stanza, trick_for

MIB = 1 << 20


@pytest.fixture
def key(keys: Keys) -> str:
    return keys.make("Owner")


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    """No daemon runs: what is asked for waits."""
    made = Instance(tmp_path / "instance", options=("--suite", "stable", "--suite", "unstable"))
    yield made
    made.close()


@pytest.fixture
def repository(tmp_path: Path, keys: Keys, key: str) -> Repository:
    """Two packages in stable, and a risky one in unstable, all signed by the same key."""
    made = Repository(tmp_path / "theirs", keys, key)
    (made.root / "pool").mkdir()
    debs = [packages.binary(made.root / "pool", name, "1.0-1") for name in ("hello", "other")]
    risky = packages.binary(made.root / "pool", "hello", "9.0-1")
    made.publish(*map(made.stanza, debs), Acquire_By_Hash="no")
    made.publish(made.stanza(risky), folder="unstable")
    return made


@pytest.fixture
def server(repository: Repository) -> Iterator[Server]:
    with serving(repository.root) as made:
        yield made


class Import:
    """The command, and what it leaves."""

    def __init__(self, instance: Instance, repository: Repository, base: str) -> None:
        self._instance, self._repository, self.base = instance, repository, base

    def command(self, *words: str) -> list[str | Path]:
        where = ("--from-repo", self.base, "--keyring", self._repository.public)
        return [BIN / "incomingctl", "--config", self._instance.config, "import", "--suite", "stable", *where, *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*words, "--no-wait"), capture_output=True, text=True, timeout=120)

    def asked_for(self, *words: str) -> str:
        """It must be in the queue now: the request's name."""
        done = self.run(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.splitlines()[-1].partition(":")[0]

    def refused(self, *words: str, code: int = 2) -> str:
        """It must have been refused, and nothing left: what was said."""
        done = self.run(*words)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert self.left() == []
        return done.stdout + done.stderr

    def left(self) -> list[str]:
        """All that lies below state/imports."""
        folder = self._instance.state / "imports"
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))

    def packages_in(self, name: str) -> int:
        """How many packages wait in an import that was asked for."""
        return len(list((self._instance.state / "imports" / name).rglob("*.deb")))


@pytest.fixture
def over_http(instance: Instance, repository: Repository, server: Server) -> Import:
    return Import(instance, repository, server.url)


@pytest.fixture
def from_folder(instance: Instance, repository: Repository) -> Import:
    return Import(instance, repository, str(repository.root))


def test_an_honest_server_is_read(over_http: Import, instance: Instance, server: Server) -> None:
    name = over_http.asked_for()
    assert over_http.packages_in(name) == 2
    assert "/dists/stable/main/binary-amd64/Packages.xz" in server.asked
    with instance:
        instance.succeeded(name)


@pytest.mark.parametrize("form", ["{}", "file://{}", "file:{}"])
def test_an_honest_folder_is_read(from_folder: Import, form: str) -> None:
    from_folder.base = form.format(from_folder.base)
    assert from_folder.packages_in(from_folder.asked_for()) == 2


# -- another suite, an older one --------------------------------------------------------------------------------------


def test_another_suites_release_is_not_taken_for_the_one_that_was_asked_for(over_http: Import, server: Server) -> None:
    server.trick = lambda answer: answer.file(answer.path.replace("dists/stable", "dists/unstable"))
    said = over_http.refused()
    assert 'its Release is that of Suite "unstable" and Codename "unstable", and "stable" was asked for' in said


def test_a_suite_may_be_asked_for_by_its_codename(over_http: Import, repository: Repository) -> None:
    hello = repository.root / "pool/hello_1.0-1_amd64.deb"
    repository.publish(repository.stanza(hello), folder="bookworm", Suite="oldstable")
    assert over_http.packages_in(over_http.asked_for("--from-suite", "bookworm")) == 1


@pytest.mark.parametrize("said", ["any", None])
def test_a_suite_that_is_called_otherwise_has_to_be_named(
    over_http: Import, repository: Repository, said: str | None
) -> None:
    hello = repository.root / "pool/hello_1.0-1_amd64.deb"
    repository.publish(repository.stanza(hello), folder="odd", Suite=said, Codename=said)
    assert "was asked for" in over_http.refused("--from-suite", "odd")
    over_http.asked_for("--from-suite", "odd", "--release-name", said or "")


def test_a_release_of_tomorrow_is_refused(over_http: Import, repository: Repository) -> None:
    repository.publish(date=days(1.1))
    assert "its Release is dated" in over_http.refused()
    repository.publish(Date=None)
    assert 'the Date of its Release is "", which is no date' in over_http.refused()


def test_a_release_whose_time_is_over_is_refused(over_http: Import, repository: Repository) -> None:
    hello = repository.stanza(repository.root / "pool/hello_1.0-1_amd64.deb")
    repository.publish(hello, date=days(-9), Valid_Until=rfc2822(days(-2)))
    assert "its Release was valid until" in over_http.refused()
    repository.publish(hello, Valid_Until="some day")
    assert 'Valid-Until of its Release is "some day"' in over_http.refused()
    repository.publish(hello, date=days(-9), Valid_Until=rfc2822(days(-2)))
    over_http.asked_for("--ignore-valid-until")


def test_a_repository_that_was_set_back_is_told_of(over_http: Import, repository: Repository) -> None:
    hello = repository.stanza(repository.root / "pool/hello_1.0-1_amd64.deb")
    repository.publish(hello)
    assert "warning" not in over_http.run("--newest").stderr
    repository.publish(hello, date=days(-30))
    done = over_http.run()
    assert done.returncode == 0
    assert "the repository was set back, or the server answers with an old copy" in done.stderr


# -- redirects --------------------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(repository: Repository) -> Iterator[Server]:
    """Another server, with the same files."""
    with serving(repository.root) as made:
        yield made


@pytest.mark.parametrize("part", ["InRelease", "Packages", "pool/"])
def test_a_redirect_to_another_port_is_followed_only_if_it_is_allowed(
    over_http: Import, server: Server, elsewhere: Server, part: str
) -> None:
    server.trick = trick_for(part, lambda answer: answer.redirect(f"{elsewhere.url}/{answer.path}"))
    said = over_http.refused(code=1)
    assert "the server redirects to" in said
    assert "--allow-host 127.0.0.1" in said
    assert elsewhere.asked == []
    over_http.refused("--allow-host", f"127.0.0.1:{elsewhere.port + 1}", code=1)
    assert over_http.packages_in(over_http.asked_for("--allow-host", f"127.0.0.1:{elsewhere.port}")) == 2
    assert elsewhere.asked != []


def test_an_allowed_host_is_allowed_with_any_port(over_http: Import, server: Server, elsewhere: Server) -> None:
    server.trick = trick_for("pool/", lambda answer: answer.redirect(f"{elsewhere.url}/{answer.path}"))
    over_http.asked_for("--allow-host", "example.org", "--allow-host", "127.0.0.1")


def test_a_redirect_on_the_same_server_is_followed(over_http: Import, server: Server) -> None:
    def trick(answer: Answer) -> None:
        if answer.path.startswith("moved/"):
            answer.file(answer.path.removeprefix("moved/"))
        else:
            answer.redirect(f"/moved/{answer.path}")

    server.trick = trick
    over_http.asked_for()


@pytest.mark.parametrize(
    "target",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "data:text/plain,x",
        "https://127.0.0.1:{port}/x",
        "//169.254.169.254/x",
        "http://127.0.0.1:{port}@example.org/x",
        "http://example.org\\@127.0.0.1:{port}/x",
        "http://[::1/x",
        "http://127.0.0.1:99999/x",
        "http://127.0.0.1:{port}\t.example.org/x",
        "http://localhost:{port}/x",
    ],
)
def test_a_redirect_leads_to_no_other_place(over_http: Import, server: Server, target: str) -> None:
    server.trick = lambda answer: answer.redirect(target.format(port=server.port))
    said = over_http.refused(code=1)
    assert "the server redirects to" in said
    assert len(server.asked) == 1


def test_redirects_end(over_http: Import, server: Server) -> None:
    server.trick = lambda answer: answer.redirect(f"/again/{answer.path}")
    assert "redirects more than 5 times" in over_http.refused(code=1)


def test_the_body_of_a_redirect_is_not_read(over_http: Import, server: Server) -> None:
    def trick(answer: Answer) -> None:
        answer.head(302, Location=f"/again/{answer.path}")
        while server.sent < 200 * MIB:
            answer.send(bytes(1 << 16))

    server.trick = trick
    over_http.refused(code=1)
    assert server.sent < 100 * MIB


# -- too much ---------------------------------------------------------------------------------------------------------


def test_a_package_has_no_more_bytes_than_are_listed(over_http: Import, server: Server) -> None:
    server.trick = trick_for("pool/hello", Answer.endless)
    done = over_http.run()
    assert done.returncode == 1
    assert "hello_1.0-1_amd64.deb: it has more than the" in done.stdout
    assert server.sent < 32 * MIB
    # The other one is kept, so that the same import goes on from there.
    assert [name.rpartition("/")[2] for name in over_http.left() if name.endswith(".deb")] == [
        "2-other_1.0-1_amd64.deb"
    ]
    server.trick = None
    again = over_http.run()
    assert again.returncode == 0
    assert "1 of 2 packages were read before" in again.stderr


def test_a_package_whose_length_is_told_as_too_long_is_not_read_at_all(over_http: Import, server: Server) -> None:
    server.trick = trick_for("pool/", lambda answer: answer.head(200, Content_Length=str(1 << 40)))
    assert "2 of 2 packages cannot be imported" in over_http.refused(code=1)


def test_the_files_of_a_source_have_no_more_bytes_than_are_listed(
    over_http: Import, repository: Repository, server: Server
) -> None:
    files = packages.source(repository.root / "pool", "hello", "1.0-1", form="quilt")
    dsc = next(file for file in files if file.suffix == ".dsc")
    lines = "".join(f"\n {_sha256(file)} {file.stat().st_size} {file.name}" for file in files)
    source = stanza({"Package": "hello", "Version": "1.0-1", "Directory": "pool", "Checksums-Sha256": lines})
    repository.publish(files={"main/source/Sources": source})
    server.trick = trick_for(".orig.tar", Answer.endless)
    assert f"bytes that {dsc.name} lists" in over_http.refused(code=1)
    assert server.sent < 32 * MIB
    server.trick = None
    over_http.asked_for()


def _sha256(file: Path) -> str:
    return subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True).stdout.split()[0]


def test_inrelease_has_at_most_4_mib(over_http: Import, server: Server) -> None:
    server.trick = trick_for("InRelease", Answer.endless)
    assert "its InRelease has more than 4 MiB" in over_http.refused()
    assert server.sent < 32 * MIB


def test_an_index_has_no_more_bytes_than_are_listed(over_http: Import, server: Server) -> None:
    server.trick = trick_for("Packages", Answer.endless)
    assert "bytes that are listed" in over_http.refused(code=1)
    assert server.sent < 32 * MIB


def test_an_index_unpacks_to_no_more_than_is_listed(over_http: Import, repository: Repository) -> None:
    """Two kinds of bombs: one is more than Release lists unpacked, one is listed packed alone."""
    bomb = lzma.compress(bytes(256 * MIB), preset=1)
    index = "main/binary-amd64/Packages"
    repository.publish(files={f"{index}.xz": bomb}, listed={index: b"Package: hello\n"})
    assert "it unpacks to more than 15 bytes" in over_http.refused()
    repository.publish(files={f"{index}.xz": bomb})
    assert "1 of 1 packages cannot be imported" in over_http.refused(code=1)


def test_more_than_the_disk_has_is_not_begun(over_http: Import, repository: Repository, server: Server) -> None:
    repository.publish(repository.stanza(repository.root / "pool/hello_1.0-1_amd64.deb", Size=str(10**15 - 1)))
    server.asked.clear()
    assert "make room first" in over_http.refused(code=1)
    assert not any("pool" in path for path in server.asked)


# -- other bytes, or none ---------------------------------------------------------------------------------------------


def test_an_index_that_is_another_than_was_signed_for_is_refused(over_http: Import, server: Server) -> None:
    server.trick = lambda answer: answer.file(
        answer.path if "InRelease" in answer.path else answer.path.replace("stable", "unstable")
    )
    said = over_http.refused(code=1)
    assert "is not the one that InRelease lists" in said or "bytes that are listed" in said


def test_an_index_that_is_kept_back_is_missed(over_http: Import, server: Server) -> None:
    """Else a server could leave packages out, and the import would be none of its faults."""
    server.trick = trick_for("Packages", lambda answer: answer.head(404))
    assert "its Release lists main/binary-amd64/Packages.xz, and it is not there" in over_http.refused()


def test_an_index_in_one_form_is_enough(over_http: Import, server: Server) -> None:
    server.trick = trick_for("Packages.xz", lambda answer: answer.head(404))
    over_http.asked_for()


def test_indexes_are_asked_for_by_their_digest_if_release_says_so(
    over_http: Import, repository: Repository, server: Server
) -> None:
    hello = repository.stanza(repository.root / "pool/hello_1.0-1_amd64.deb")
    repository.publish(hello, Acquire_By_Hash="yes")
    over_http.asked_for()  # the server has none, and the usual name is asked for next
    assert [path.rpartition("/")[2] for path in server.asked if "/by-hash/SHA256/" in path]
    repository.publish(hello, Acquire_By_Hash="yes", files={"main/binary-amd64/Packages": hello})
    by_hash = repository.root / "dists/stable/main/binary-amd64/by-hash/SHA256"
    by_hash.mkdir(parents=True)
    shutil.move(by_hash.parents[1] / "Packages", by_hash / _sha256(by_hash.parents[1] / "Packages"))
    over_http.asked_for("--newest")


def test_a_digest_that_is_none_makes_no_path(over_http: Import, repository: Repository, keys: Keys, key: str) -> None:
    text = f"Suite: stable\nDate: {rfc2822(days(0))}\nComponents: main\nAcquire-By-Hash: yes\nSHA256:\n"
    text += " ../../../../etc/passwd 1 main/binary-amd64/Packages\n"
    (repository.root / "dists/stable/InRelease").write_bytes(keys.sign(text, key))
    assert 'is "../../../../etc/passwd 1 main/binary-amd64/Packages"' in over_http.refused()


ODD_PATHS = [
    "../../../etc/passwd.deb",
    "/etc/passwd.deb",
    "pool/../../x.deb",
    "//169.254.169.254/x.deb",
    "http://169.254.169.254/x.deb",
    "file:///etc/passwd.deb",
    "pool//x.deb",
    "pool/./x.deb",
    "pool/\x00/x.deb",
    "pool/\x1b[2J/x.deb",
    "",
]


@pytest.mark.parametrize("way", ["http", "folder"])
def test_a_listed_path_does_not_leave_the_repository(
    instance: Instance, repository: Repository, server: Server, way: str
) -> None:
    done = Import(instance, repository, server.url if way == "http" else str(repository.root))
    hello = repository.root / "pool/hello_1.0-1_amd64.deb"
    odd = [repository.stanza(hello, Package=f"odd{i}", Filename=path) for i, path in enumerate(ODD_PATHS)]
    odd.append(repository.stanza(hello, Package="sizeless", Size="much"))
    odd.append(repository.stanza(hello, Package="sumless", SHA256="0"))
    odd.append(b"this is no field\nPackage: fieldless\n")
    odd.append(b"Package: long\nDescription: " + b"x" * (2 * MIB) + b"\n")
    repository.publish(*odd, repository.stanza(hello))
    server.asked.clear()
    said = done.run()
    assert said.returncode == 1
    assert f"{len(odd)} of {len(odd) + 1} packages cannot be imported" in said.stderr
    assert said.stdout.count("[bad-index-entry]") == len(odd)
    for name in (*(f"odd{i}" for i in range(len(ODD_PATHS))), "sizeless", "sumless", "fieldless", "long"):
        assert f": {name}" in said.stdout
    assert all("passwd" not in path and "169" not in path for path in server.asked)
    assert done.packages_in(done.asked_for("--keep-going")) == 1


@pytest.mark.parametrize("other", [{"Package": "sudo"}, {"Version": "1.0-2"}], ids=["name", "version"])
def test_a_package_that_is_another_than_the_index_says_is_refused(
    from_folder: Import, repository: Repository, other: dict[str, str]
) -> None:
    """Who signed the index has vouched for another one."""
    hello = repository.root / "pool/hello_1.0-1_amd64.deb"
    repository.publish(repository.stanza(hello, **other))
    said = from_folder.run()
    assert said.returncode == 1
    wanted = f"{other.get('Package', 'hello')} {other.get('Version', '1.0-1')}"
    assert f"it is hello 1.0-1, and the index of the repository lists it as {wanted};" in said.stdout
    assert "[bad-index-entry]" in said.stdout


NO_FILE = {
    "long-folder": "pool/" + "x" * 300 + "/a_1_all.deb",
    "long-path": "pool/" + "x/" * 2040 + "a.deb",
    "long-name": "pool/" + "a" * 252 + ".deb",
    "below-a-file": "pool/other_1.0-1_amd64.deb/a_1_all.deb",
    "below-a-loop": "pool/loop/a_1_all.deb",
    "byte": "pool/a\udcf6.deb",
    "backslash": "pool/a\\xf6.deb",  # as the byte is shown
}


def test_a_listed_path_that_no_file_can_have_is_told_and_the_rest_is_read(
    from_folder: Import, repository: Repository
) -> None:
    (repository.root / "pool/loop").symlink_to("loop")
    hello = repository.root / "pool/hello_1.0-1_amd64.deb"
    odd = [repository.stanza(hello, Filename=path.encode("utf-8", "surrogateescape")) for path in NO_FILE.values()]
    repository.publish(*odd, repository.stanza(hello))
    said = from_folder.run()
    assert said.returncode == 1
    assert "Traceback" not in said.stderr
    assert f"{len(odd)} of {len(odd) + 1} packages cannot be imported" in said.stderr
    assert said.stdout.count("its path is too long for this system") == 2
    assert said.stdout.count("it is not there") == 2
    assert said.stdout.count("[bad-file-name]") == 3
    assert r"/pool/a\xf6.deb: " in said.stdout
    assert r"/pool/a\\xf6.deb: " in said.stdout
    assert from_folder.packages_in(from_folder.asked_for("--keep-going")) == 1


def test_a_name_may_be_as_long_as_a_file_system_allows(from_folder: Import, repository: Repository) -> None:
    hello = repository.root / "pool/hello_1.0-1_amd64.deb"
    long = hello.with_name("a" * 251 + ".deb")
    stanza = repository.stanza(hello, Filename=f"pool/{long.name}")
    hello.rename(long)
    repository.publish(stanza)
    assert from_folder.packages_in(from_folder.asked_for()) == 1


def test_a_path_is_asked_for_as_apt_asks_for_it(over_http: Import, repository: Repository, server: Server) -> None:
    odd = repository.root / "pool/1%3a2 #x?y"
    odd.mkdir()
    hello = shutil.move(repository.root / "pool/hello_1.0-1_amd64.deb", odd)
    repository.publish(repository.stanza(Path(hello)))
    server.trick = trick_for("pool/", lambda answer: answer.data(Path(hello).read_bytes()))
    over_http.asked_for()
    assert "/pool/1%253a2%20%23x%3Fy/hello_1.0-1_amd64.deb" in server.asked


# -- bytes that are not UTF-8 -----------------------------------------------------------------------------------------


def test_an_index_with_other_bytes_names_the_package_and_goes_on(
    instance: Instance, over_http: Import, repository: Repository
) -> None:
    """apt reads it, and so does this; the package is refused for what it says itself."""
    folder = repository.root / "pool/latin1"
    folder.mkdir()
    odd = packages.binary(folder, "latin", "1.0-1", fields={"Maintainer": "J\udcf6rg <j@example.org>"})
    sound = repository.root / "pool/hello_1.0-1_amd64.deb"
    other = repository.root / "pool/other_1.0-1_amd64.deb"
    repository.publish(
        repository.stanza(odd, Maintainer=b"J\xf6rg <j@example.org>"),
        repository.stanza(sound, Maintainer=b"J\xf6rg <j@example.org>"),
        repository.stanza(other),
    )
    done = over_http.run()
    assert done.returncode == 1
    assert "latin_1.0-1_amd64.deb: line" in done.stdout
    assert "[not-utf8]" in done.stdout
    assert "1 of 3 packages cannot be imported; nothing was changed" in done.stderr
    name = over_http.asked_for("--keep-going")
    with instance:
        instance.succeeded(name)
        listed = instance.ctl("list", "stable").stdout
    assert "hello" in listed
    assert "other" in listed
    assert "latin" not in listed


# -- a server that is slow, or goes away ------------------------------------------------------------------------------


def test_a_connection_that_ends_early_is_told_and_the_rest_is_fetched_the_next_time(
    over_http: Import, server: Server
) -> None:
    server.trick = trick_for("pool/other", lambda answer: answer.data(b"!<arch>\n", length=600))
    said = over_http.run()
    assert said.returncode == 1
    assert "the connection ended after 8 of 600 bytes; try again" in said.stderr
    server.trick = None
    assert "1 of 2 packages were read before" in over_http.run().stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("part", ["InRelease", "Packages", "pool/other"])
def test_an_import_that_is_ended_while_it_waits_leaves_what_it_has_read(
    over_http: Import, server: Server, number: int, part: str
) -> None:
    def begin_and_hang(answer: Answer) -> None:
        answer.head(200)
        answer.send(b"!<arch>\n")
        answer.hang()

    server.trick = trick_for(part, begin_and_hang)
    command = subprocess.Popen(over_http.command("--no-wait"), stderr=subprocess.PIPE, process_group=0)
    until(lambda: any(part in path for path in server.asked), "the request")
    os.kill(command.pid, number)
    _, said = command.communicate(timeout=60)
    assert command.returncode == 128 + number
    assert b"Traceback" not in said
    until(lambda: not _of_group(command.pid), "the end of its processes")
    assert [name for name in over_http.left() if "other" in name] == []
    if part != "pool/other":
        assert over_http.left() == []
    server.trick = None
    over_http.asked_for()


def _of_group(group: int) -> list[str]:
    """The processes of a group that are there still."""
    listed = subprocess.run(["ps", "-A", "-o", "pgid=,pid=,stat=,args="], capture_output=True, text=True).stdout
    return [line for line in listed.splitlines() if line.split()[0] == str(group) and line.split()[2][0] != "Z"]


def test_what_a_killed_import_has_left_is_removed_by_the_next(over_http: Import, server: Server) -> None:
    def begin_and_hang(answer: Answer) -> None:
        answer.head(200)
        answer.send(b"!<arch>\n")
        answer.hang()

    server.trick = trick_for("pool/other", begin_and_hang)
    command = subprocess.Popen(over_http.command("--no-wait"), stderr=subprocess.DEVNULL)
    until(lambda: any(name.endswith("other_1.0-1_amd64.deb") for name in over_http.left()), "the file")
    command.kill()
    command.wait()
    assert any(name.endswith("other_1.0-1_amd64.deb") for name in over_http.left())
    server.trick = lambda answer: answer.head(503, "gone")
    assert "the server says 503 gone" in over_http.refused(code=1)


def test_an_import_that_is_not_given_again_is_given_up_after_a_week(
    over_http: Import, instance: Instance, server: Server
) -> None:
    """Unless it waits for the daemon."""
    waits = over_http.asked_for()
    server.trick = trick_for("pool/hello", lambda answer: answer.head(404))
    assert over_http.run("--newest").returncode == 1
    imports = instance.state / "imports"
    (old,) = [path for path in imports.iterdir() if path.name != waits]
    for path in (*imports.iterdir(), *imports.glob("*/packages.db")):
        os.utime(path, (0, days(-8).timestamp()))
    over_http.run("--newest", "--component", "main")
    assert not old.exists()
    assert (imports / waits).exists()


# -- a folder ---------------------------------------------------------------------------------------------------------


def replace_by(path: Path, make: Callable[[Path], None]) -> None:
    path.unlink()
    make(path)


@pytest.mark.parametrize(
    "make",
    [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to(path.name)],
    ids=["fifo", "device", "loop"],
)
@pytest.mark.parametrize(
    "name", ["dists/stable/InRelease", "dists/stable/main/binary-amd64/Packages.xz", "pool/hello_1.0-1_amd64.deb"]
)
def test_a_special_file_in_a_folder_is_not_read(
    from_folder: Import, repository: Repository, name: str, make: Callable[[Path], None]
) -> None:
    replace_by(repository.root / name, make)
    done = from_folder.run()
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_link_in_a_folder_is_read_as_its_digest_says(from_folder: Import, repository: Repository) -> None:
    """aptly can make links instead of files; what lies behind has to be what was signed for."""
    hello = repository.root / "pool/hello_1.0-1_amd64.deb"
    away = hello.rename(repository.root.parent / "elsewhere.deb")
    hello.symlink_to(away)
    assert from_folder.packages_in(from_folder.asked_for()) == 2
    replace_by(hello, lambda path: path.symlink_to("/etc/passwd"))
    said = from_folder.run("--newest")
    assert said.returncode == 1
    assert "hello_1.0-1_amd64.deb" in said.stdout
    assert "root:" not in said.stdout + said.stderr


@pytest.mark.parametrize("base", ["ftp://127.0.0.1/x", "http://u:p@127.0.0.1/", "http://", "file://host/x", "copy:/x"])
def test_other_addresses_are_refused(from_folder: Import, base: str) -> None:
    from_folder.base = base
    from_folder.refused()

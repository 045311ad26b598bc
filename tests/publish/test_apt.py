"""A repository made of this room's parts alone, and the real apt as its client.

It is written here file by file, so that what fails is the bytes and not the way in which they are stored.
"""

import gzip
import hashlib
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import zstandard

from incomingd.config import PublishConfig, SuiteConfig
from incomingd.journal.generations import IndexFile
from incomingd.publish import blocks, xz
from incomingd.publish.release import release_text
from incomingd.publish.sign import Signer
from incomingd.publish.stanza import packages_stanza, sources_stanza
from tests.publish.test_stanza import binary_of, source_of

AT = datetime(2026, 1, 1, tzinfo=UTC)
FORMS = ("gz", "xz", "zst")

pytestmark = pytest.mark.skipif(not shutil.which("apt-get"), reason="apt is not installed")


def joined(form: str, chunks: list[bytes]) -> bytes:
    if form == "gz":
        return b"".join(gzip.compress(chunk, 6, mtime=0) for chunk in chunks or [b""])
    if form == "zst":
        return b"".join(zstandard.ZstdCompressor(level=9).compress(chunk) for chunk in chunks or [b""])
    return b"".join(xz.join(xz.compress(chunk) for chunk in chunks))


@dataclass
class Repository:
    """A repository on the disk with one suite. ``indexes`` are stanzas by name, by section."""

    root: Path
    signer: Signer
    indexes: dict[str, dict[str, bytes]] = field(default_factory=dict)
    forms: tuple[str, ...] = FORMS
    sha512: bool = False
    at: datetime = AT

    @property
    def dist(self) -> Path:
        return self.root / "dists/stable"

    def publish(self) -> None:
        shutil.rmtree(self.dist, ignore_errors=True)
        files = [file for section, stanzas in self.indexes.items() for file in self._section(section, stanzas)]
        suite = SuiteConfig(
            name="stable",
            suite="stable",
            codename="stable",
            origin="Example",
            label="Example",
            architectures=("amd64",),
        )
        self.at += timedelta(seconds=1)
        text = release_text(suite, files, self.at, sha512=self.sha512)
        signed = self.signer.sign(text)
        (self.dist / "Release").write_bytes(text)
        (self.dist / "InRelease").write_bytes(signed.inrelease)
        (self.dist / "Release.gpg").write_bytes(signed.release_gpg)
        (self.root / "keyring.asc").write_bytes(self.signer.export(armor=True))

    def _section(self, section: str, stanzas: dict[str, bytes]) -> Iterator[IndexFile]:
        path = f"{section}/{'Sources' if section.endswith('source') else 'Packages'}"
        chunks = [chunk.raw for chunk in blocks.cut(sorted(stanzas.items()))]
        yield self._file(path, b"".join(chunks), stored=False)
        for form in self.forms:
            content = joined(form, chunks)
            file = self._file(f"{path}.{form}", content)
            # apt asks by the strongest digest that the Release lists, and by no other.
            by_hash = f"SHA512/{file.sha512}" if self.sha512 else f"SHA256/{file.sha256}"
            for target in (file.path, f"{section}/by-hash/{by_hash}"):
                (self.dist / target).parent.mkdir(parents=True, exist_ok=True)
                (self.dist / target).write_bytes(content)
            yield file

    def _file(self, path: str, content: bytes, *, stored: bool = True) -> IndexFile:
        sha256, sha512 = hashlib.sha256(content).hexdigest(), hashlib.sha512(content).hexdigest()
        return IndexFile(path=path, size=len(content), sha256=sha256, sha512=sha512, stored=stored)

    def add(self, control: str) -> Path:
        """Build a .deb into the pool, and list it."""
        tree = self.root.parent / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text(control)
        name = control.split("Package: ", 1)[1].split("\n", 1)[0]
        pool = self.root / f"pool/main/{name[0]}/{name}"
        pool.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["dpkg-deb", "-Zgzip", "--build", tree, pool], capture_output=True, check=True, text=True)
        deb = Path(done.stdout.split("'")[-2])
        binary = binary_of(deb)
        stanza = packages_stanza(binary, str(deb.relative_to(self.root)), PublishConfig())
        self.indexes.setdefault("main/binary-amd64", {})[binary.package] = stanza
        return deb

    def fill(self, count: int) -> None:
        """List packages that are not there, for an index of many blocks."""
        index = self.indexes.setdefault("main/binary-amd64", {})
        for number in range(count):
            name = f"filler-{number:05d}"
            seed = hashlib.sha256(name.encode()).hexdigest()
            index[name] = (
                f"Package: {name}\nVersion: 1\nArchitecture: amd64\nMaintainer: M <m@example.org>\n"
                f"Filename: pool/{name}.deb\nSize: {number}\nSHA256: {seed}\nDescription: {seed * 4}\n {seed * 3}\n\n"
            ).encode()


@dataclass
class Client:
    """An apt in a private root."""

    root: Path
    deb822: str
    options: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for folder in ("state/lists/partial", "cache/archives/partial", "etc/preferences.d", "work"):
            (self.root / folder).mkdir(parents=True)
        (self.root / "state/status").write_text("")
        (self.root / "etc/example.sources").write_text(self.deb822)
        (self.root / "apt.conf").write_text(
            f'Dir::State "{self.root}/state"; Dir::State::status "{self.root}/state/status";\n'
            f'Dir::Cache "{self.root}/cache"; Dir::Etc "{self.root}/etc"; Dir::Etc::Main "/dev/null";\n'
            'Dir::Etc::Parts "/dev/null"; Dir::Etc::SourceList "/dev/null"; Dir::Etc::Trusted "/dev/null";\n'
            f'Dir::Etc::TrustedParts "/dev/null"; Dir::Etc::SourceParts "{self.root}/etc"; Dir::Log "{self.root}";\n'
            'APT::Architecture "amd64"; APT::Architectures "amd64"; APT::Sandbox::User "root";\n'
            'Acquire::Languages "none"; Acquire::Retries "0"; Debug::NoLocking "true";\n'
        )

    def run(self, *words: str) -> str:
        """Everything apt says; it must end well and warn of nothing."""
        command = ["apt-get", *(w for option in self.options for w in ("-o", option)), *words]
        environment = {**os.environ, "APT_CONFIG": str(self.root / "apt.conf"), "LC_ALL": "C.UTF-8"}
        environment.pop("http_proxy", None)
        done = subprocess.run(
            command, cwd=self.root / "work", env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "W:" not in done.stderr, done.stderr
        assert "E:" not in done.stderr, done.stderr
        return done.stdout

    def version_of(self, package: str) -> str:
        environment = {**os.environ, "APT_CONFIG": str(self.root / "apt.conf"), "LC_ALL": "C.UTF-8"}
        command = ["apt-cache", "policy", package]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.split("Candidate: ")[1].split("\n")[0] if "Candidate" in done.stdout else ""


CONTROL = """\
Package: hello-there
Version: {version}
Architecture: amd64
Maintainer: Jörg Müller <jm@example.org>
Section: utils
Priority: optional
Installed-Size: 1
Description: says hello, ünïcode
 Long text.
 .
 More of it.
"""


@pytest.fixture
def repository(tmp_path: Path, signer: Signer) -> Repository:
    one = Repository(root=tmp_path / "archive", signer=signer)
    one.root.mkdir()
    one.fill(3000)
    one.add(CONTROL.format(version="1.0"))
    one.indexes["main/source"] = {}
    one.publish()
    return one


@dataclass
class Served:
    """A repository over http, and what was asked for."""

    address: str
    asked: list[str]


@pytest.fixture
def served(repository: Repository) -> Iterator[Served]:
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_request(self, code: object = "-", size: object = "-") -> None:
            asked.append(f"{getattr(code, 'value', code)} {self.path}")

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(repository.root)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield Served(f"http://127.0.0.1:{server.server_port}", asked)
    server.shutdown()
    thread.join()
    server.server_close()


MakeClient = Callable[..., Client]


@pytest.fixture
def client(repository: Repository, tmp_path: Path) -> MakeClient:
    def make(address: str | None = None, *options: str) -> Client:
        where = address or f"file://{repository.root}"
        source = f"Types: deb deb-src\nURIs: {where}\nSuites: stable\nComponents: main\n"
        source += f"Signed-By: {repository.root}/keyring.asc\n"
        return Client(tmp_path / "client", source, list(options))

    return make


def test_the_index_has_many_blocks(repository: Repository) -> None:
    path = repository.dist / "main/binary-amd64/Packages.xz"
    listed = subprocess.run(["xz", "-l", "--robot", path], capture_output=True, text=True, check=True).stdout
    assert int(listed.split("\n")[1].split("\t")[2]) > 5
    for command in (
        ["xz", "-t", path],
        ["gzip", "-t", path.with_suffix(".gz")],
        ["zstd", "-tq", path.with_suffix(".zst")],
    ):
        subprocess.run(command, check=True)


def test_over_file(repository: Repository, client: MakeClient) -> None:
    apt = client()
    apt.run("update")
    assert apt.version_of("hello-there") == "1.0"
    assert apt.version_of("filler-02999") == "1"
    assert "hello-there" in apt.run("install", "--simulate", "hello-there")


@pytest.mark.parametrize("form", FORMS)
def test_each_form_alone_over_http(form: str, repository: Repository, served: Served, client: MakeClient) -> None:
    repository.forms = (form,)
    repository.sha512 = form == "xz"
    repository.publish()
    apt = client(served.address)
    apt.run("update")
    assert apt.version_of("filler-01234") == "1"
    apt.run("install", "--yes", "--download-only", "hello-there")
    assert [p.name for p in (apt.root / "cache/archives").glob("*.deb")] == ["hello-there_1.0_amd64.deb"]
    content = (repository.dist / f"main/binary-amd64/Packages.{form}").read_bytes()
    digest = "sha512" if repository.sha512 else "sha256"
    path = f"main/binary-amd64/by-hash/{digest.upper()}/{hashlib.new(digest, content).hexdigest()}"
    assert f"200 /dists/stable/{path}" in served.asked
    assert not any(asked.startswith("404") for asked in served.asked if "by-hash" in asked)


def test_without_by_hash(repository: Repository, served: Served, client: MakeClient) -> None:
    apt = client(served.address, "Acquire::By-Hash=no")
    apt.run("update")
    assert apt.version_of("hello-there") == "1.0"
    assert "200 /dists/stable/main/binary-amd64/Packages.xz" in served.asked


def test_release_and_its_signature_apart(repository: Repository, served: Served, client: MakeClient) -> None:
    (repository.dist / "InRelease").unlink()
    apt = client(served.address)
    apt.run("update")
    assert apt.version_of("hello-there") == "1.0"
    assert "200 /dists/stable/Release.gpg" in served.asked


def test_an_empty_suite(repository: Repository, served: Served, client: MakeClient) -> None:
    repository.indexes = {"main/binary-amd64": {}, "main/source": {}}
    repository.publish()
    client(served.address).run("update")


def test_a_new_version_and_one_that_left(repository: Repository, served: Served, client: MakeClient) -> None:
    apt = client(served.address)
    apt.run("update")
    repository.add(CONTROL.format(version="1.1"))
    del repository.indexes["main/binary-amd64"]["filler-00007"]
    repository.publish()
    later = (repository.dist / "InRelease").stat().st_mtime + 1
    os.utime(repository.dist / "InRelease", (later, later))  # a server tells new from old by whole seconds
    apt.run("update")
    assert apt.version_of("hello-there") == "1.1"
    assert apt.version_of("filler-00007") == ""
    apt.run("install", "--yes", "--download-only", "hello-there=1.1")


def make_source(root: Path) -> Path:
    tree = root.parent / "spring-1.0"
    (tree / "debian/source").mkdir(parents=True)
    (tree / "debian/source/format").write_text("3.0 (native)\n")
    (tree / "debian/rules").write_text("#!/usr/bin/make -f\n")
    (tree / "debian/control").write_text(
        "Source: spring\nMaintainer: M <m@example.org>\nStandards-Version: 4.6.2\n\n"
        "Package: spring\nArchitecture: all\nDescription: d\n"
    )
    (tree / "debian/changelog").write_text(
        "spring (1.0) stable; urgency=low\n\n  * X.\n\n -- M <m@example.org>  Mon, 23 Nov 2026 08:00:00 +0000\n"
    )
    pool = root / "pool/main/s/spring"
    pool.mkdir(parents=True)
    subprocess.run(["dpkg-source", "--build", tree], cwd=pool, capture_output=True, check=True)
    return next(pool.glob("*.dsc"))


@pytest.mark.parametrize("digests", [True, False], ids=["all digests", "SHA256 alone"])
def test_apt_source(digests: bool, repository: Repository, served: Served, client: MakeClient) -> None:
    source = source_of(make_source(repository.root), section="misc", priority="optional")
    config = PublishConfig(md5sum=digests, sha1=digests)
    repository.indexes["main/source"] = {"spring": sources_stanza(source, "pool/main/s/spring", config)}
    repository.publish()
    apt = client(served.address)
    apt.run("update")
    apt.run("source", "--download-only", "spring")
    assert sorted(p.name for p in (apt.root / "work").iterdir()) == ["spring_1.0.dsc", "spring_1.0.tar.xz"]

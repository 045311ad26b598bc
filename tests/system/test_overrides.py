"""Override files give the indexes that ``apt-ftparchive`` makes with the same files."""

import re
import subprocess
from pathlib import Path

from tests.support.instance import Instance, until
from tests.support.uploads import Builder

BINARIES = "hello important net\ngoodbye extra contrib/oldlibs\n"
SOURCES = "hello doc\n"


def places(text: str) -> dict[str, tuple[str, str]]:
    """Section and priority by package."""
    stanzas = [dict(re.findall(r"^(\w+): (.*)$", stanza, re.MULTILINE)) for stanza in text.strip().split("\n\n")]
    return {one["Package"]: (one["Section"], one["Priority"]) for one in stanzas}


def indexes(suite: Path, name: str) -> str:
    return "\n".join(
        subprocess.run(["xz", "-dc", file], check=True, capture_output=True, text=True).stdout
        for file in sorted(suite.glob(f"*/**/{name}.xz"))
        if file.parent.name in ("binary-amd64", "source")
    )


def test_as_apt_ftparchive_has_them(idle: Instance, builder: Builder, tmp_path: Path) -> None:
    (idle.root / "override").write_text(BINARIES)
    (idle.root / "override.src").write_text(SOURCES)
    idle.set("suites.stable", components=["main", "contrib"], architectures=["amd64"])
    idle.set("suites.stable", overrides="override", source_overrides="override.src")
    idle.start()
    for name in ("hello", "goodbye", "world"):
        idle.succeeded(builder.upload(name, source="quilt").send_directory(idle.incoming))
    done = idle.ctl("import", "--suite", "stable", *builder.upload("hello", "2.0-1").folder.glob("*.deb"))
    assert done.returncode == 0, done.stderr

    def ftparchive(what: str, *options: str) -> str:
        command = ["apt-ftparchive", "-q", what, *options, "pool", idle.root / "override"]
        return subprocess.run(command, cwd=idle.archive, check=True, capture_output=True, text=True).stdout

    suite = idle.archive / "dists/stable"
    assert "Version: 2.0-1" in indexes(suite, "Packages")
    found = places(indexes(suite, "Packages"))
    assert found == places(ftparchive("packages")) | {"world": found["world"]}
    assert found["goodbye"] == ("contrib/oldlibs", "extra")
    assert (idle.archive / "pool/contrib/g/goodbye").is_dir()
    ours = places(indexes(suite, "Sources"))
    theirs = ftparchive("sources", "--source-override", str(idle.root / "override.src"))
    assert "Section: doc" in theirs
    assert ours["hello"][0] == "doc"


def test_the_same_upload_again_stays_where_it_is(idle: Instance, builder: Builder) -> None:
    idle.set("suites.stable", components=["main", "contrib"], overrides="override")
    (idle.root / "override").write_text("")
    idle.start()
    upload = builder.upload("hello", source="quilt")
    idle.succeeded(upload.send_directory(idle.incoming, "first"))
    (idle.root / "override").write_text("hello optional contrib/net\n")
    assert idle.succeeded(upload.send_directory(idle.incoming, "again"))["already_published"]
    idle.succeeded(builder.upload("hello", "2.0-1").send_directory(idle.incoming))
    assert (idle.archive / "pool/contrib/h/hello/hello_2.0-1_amd64.deb").exists()


def test_uploads_wait_while_a_file_is_damaged(idle: Instance, builder: Builder) -> None:
    (idle.root / "override").write_text("hello net\n")
    idle.set("suites.stable", overrides="override")
    idle.start()
    name = builder.upload("hello").send_directory(idle.incoming)
    wanted = "a line is: package priority section"
    until(lambda: wanted in str((idle.status(name) or {}).get("log")), "the reason in its log")
    (idle.root / "override").write_text("hello optional net\n")
    idle.succeeded(name)

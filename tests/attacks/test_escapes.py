"""What an attacker writes into names and fields, to command a terminal, to turn text around, or to run in a page.

It comes in by every way that there is; then the log, the status files and what each verb prints are read.
"""

import json
import os
import pty
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench import make
from tests.support.accounts import Guarded
from tests.support.instance import BIN, until
from tests.support.keys import Keys
from tests.support.repository import Repository
from tests.support.uploads import Builder
from tests.verify.builders import ar, tar

#: Red, back to the begin of the line, rich's markup, from right to left, clear the screen in one character, a script.
EVIL = "\x1b[31m\r[/red]\u202e\u2066\x9b2J<script>alert(1)<!-- -->"
#: The same, and a line that passes for one of the daemon's.
FORGED = "FORGED: all is well"
LINES = f"{EVIL}\n{FORGED}\n"
#: The same without control characters: it passes for text.
TURNED = "\u202e\u2066<script>alert(1)<!-- -->"


@pytest.fixture
def key(keys: Keys) -> str:
    return keys.make("Alice")


@pytest.fixture
def builder(work: Path, keys: Keys, key: str) -> Builder:
    return Builder(folder=work / "built", keys=keys, key=key)


@pytest.fixture
def instance(guarded: Callable[..., Guarded], keys: Keys, key: str) -> Guarded:
    made = guarded([keys.public(key)])
    made.set("incoming.default", allow_bare_debs=True, default_suite="stable", signatures="optional")
    made.start()
    return made


def with_evil_ar_member() -> bytes:
    name = "\x1b[31m\r\u202ex".encode()
    return make.deb("attack", "1.0") + b"%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (name, 0, 0, 0, b"100644", 2) + b"xx"


def with_evil_tar_member() -> bytes:
    control = make.control("attack", "1.0").encode()
    members = tar(("control", control), (LINES, b"x"), (f"{LINES}/{EVIL}", "../.."))
    return ar([("debian-binary", b"2.0\n"), ("control.tar.gz", members), ("data.tar.gz", tar())])


def with_evil_fields(evil: str) -> bytes:
    text = make.control("attack", "1.0")
    for field in ("Section", "Priority", "Maintainer", "Depends", "Homepage", "Version"):
        text = "\n".join(f"{line} {evil}" if line.startswith(f"{field}:") else line for line in text.split("\n"))
    members = tar(("control", text.encode()))
    return ar([("debian-binary", b"2.0\n"), ("control.tar.gz", members), ("data.tar.gz", tar())])


DEBS: dict[str, Callable[[], bytes]] = {
    "a member of the ar": with_evil_ar_member,
    "a member of control.tar": with_evil_tar_member,
    "fields with control characters": lambda: with_evil_fields(EVIL),
    "fields that turn text around": lambda: with_evil_fields(TURNED),
}


def texts(value: Any) -> Iterator[str]:
    """Every text in a JSON document, names of members as well."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inside in value.items():
            yield key
            yield from texts(inside)
    elif isinstance(value, list):
        for inside in value:
            yield from texts(inside)


def assert_harmless(text: str, place: str) -> None:
    odd = sorted({c for c in text if not c.isprintable() and c != "\n"})
    assert not odd, f"{place} has {odd}: {text[:2000]!r}"
    forged = [line for line in text.split("\n") if line.lstrip().startswith(FORGED)]
    assert not forged, f"{place} has a line that an upload has written: {text[:2000]!r}"


def read_all(instance: Guarded, *names: str) -> str:
    """Look at all that the daemon tells and all that each verb prints; the text of it all."""
    told = [("the log", instance.log())]
    for file in (instance.root / "status").rglob("*.json"):
        told += [(str(file), text) for text in texts(json.loads(file.read_bytes()))]
    verbs = [["status"], ["queue"], ["list"], ["history"], ["fsck"], ["hold", LINES], ["status"], ["release"]]
    verbs += [[verb, name] for name in (*names, LINES) for verb in ("status", "show", "cancel", "retry")]
    verbs += [["wait", "--timeout", "1", name] for name in (*names, LINES)]
    for words in verbs:
        done = instance.ctl(*words)
        told.append((f"incomingctl {words}", done.stdout + done.stderr))
        assert "Traceback" not in done.stderr
    for words in ([*words, "--json"] for words in verbs if words[0] in ("status", "show", "list", "history", "queue")):
        told.append((f"incomingctl {words}", instance.ctl(*words).stdout))
    for place, text in told:
        assert_harmless(text, place)
    return "\n".join(text for _, text in told)


def with_changes(folder: Path, keys: Keys, key: str, data: bytes) -> Path:
    folder.mkdir(parents=True)
    (folder / "attack_1.0_amd64.deb").write_bytes(data)
    text = make.changes("attack", "1.0", "attack_1.0_amd64.deb", data)
    (folder / "attack_1.0_amd64.changes").write_bytes(keys.sign(text, key))
    return folder


@pytest.mark.parametrize("data", DEBS.values(), ids=DEBS)
def test_in_a_package(instance: Guarded, keys: Keys, key: str, work: Path, data: Callable[[], bytes]) -> None:
    """As an upload with a .changes, as a bare package, by submit, and by import."""
    signed = with_changes(work / "signed", keys, key, data())
    signed.rename(instance.incoming / "signed")
    bare = work / "bare"
    bare.mkdir()
    (bare / "attack_1.0_amd64.deb").write_bytes(data())
    sent = instance.ctl("submit", str(bare), "--to", str(instance.incoming), "--name", "sent", "--wait")
    assert_harmless(sent.stdout + sent.stderr, "submit")
    read = instance.ctl("import", "--suite", "stable", str(bare))
    assert_harmless(read.stdout + read.stderr, "import")
    bare.rename(instance.incoming / "bare")
    for name in ("signed", "bare"):
        until(lambda name=name: (instance.status(name) or {}).get("state", 0) >= 2, f"the end of {name}")
    assert "u202e" in read_all(instance, "signed", "bare", "sent")  # it came through, and as that


def test_in_the_text_of_a_changes(instance: Guarded, keys: Keys, key: str) -> None:
    data = make.deb("attack", "1.0")
    good = make.changes("attack", "1.0", "attack_1.0_amd64.deb", data)
    names = []
    for evil in (EVIL, TURNED):
        for number, field in enumerate(("Distribution", "Source", "Version", "Architecture", "Maintainer", "Files")):
            name = f"text-{len(evil)}-{number}"
            text = "\n".join(f"{line} {evil}" if line.startswith(f"{field}:") else line for line in good.split("\n"))
            folder = instance.root / f".{name}"
            folder.mkdir()
            (folder / "attack_1.0_amd64.deb").write_bytes(data)
            (folder / "attack_1.0_amd64.changes").write_bytes(keys.sign(text, key))
            folder.rename(instance.incoming / name)
            names.append(name)
    for name in names:
        until(lambda name=name: (instance.status(name) or {}).get("state", 0) >= 2, f"the end of {name}")
    shown = read_all(instance, *names[:2])
    assert "<script>" in shown  # text is not changed beyond what a terminal would obey


def test_in_the_names_of_files(instance: Guarded, builder: Builder) -> None:
    upload = builder.upload("hello")
    odd_name = LINES.replace("/", "")
    (upload.folder / odd_name).write_bytes(b"listed by no .changes")
    (upload.folder / f"{TURNED}.deb").write_bytes(b"neither")
    name = upload.send_directory(instance.incoming)
    flat = builder.upload("other")
    flat.send_flat(instance.incoming)
    for odd in (f"{odd_name}.changes", f"{TURNED}.commands", f"{odd_name}.deb"):
        (instance.incoming / odd).write_text(f"Uploader: {EVIL}\nCommands:\n cancel {EVIL}\nFiles:\n 0 1 - - {EVIL}\n")
    (instance.incoming / odd_name).mkdir()
    instance.wait(name)
    instance.wait(flat.flat_name)
    until(lambda: "[31m" in json.dumps(instance.index()), "a word on the odd names")
    read_all(instance, name, flat.flat_name)


def test_in_commands(instance: Guarded, keys: Keys, key: str) -> None:
    text = (
        f"Archive: {TURNED}\nUploader: Alice {TURNED} <alice@example.org>\nCommands:\n cancel {TURNED}\n rm {TURNED}\n"
    )
    (instance.incoming / "evil.commands").write_bytes(keys.sign(text, key))
    until(lambda: (instance.status("evil") or {}).get("state", 0) >= 2, "its end")
    assert "\\u2066<script>" in read_all(instance, "evil")


def test_in_a_keys_user_id(instance: Guarded, keys: Keys, builder: Builder) -> None:
    key = keys.make(f"Eve {TURNED.replace('<', '(').replace('>', ')')}\x9b2J")
    done = instance.ctl("trust", str(keys.public(key)))
    assert done.returncode == 0, done.stderr
    assert "Eve" in done.stdout
    assert_harmless(done.stdout + done.stderr, "trust")
    name = builder.upload("hello", key=key).send_directory(instance.incoming)
    instance.succeeded(name)
    read_all(instance, name)


def test_in_what_is_checked_before_a_start(guarded: Callable[..., Guarded]) -> None:
    made = guarded()
    with made.config.open("a") as file:
        file.write(f'\n[suites."{TURNED}"]\n"{TURNED}" = "{TURNED}"\n')
    done = subprocess.run(
        [BIN / "incomingd", "--config", made.config, "--check-config"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert_harmless(done.stdout + done.stderr, "--check-config")
    told = made.ctl("list")
    assert_harmless(told.stdout + told.stderr, "incomingctl")


def test_in_what_a_program_of_the_operators_prints(guarded: Callable[..., Guarded], keys: Keys, key: str) -> None:
    """It repeats what it has found in the upload, as lintian does."""
    made = guarded([keys.public(key)])
    found = made.root / "found"
    found.write_text(f"{EVIL}\n\n  {EVIL}\n")
    program = made.root / "repeats"
    program.write_text(f"#!/bin/sh\ncat {found}; cat {found} >&2; exit 1\n")
    program.chmod(0o755)
    made.set("checks.commands.repeats", command=[str(program)])
    made.start()
    data = make.deb("attack", "1.0")
    with_changes(made.root / ".one", keys, key, data).rename(made.incoming / "one")
    assert "external-check" in made.failed("one")
    program.write_text(f"#!/bin/sh\ncat {found} >&2; exit 3\n")
    with_changes(made.root / ".two", keys, key, data).rename(made.incoming / "two")
    until(lambda: "u2066" in str((made.status("two") or {}).get("log")), "what it says of its failure")
    assert "\\u2066" in read_all(made, "one", "two")


def test_in_a_repository_that_is_imported(instance: Guarded, keys: Keys, work: Path) -> None:
    theirs = Repository(work / "theirs", keys, keys.make("Them"))
    deb = theirs.root / "pool" / "attack_1.0_amd64.deb"
    deb.parent.mkdir()
    deb.write_bytes(make.deb("attack", "1.0"))
    keyring = shutil.copy(theirs.public, work / "keyring.asc")
    Path(keyring).chmod(0o644)
    where = ("--from-repo", str(theirs.root), "--keyring", keyring, "--from-suite", "stable")
    told = ""
    for fields in ({"Filename": f"{EVIL}.deb"}, {"SHA256": TURNED}):
        theirs.publish(theirs.stanza(deb, **{name: value.encode() for name, value in fields.items()}))
        done = instance.ctl("import", "--suite", "stable", *where)
        assert_harmless(done.stdout + done.stderr, f"import with {fields}")
        told += done.stdout + done.stderr
    assert told.count("u202e") == 2, told
    told = ""
    for fields in ({"Suite": TURNED, "Codename": EVIL.replace("\r", "")}, {"Date": TURNED}, {"Components": TURNED}):
        theirs.publish(theirs.stanza(deb), **fields)
        done = instance.ctl("import", "--suite", "stable", *where)
        assert_harmless(done.stdout + done.stderr, f"import with {fields}")
        told += done.stdout + done.stderr
    assert told.count("u202e") >= 2, told


def test_on_a_terminal(instance: Guarded, keys: Keys, key: str) -> None:
    """What wait shows while it waits is drawn by a library that has a markup of its own."""
    assert instance.ctl("hold", LINES).returncode == 0
    with_changes(instance.root / ".one", keys, key, make.deb("attack", "1.0")).rename(instance.incoming / "one")
    until(lambda: (instance.status("one") or {}).get("stage") == "queued", "that it waits")
    ours, theirs = pty.openpty()
    words = [BIN / "incomingctl", "--config", instance.config, "wait", "--timeout", "2", "one"]
    with subprocess.Popen(words, stdout=theirs, stderr=theirs, env=os.environ | {"TERM": "xterm"}) as waiting:
        os.close(theirs)
        shown = b""
        # The other end is gone: EIO.
        while data := _read(ours):
            shown += data
    os.close(ours)
    text = shown.decode()
    assert waiting.returncode == 3, text
    assert "[/red]" in text
    assert "Traceback" not in text
    assert not {"\u202e", "\u2066", "\x9b"} & set(text)
    assert "\x1b[31m" not in text


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:
        return b""

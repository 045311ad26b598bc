"""What was removed or superseded does not come back by a file that was signed once, however it is written."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.accounts import MALLORY, Guarded, run_as
from tests.support.keys import Keys
from tests.support.uploads import Builder, Upload

#: Other bytes with the same signed text, by the same signature.
REWRITTEN: dict[str, Callable[[bytes], bytes]] = {
    "not at all": lambda data: data,
    "one more newline": lambda data: data + b"\n",
    "an empty line before": lambda data: b"\n" + data,
    "blanks at the ends of lines": lambda data: data.replace(b"\nVersion: 1.0-1\n", b"\nVersion: 1.0-1 \t\n"),
    "a comment in the armor": lambda data: data.replace(b"SIGNATURE-----\n\n", b"SIGNATURE-----\nComment: x\n\n"),
    "no checksum in the armor": lambda data: re.sub(rb"\n=....\n", b"\n", data),
    "other lines of base64": lambda data: data.replace(b"\n=", b"\n\n="),
    "another Hash line": lambda data: data.replace(b"\nHash: ", b"\nHash: SHA384\nHash: ", 1),
}


@pytest.fixture
def builder(keys: Keys, work: Path) -> Builder:
    return Builder(folder=work / "built", keys=keys, key=keys.make("Alice"))


@pytest.fixture
def instance(guarded: Callable[..., Guarded], builder: Builder) -> Guarded:
    made = guarded([builder.keys.public(builder.key)])
    made.start()
    return made


def send(instance: Guarded, upload: Upload, name: str) -> str:
    """As another account, with the bytes that are there now."""
    sent = run_as(
        MALLORY,
        f"cp -r {upload.folder} {instance.incoming}/.{name} && mv -T {instance.incoming}/.{name} "
        f"{instance.incoming}/{name}",
    )
    assert sent.returncode == 0, sent.stderr
    return name


def rewritten(upload: Upload) -> list[bytes]:
    signed = upload.changes.read_bytes()
    made = [how(signed) for how in REWRITTEN.values()]
    assert len(set(made)) == len(made)
    return made


def test_what_was_removed_stays_removed(instance: Guarded, builder: Builder) -> None:
    upload = builder.upload("bad", "1.0-1")
    instance.succeeded(upload.send_directory(instance.incoming))
    assert instance.ctl("remove", "bad", "stable").returncode == 0
    for number, data in enumerate(rewritten(upload)):
        upload.changes.write_bytes(data)
        assert instance.failed(send(instance, upload, f"again-{number}")) == ["replayed"], data
    assert "bad" not in instance.ctl("list", "stable").stdout


def test_what_was_superseded_stays_superseded(instance: Guarded, builder: Builder) -> None:
    old, new = builder.upload("hello", "1.0-1"), builder.upload("hello", "1.0-2")
    for upload in (old, new):
        instance.succeeded(upload.send_directory(instance.incoming))
    assert instance.ctl("remove", "hello", "stable").returncode == 0  # its version no longer bars the old one
    old.changes.write_bytes(old.changes.read_bytes() + b"\n")
    assert instance.failed(send(instance, old, "again")) == ["replayed"]


def test_the_same_upload_again_is_already_published_however_it_is_written(instance: Guarded, builder: Builder) -> None:
    upload = builder.upload("hello", "1.0-1")
    instance.succeeded(upload.send_directory(instance.incoming))
    for number, data in enumerate(rewritten(upload)):
        upload.changes.write_bytes(data)
        assert instance.succeeded(send(instance, upload, f"again-{number}"))["already_published"]


def test_signed_again_it_is_no_replay(instance: Guarded, builder: Builder, keys: Keys) -> None:
    upload = builder.upload("hello", "1.0-1")
    instance.succeeded(upload.send_directory(instance.incoming))
    assert instance.ctl("remove", "hello", "stable").returncode == 0
    text = keys.gpg("--decrypt", data=upload.changes.read_bytes())
    later = "20370101T000000!"
    upload.changes.write_bytes(keys.sign(text, builder.key, at=later))
    assert instance.failed(upload.send_directory(instance.incoming, "later")) == ["future-signature"]
    # Within the same second it would be the same signature of the same text: a replay.
    time.sleep(1.1)
    upload.changes.write_bytes(keys.sign(text, builder.key))
    assert not instance.succeeded(upload.send_directory(instance.incoming, "again"))["already_published"]


def test_an_unsigned_one_is_known_by_its_text(guarded: Callable[..., Guarded], builder: Builder) -> None:
    instance = guarded(options=["--allow-unsigned"])
    instance.start()
    upload = builder.upload("hello", "1.0-1", key=None)
    instance.succeeded(upload.send_directory(instance.incoming))
    upload.changes.write_bytes(b"\n" + upload.changes.read_bytes() + b"\n")
    assert instance.succeeded(send(instance, upload, "same"))["already_published"]
    assert instance.ctl("remove", "hello", "stable").returncode == 0
    upload.changes.write_bytes(upload.changes.read_bytes() + b"\n")
    assert instance.failed(send(instance, upload, "again")) == ["replayed"]

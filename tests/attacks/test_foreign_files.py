"""Files of other accounts in an upload: a sender can move them there, or list them, and cannot read them."""

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.accounts import ALICE, DAEMON, MALLORY, Guarded, own, run_as
from tests.support.instance import until
from tests.support.keys import Keys
from tests.support.uploads import Builder, Upload

#: So long that its size in digits cannot be met by chance among the times, ids and digests that are told.
SECRET = b"Files: the root password is hunter2\n" + b"x" * 734_531
ORIG = "mallory-x_1.0.orig.tar.gz"


@pytest.fixture(params=["unit", "root"])
def instance(request: pytest.FixtureRequest, guarded: Callable[..., Guarded], builder: Builder) -> Iterator[Guarded]:
    """A running daemon: as its unit runs it, and as root."""
    made = guarded([builder.keys.public(builder.key)])
    made.set("service", scan_interval="0.3s")
    if request.param == "root":
        made.as_root()
    made.start()
    yield made
    assert made.daemon is not None
    assert made.daemon.poll() is None, made.log()


@pytest.fixture
def builder(keys: Keys, work: Path) -> Builder:
    return Builder(folder=work / "built", keys=keys, key=keys.make("Mallory"))


@pytest.fixture
def home(work: Path) -> Path:
    """Mallory's home: she can move whatever lies in it."""
    made = work / "home"
    made.mkdir()
    return own(made, MALLORY)


def secret(home: Path, uid: int = 0) -> Path:
    """A file of another account in Mallory's home, and a second name of it that she cannot reach."""
    file = home / "secret"
    file.write_bytes(SECRET)
    os.chown(file, uid, 0)
    file.chmod(0o600)
    kept = home.parent / "kept"
    kept.mkdir(mode=0o700)
    (kept / "secret").hardlink_to(file)
    return kept / "secret"


def untouched(kept: Path, uid: int = 0) -> bool:
    status = kept.stat()
    return (status.st_uid, stat.S_IMODE(status.st_mode), kept.read_bytes()) == (uid, 0o600, SECRET)


def told(instance: Guarded) -> str:
    """All that anyone is told."""
    return "".join(file.read_text() for file in (instance.root / "status").rglob("*.json")) + instance.log()


def nothing_told(instance: Guarded) -> bool:
    text = told(instance)
    digests = [hashlib.new(name, SECRET).hexdigest() for name in ("md5", "sha1", "sha256")]
    return not any(word in text for word in (*digests, str(len(SECRET)), "hunter2"))


def nothing_stored(instance: Guarded) -> bool:
    """The secret's bytes are nowhere below the instance but in incoming."""
    for place in (instance.archive, instance.state):
        for file in place.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # what was sealed is put aside after the end was told
                if file.is_file() and b"hunter2" in file.read_bytes():
                    return False
    return True


def send(upload: Upload, to: Path, uid: int = MALLORY) -> None:
    """Copy an upload's files there as that account, the .changes last."""
    shutil.chown(upload.folder, uid)
    names = [str(file) for file in upload.files if os.path.lexists(file)]
    done = run_as(uid, f"for f in {' '.join(names)}; do [ -e {to}/${{f##*/}} ] || cp $f {to}/ || exit 1; done")
    assert done.returncode == 0, done.stderr


def with_asc(builder: Builder) -> Upload:
    """A source upload whose .dsc and .changes list a signature that is not among its files."""

    def listed(text: str) -> str:
        for field, digest, more in (("Sha1", 40, ""), ("Sha256", 64, "")):
            text = text.replace(f"Checksums-{field}:\n", f"Checksums-{field}:\n {'0' * digest} 5 {ORIG}.asc{more}\n")
        columns = "utils optional " if "Distribution" in text else ""
        return text.replace("\nFiles:\n", f"\nFiles:\n {'0' * 32} 5 {columns}{ORIG}.asc\n")

    made = builder.upload("mallory-x", "1.0-1", binaries=(), source="quilt")
    dsc = made.file("*.dsc")
    files = [file for file in made.files if file.suffix != ".changes"]
    dsc.write_text(listed(builder.keys.gpg("--decrypt", dsc).decode()))
    made.changes.unlink()
    return builder.sign(made.folder, files, edit=listed)


def test_a_secret_is_renamed_into_incoming_and_listed(instance: Guarded, builder: Builder, home: Path) -> None:
    kept = secret(home)
    assert run_as(MALLORY, f"mv {home}/secret {instance.incoming}/{ORIG}.asc").returncode == 0
    upload = with_asc(builder)
    send(upload, instance.incoming)
    found = instance.wait(upload.flat_name)
    assert found["state_name"] == "FAILED"
    assert "belongs to uid 0" in str(found["problems"] + found["warnings"])
    assert (instance.incoming / f"{ORIG}.asc").samefile(kept)
    assert untouched(kept)
    assert nothing_told(instance)
    assert nothing_stored(instance)


@pytest.mark.parametrize("uid", [0, DAEMON, ALICE])
@pytest.mark.parametrize("listed", [True, False], ids=["listed", "unlisted"])
def test_a_secret_in_ones_own_directory(
    instance: Guarded, builder: Builder, home: Path, uid: int, listed: bool
) -> None:
    kept = secret(home, uid)
    upload = with_asc(builder) if listed else builder.upload("hello", "1.0-1")
    name = f"{ORIG}.asc" if listed else "notes.txt"
    run_as(MALLORY, f"mkdir {instance.incoming}/.job && mv {home}/secret {instance.incoming}/.job/{name}")
    send(upload, instance.incoming / ".job")
    run_as(MALLORY, f"mv -T {instance.incoming}/.job {instance.incoming}/job")
    assert "foreign-file" in instance.failed("job")
    until(lambda: not list((instance.state / "claims").rglob(name)), "the end of the claim")
    assert untouched(kept, uid)
    assert nothing_told(instance)
    assert nothing_stored(instance)


@pytest.mark.parametrize("ending", ["changes", "commands"])
def test_a_secret_that_is_called_as_an_upload(instance: Guarded, home: Path, ending: str) -> None:
    kept = secret(home)
    run_as(MALLORY, f"mv {home}/secret {instance.incoming}/job.{ending}")
    assert instance.failed("job") == ["unsigned"]
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert nothing_told(instance)


@pytest.mark.parametrize("ending", ["changes", "commands"])
def test_a_secret_beside_an_upload_that_is_called_as_one(
    instance: Guarded, builder: Builder, home: Path, ending: str
) -> None:
    """In the directory of an honest upload's own account, a second .changes is another account's."""
    kept = secret(home)
    run_as(MALLORY, f"mkdir {instance.incoming}/.job && mv {home}/secret {instance.incoming}/.job/a_1_all.{ending}")
    send(builder.upload("hello", "1.0-1"), instance.incoming / ".job")
    run_as(MALLORY, f"mv -T {instance.incoming}/.job {instance.incoming}/job")
    assert "foreign-file" in instance.failed("job")
    assert untouched(kept)
    assert nothing_told(instance)


def test_a_hard_link_of_anothers_file(instance: Guarded, builder: Builder, home: Path) -> None:
    upload = builder.upload("hello", "1.0-1")
    deb = upload.file("*.deb")
    os.chown(deb, ALICE, DAEMON)
    deb.chmod(0o666)  # else the kernel does not let her (fs.protected_hardlinks)
    run_as(MALLORY, f"mkdir {instance.incoming}/.job && ln {deb} {instance.incoming}/.job/")
    send(upload, instance.incoming / ".job")
    run_as(MALLORY, f"mv -T {instance.incoming}/.job {instance.incoming}/job")
    assert instance.failed("job") == ["foreign-file"]
    assert (deb.stat().st_uid, stat.S_IMODE(deb.stat().st_mode)) == (ALICE, 0o666)


def test_hard_links_of_ones_own_are_copied(instance: Guarded, builder: Builder, home: Path) -> None:
    upload = builder.upload("hello", "1.0-1")
    send(upload, home)
    run_as(MALLORY, f"mkdir {instance.incoming}/.job && ln {home}/* {instance.incoming}/.job/")
    run_as(MALLORY, f"mv -T {instance.incoming}/.job {instance.incoming}/job")
    instance.succeeded("job")
    run_as(MALLORY, f"for f in {home}/*.deb; do echo other > $f; done")
    (pooled,) = instance.archive.rglob("hello_*.deb")
    assert pooled.read_bytes() == upload.file("*.deb").read_bytes()


def test_a_deb_that_another_account_is_about_to_upload(instance: Guarded, builder: Builder) -> None:
    """It stays for its owner, whose upload is taken when it is complete."""
    theirs = builder.upload("hello", "1.0-1")
    deb = theirs.file("*.deb")
    run_as(ALICE, f"umask 077; cp {deb} {instance.incoming}/")
    mine = builder.sign(theirs.folder, [deb], edit=lambda text: text)
    run_as(MALLORY, f"cp {mine.changes} {instance.incoming}/hello_1.0-1_mallory.changes")
    found = instance.wait("hello_1.0-1_mallory")
    assert [problem["code"] for problem in found["problems"]] == ["foreign-file"]
    assert f"uid {ALICE}" in found["problems"][0]["message"]
    assert (instance.incoming / deb.name).stat().st_uid == ALICE
    run_as(ALICE, f"cp {theirs.changes} {instance.incoming}/")
    instance.succeeded(theirs.flat_name)


def test_a_file_stays_for_another_changes_of_the_same_owner_only(instance: Guarded, builder: Builder) -> None:
    upload = builder.upload("hello", "1.0-1")
    deb = upload.file("*.deb")
    waiting = f"Files:\n {'0' * 32} 1 a b {deb.name}\n {'0' * 32} 5 a b never-there.deb\n"
    (upload.folder / "waiting").write_text(waiting)
    run_as(MALLORY, f"cp {upload.folder}/waiting {instance.incoming}/greedy_1_all.changes")
    until(lambda: instance.status("greedy_1_all"), "the other .changes")
    (upload.folder / "waiting").unlink()
    send(upload, instance.incoming, ALICE)
    instance.succeeded(upload.flat_name)
    assert not (instance.incoming / deb.name).exists()


def test_a_directory_of_another_account_is_that_accounts_upload(instance: Guarded, home: Path) -> None:
    """Mallory may write in it, so that she can rename it; what it holds is Alice's."""
    theirs = home / "theirs"
    theirs.mkdir()
    (theirs / "a_1_all.changes").write_bytes(SECRET)
    (theirs / "a_1_all.changes").chmod(0o600)
    own(theirs, ALICE, 0o770)
    moved = run_as(MALLORY, f"mv -T {theirs} {instance.incoming}/job")
    assert moved.returncode == 0, moved.stderr
    assert instance.failed("job") == ["unsigned"]
    assert nothing_told(instance)


def test_a_directory_inside_that_its_sender_could_not_empty(instance: Guarded, builder: Builder, home: Path) -> None:
    upload = builder.upload("hello", "1.0-1")
    inner = home / ".job/roots"
    inner.mkdir(parents=True)
    os.chown(home / ".job", MALLORY, DAEMON)
    (inner / "precious").write_text("precious")
    send(upload, home / ".job")
    moved = run_as(MALLORY, f"mv -T {home}/.job {instance.incoming}/job")
    assert moved.returncode == 0, moved.stderr
    assert "not-regular-file" in instance.failed("job")
    until(lambda: "remove them by hand" in instance.log() or instance.index(), "its being put aside")
    assert [file.read_text() for file in instance.state.rglob("precious")] == ["precious"]


def test_root_may_send_what_several_accounts_have_built(instance: Guarded, builder: Builder) -> None:
    """No one else can write in the directory: who sends it vouches for what is in there."""
    upload = builder.upload("hello", "1.0-1")
    os.chown(upload.file("*.deb"), ALICE, DAEMON)
    os.chown(upload.changes, MALLORY, DAEMON)
    shutil.copytree(upload.folder, instance.incoming / ".job", copy_function=shutil.copy2)
    for file in upload.files:
        status = file.stat()
        os.chown(instance.incoming / ".job" / file.name, status.st_uid, status.st_gid)
    (instance.incoming / ".job").chmod(0o755)
    (instance.incoming / ".job").rename(instance.incoming / "job")
    instance.succeeded("job")


def test_no_size_is_told_of_what_is_not_complete(instance: Guarded, builder: Builder) -> None:
    upload = builder.upload("hello", "1.0-1")
    deb = upload.file("*.deb")
    run_as(MALLORY, f"cp {upload.changes} {instance.incoming}/; head -c 137 {deb} > {instance.incoming}/{deb.name}")
    waits = lambda: "does not have the size" in str(instance.status(upload.flat_name))  # noqa: E731  # said once
    until(waits, "a word about it")
    text = told(instance)
    assert "137" not in text.replace(upload.flat_name, "")
    assert f"{deb.stat().st_size}" not in text

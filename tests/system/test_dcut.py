""".commands files, as dput's dcut and dput-ng's send them: whoever sent an upload that waits can take it back."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.clients import Home
from tests.support.instance import Instance, until
from tests.support.keys import LONG_AGO, Keys
from tests.support.sshd import Sshd, sshd
from tests.support.uploads import Builder, Upload

HEAD = "Archive: archive.example.org\nUploader: Joan Builder <joan.builder@example.org>\nCommands:\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd") / "sshd") as one:
        yield one


@pytest.fixture
def home(tmp_path: Path, builder: Builder, server: Sshd) -> Home:
    return Home(tmp_path / "home", builder.keys.home, server)


@pytest.fixture(scope="module")
def other_key(keys: Keys) -> str:
    return keys.make("Mark Other", options=("--faked-system-time", LONG_AGO))


@pytest.fixture
def held(idle: Instance, keys: Keys, other_key: str) -> Instance:
    """An instance that trusts two people and holds publishing."""
    assert idle.ctl("trust", keys.public(other_key)).returncode == 0
    idle.start()
    assert idle.ctl("hold").returncode == 0
    return idle


@pytest.fixture
def waiting(held: Instance, builder: Builder) -> Upload:
    """A flat upload that was checked and waits to be published."""
    upload = builder.upload("hello", "1.0-1")
    upload.send_flat(held.incoming)
    until(lambda: stage(held, upload.flat_name) == "queued", "the queue")
    return upload


def stage(instance: Instance, name: str) -> str:
    return str((instance.status(name) or {}).get("stage"))


@pytest.fixture
def command(held: Instance, keys: Keys, builder_key: str) -> Callable[..., str]:
    """Sign commands and put them into incoming; the name of their status."""

    def send(*lines: str, key: str | None = builder_key, name: str = "", at: str = "") -> str:
        name = name or f"joan-{time.monotonic_ns()}"
        text = HEAD + "".join(f"  {line}\n" for line in lines)
        signed = text.encode() if key is None else keys.sign(text, key, at=at)
        (held.incoming / f"{name}.commands").write_bytes(signed)
        return name

    return send


def test_dcut_of_dput(held: Instance, waiting: Upload, home: Home, builder: Builder) -> None:
    settings = {"method": "local", "incoming": held.incoming, "fqdn": "localhost", "allow_dcut": 1}
    done = home.dcut("-k", builder.key, "archive", "rm", waiting.changes.name, settings=settings)
    assert done.returncode == 0, done.stdout + done.stderr
    until(lambda: stage(held, waiting.flat_name) == "cancelled", "the cancelling")


def test_dcut_of_dput_with_all_that_a_changes_lists(
    held: Instance, waiting: Upload, home: Home, builder: Builder
) -> None:
    settings = {"method": "scp", "incoming": held.incoming, "fqdn": "127.0.0.1", "login": "root", "allow_dcut": 1}
    done = home.dcut("-k", builder.key, "--host", "archive", "-i", waiting.changes, settings=settings)
    assert done.returncode == 0, done.stdout + done.stderr
    until(lambda: stage(held, waiting.flat_name) == "cancelled", "the cancelling")


@pytest.mark.parametrize("words", [("rm", "-f"), ("cancel", "-f")], ids=lambda words: words[0])
def test_dcut_of_dput_ng(
    held: Instance, waiting: Upload, home: Home, server: Sshd, builder: Builder, words: tuple[str, ...]
) -> None:
    profile = {
        "method": "sftp",
        "incoming": str(held.incoming),
        "fqdn": "127.0.0.1",
        "login": "root",
        "port": server.port,
        "scp_compress": False,
        "allow_dcut": True,
        "valid_commands": ["rm", "cancel"],
    }
    named = waiting.changes if words[0] == "rm" else waiting.changes.name
    done = home.dput_ng("dcut", "-k", builder.key, "archive", *words, named, profile=profile)
    assert done.returncode == 0, done.stdout + done.stderr
    until(lambda: stage(held, waiting.flat_name) == "cancelled", "the cancelling")

    def sent() -> list[str]:
        return [row["name"] for row in held.index()["ended"] if row["name"] != waiting.flat_name]

    (name,) = until(sent, "the commands in the index")
    assert held.succeeded(name)["published"] == {"suites": {}, "files": []}


def test_what_was_taken_back_is_not_published_and_all_else_is(
    held: Instance, waiting: Upload, command: Callable[..., str], builder: Builder
) -> None:
    other = builder.upload("world", "1.0-1")
    other.send_directory(held.incoming, "job-7")
    third = builder.upload("third", "1.0-1")
    third.send_directory(held.incoming, "job-8")
    until(lambda: stage(held, "job-7") == stage(held, "job-8") == "queued", "the queue")
    done = held.succeeded(command(f"rm {waiting.changes.name} hello_1.0-1_amd64.deb", "cancel job-7"))
    assert "cancelled" in done["log"][-1]["message"]
    until(lambda: stage(held, waiting.flat_name) == stage(held, "job-7") == "cancelled", "the cancelling")
    assert held.ctl("release").returncode == 0
    held.succeeded("job-8")
    assert not list((held.archive / "pool").rglob("hello*"))
    assert held.failed(waiting.flat_name) == ["upload-cancelled"]
    until(lambda: not list((held.state / "sealed").iterdir()), "the clearing away")
    assert list(held.incoming.iterdir()) == []
    assert held.stop() == 0
    checked = held.ctl("fsck", "--deep")
    assert checked.returncode == 0, checked.stdout


def test_what_was_taken_back_may_be_sent_again(held: Instance, waiting: Upload, command: Callable[..., str]) -> None:
    """As with debianqueued: whoever takes back what broke on its way sends the same files once more."""
    held.succeeded(command(f"cancel {waiting.changes.name}"))
    assert held.failed(waiting.flat_name) == ["upload-cancelled"]
    assert held.ctl("release").returncode == 0
    held.succeeded(waiting.send_directory(held.incoming, "again"))


def test_nobody_takes_back_what_others_sent(
    held: Instance, waiting: Upload, command: Callable[..., str], other_key: str
) -> None:
    assert held.failed(command(f"rm {waiting.changes.name}", key=other_key)) == ["commands-refused"]
    assert stage(held, waiting.flat_name) == "queued"


def test_it_is_all_or_nothing(held: Instance, waiting: Upload, command: Callable[..., str]) -> None:
    codes = held.failed(command(f"cancel {waiting.changes.name}", "cancel nothing_1.0_amd64.changes"))
    assert codes == ["commands-refused"]
    assert stage(held, waiting.flat_name) == "queued"


def test_what_was_taken_once_is_refused_also_where_it_is_wrapped_otherwise(
    held: Instance, command: Callable[..., str], builder: Builder, keys: Keys
) -> None:
    """Somebody has read it on its way, and waits for the next upload of that name."""
    upload = builder.upload("hello", "1.0-1")
    signed = keys.sign(f"{HEAD}  rm {upload.changes.name}\n", builder.key)
    (held.incoming / "first.commands").write_bytes(signed)
    assert held.failed("first") == ["commands-refused"]
    upload.send_flat(held.incoming)
    until(lambda: stage(held, upload.flat_name) == "queued", "the queue")
    otherwise = signed.replace(b"-----BEGIN PGP SIGNATURE-----\n", b"-----BEGIN PGP SIGNATURE-----\nComment: new\n")
    otherwise = otherwise.replace(b"\n  rm", b" \n  rm").replace(b".changes\n", b".changes  \n")
    for name, data in (("again", signed), ("otherwise", otherwise + b"\n")):
        (held.incoming / f"{name}.commands").write_bytes(data)
        assert held.failed(name) == ["commands-repeated"]
    assert stage(held, upload.flat_name) == "queued"


def test_an_old_signature(held: Instance, builder: Builder, command: Callable[..., str], other_key: str) -> None:
    upload = builder.upload("hello", "1.0-1", key=other_key)
    upload.send_flat(held.incoming)
    until(lambda: stage(held, upload.flat_name) == "queued", "the queue")
    yesterday = time.strftime("%Y%m%dT%H%M%S", time.gmtime(time.time() - 90_000))
    assert held.failed(command(f"rm {upload.changes.name}", key=other_key, at=yesterday)) == ["old-signature"]
    assert stage(held, upload.flat_name) == "queued"
    held.succeeded(command(f"rm {upload.changes.name}", key=other_key))


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (["reschedule hello_1.0-1_amd64.changes 3-day"], "commands-refused"),
        (["reschedule hello_1.0-1_amd64.changes 0-day"], "commands-refused"),
        (["reschedule hello_1.0-1_amd64.changes"], "commands-refused"),
        (["cancel DELAYED/3-day/hello_1.0-1_amd64.changes"], "commands-refused"),
        (["mv hello_1.0-1_amd64.changes /etc/passwd"], "commands-refused"),
        (["rm *.changes"], "commands-refused"),
        (["rm ../../state/journal.db"], "commands-refused"),
        (["rm hello_1.0-1_amd64.deb"], "commands-refused"),
        (["rm"], "commands-refused"),
        ([f"rm hello-{number}" for number in range(101)], "commands-refused"),
        ([], "missing-field"),
    ],
    ids=[
        "reschedule",
        "not delayed",
        "no day",
        "another folder",
        "mv",
        "glob",
        "path",
        "a package",
        "nothing",
        "too many",
        "none",
    ],
)
def test_what_cannot_be_asked(
    held: Instance, waiting: Upload, command: Callable[..., str], lines: list[str], code: str
) -> None:
    assert set(held.failed(command(*lines))) == {code}
    assert stage(held, waiting.flat_name) == "queued"


def test_without_a_signature_also_where_uploads_need_none(
    held: Instance, waiting: Upload, command: Callable[..., str]
) -> None:
    held.set("incoming.default", signatures="optional")
    held.reload()
    assert held.failed(command(f"rm {waiting.changes.name}", key=None)) == ["unsigned"]


def test_too_late(held: Instance, waiting: Upload, command: Callable[..., str]) -> None:
    assert held.ctl("release").returncode == 0
    held.succeeded(waiting.flat_name)
    assert held.failed(command(f"rm {waiting.changes.name}")) == ["commands-refused"]


def test_a_file_that_is_still_being_written_is_waited_for(
    held: Instance, waiting: Upload, keys: Keys, builder: Builder
) -> None:
    signed = keys.sign(f"{HEAD}  rm {waiting.changes.name}\n", builder.key)
    with (held.incoming / "slow.commands").open("wb", buffering=0) as file:
        file.write(signed[:100])
        until(lambda: stage(held, "slow") == "receiving", "it to be seen")
        file.write(signed[100:])
    held.succeeded("slow")
    until(lambda: stage(held, waiting.flat_name) == "cancelled", "the cancelling")


# -- what has not been taken yet --------------------------------------------------------------------------------------


@pytest.fixture
def broken(held: Instance, builder: Builder) -> Upload:
    """A flat upload that was cut off: its .deb is not all there."""
    upload = builder.upload("hello", "1.0-1", content="x" * 10_000)
    upload.send_flat(held.incoming)
    deb = held.incoming / upload.file("*.deb").name
    deb.write_bytes(deb.read_bytes()[:500])
    until(lambda: stage(held, upload.flat_name) == "receiving", "it to be seen")
    return upload


def test_dcut_of_dput_after_an_upload_that_broke(held: Instance, broken: Upload, home: Home, builder: Builder) -> None:
    settings = {"method": "local", "incoming": held.incoming, "fqdn": "localhost", "allow_dcut": 1}
    done = home.dcut("-k", builder.key, "--host", "archive", "-i", broken.changes, settings=settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert held.failed(broken.flat_name) == ["upload-cancelled"]
    until(lambda: not list(held.incoming.iterdir()), "an empty folder")
    assert held.ctl("release").returncode == 0
    broken.send_flat(held.incoming)  # and now the whole of it

    def newest() -> bool:
        return (held.status(broken.flat_name) or {}).get("state") == 2

    until(newest, "the second try")
    assert held.stop() == 0
    assert held.ctl("fsck", "--deep").stdout == ""


def test_nobody_takes_back_what_others_are_still_sending(
    held: Instance, broken: Upload, command: Callable[..., str], other_key: str
) -> None:
    assert held.failed(command(f"rm {broken.changes.name}", key=other_key)) == ["commands-refused"]
    assert stage(held, broken.flat_name) == "receiving"
    assert (held.incoming / broken.file("*.deb").name).stat().st_size == 500


def test_a_changes_that_is_not_vouched_for_is_nobodys(
    held: Instance, builder: Builder, command: Callable[..., str]
) -> None:
    upload = builder.upload("hello", "1.0-1", key=None)
    (held.incoming / upload.changes.name).write_bytes(upload.changes.read_bytes())
    until(lambda: stage(held, upload.flat_name) == "receiving", "it to be seen")
    assert held.failed(command(f"rm {upload.changes.name}")) == ["commands-refused"]
    assert stage(held, upload.flat_name) == "receiving"


def test_files_without_a_changes_are_nobodys(held: Instance, builder: Builder, command: Callable[..., str]) -> None:
    """dput sends its .changes last: they may belong to somebody who is still sending."""
    upload = builder.upload("hello", "1.0-1")
    deb = held.incoming / upload.file("*.deb").name
    deb.write_bytes(upload.file("*.deb").read_bytes()[:500])
    name = command(f"rm --searchdirs {upload.changes.name} {deb.name}")
    assert held.failed(name) == ["commands-refused"]
    assert deb.stat().st_size == 500


def test_a_directory_that_is_incomplete(
    held: Instance, builder: Builder, command: Callable[..., str], other_key: str
) -> None:
    """All of its .changes have to be the sender's."""
    mine, theirs = builder.upload("hello", "1.0-1"), builder.upload("world", "1.0-1", key=other_key)
    for name, uploads in (("mine", [mine]), ("mixed", [mine, theirs]), ("none", [])):
        (held.incoming / name).mkdir()
        for upload in uploads:
            (held.incoming / name / upload.changes.name).write_bytes(upload.changes.read_bytes())
    until(lambda: all(stage(held, name) == "receiving" for name in ("mine", "mixed", "none")), "them to be seen")
    held.succeeded(command("cancel mine"))
    assert held.failed("mine") == ["upload-cancelled"]
    # It is told first, and put aside after that.
    until(lambda: [path.name for path in (held.state / "rejected").rglob("*.changes")] == [mine.changes.name], "it")
    for name in ("mixed", "none"):
        assert held.failed(command(f"cancel {name}")) == ["commands-refused"]
        assert stage(held, name) == "receiving"
    assert not list((held.state / "asked-for").iterdir())


def test_one_that_only_settles(held: Instance, builder: Builder, command: Callable[..., str]) -> None:
    held.set("incoming.default", settle="1s")
    held.reload()
    until(lambda: "the new configuration is in force" in held.log(), "the reload")
    upload = builder.upload("hello", "1.0-1")
    upload.send_flat(held.incoming)
    until(lambda: stage(held, upload.flat_name) == "receiving", "it to be seen")
    held.succeeded(command(f"cancel {upload.changes.name}"))
    assert held.failed(upload.flat_name) == ["upload-cancelled"]


def test_what_came_after_the_commands_is_not_meant(
    held: Instance, waiting: Upload, command: Callable[..., str], keys: Keys, builder: Builder
) -> None:
    """The commands are seen first, and are whole last."""
    signed = keys.sign(f"{HEAD}  rm {waiting.changes.name}\n", builder.key)
    with (held.incoming / "slow.commands").open("wb", buffering=0) as file:
        file.write(signed[:100])
        until(lambda: stage(held, "slow") == "receiving", "it to be seen")
        (held.incoming / waiting.changes.name).write_bytes(waiting.changes.read_bytes())
        until(lambda: stage(held, waiting.flat_name) == "receiving", "the second of that name")
        file.write(signed[100:])
    held.succeeded("slow")
    assert stage(held, waiting.flat_name) == "receiving"

    def first() -> list[str]:
        return [row["stage"] for row in held.index()["ended"] if row["name"] == waiting.flat_name]

    assert until(first, "the first of that name in the index") == ["cancelled"]


def test_commands_are_not_sent_again_by_retry(
    held: Instance, waiting: Upload, command: Callable[..., str], other_key: str
) -> None:
    name = command(f"rm {waiting.changes.name}", key=other_key)
    held.failed(name)
    done = held.ctl("retry", name)
    assert done.returncode == 1
    assert "sign and send new ones" in done.stderr


def test_what_is_checked_again_after_a_restart_is_waited_for(
    held: Instance, waiting: Upload, command: Callable[..., str]
) -> None:
    assert held.stop() == 0
    name = command(f"rm {waiting.changes.name}")
    done = held.run("incomingd", "--once")
    assert done.returncode == 1, done.stderr  # an upload failed: the one that was taken back
    held.succeeded(name)
    assert held.failed(waiting.flat_name) == ["upload-cancelled"]


def test_a_kill_at_any_moment_obeys_once(
    held: Instance, waiting: Upload, command: Callable[..., str], builder: Builder
) -> None:
    for number, pause in enumerate((0.35, 0.4, 0.45, 0.5)):  # about when it has settled
        # Each is another file: gpg tells signatures apart by the second.
        name = command(f"rm {'--searchdirs ' * number}{waiting.changes.name}")
        time.sleep(pause)
        held.kill()
        held.start()
        codes = held.failed(name) if held.wait(name)["state"] == 3 else []
        assert codes in ([], ["commands-refused"]), codes
        assert stage(held, waiting.flat_name) == "cancelled"

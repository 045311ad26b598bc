"""incomingctl and incomingd as people and scripts call them: what they print, and what they exit with."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.instance import BIN, Instance, until
from tests.support.keys import Keys
from tests.support.uploads import Builder


def ctl(*words: str | Path, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", **({"GNUPGHOME": str(home)} if home else {})}
    command = [BIN / "incomingctl", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/", timeout=60)


# -- init -------------------------------------------------------------------------------------------------------------


def test_init_makes_a_whole_instance(tmp_path: Path) -> None:
    done = ctl("init", tmp_path / "apt", "--suite", "bookworm", "--component", "main", "--component", "contrib")
    assert done.returncode == 0, done.stderr
    for place in ("incoming", "status", "archive", "state"):
        assert (tmp_path / "apt" / place).is_dir()
        assert place == "state" or place in done.stdout or place == "status"
    assert (tmp_path / "apt/state").stat().st_mode & 0o777 == 0o700
    release = (tmp_path / "apt/archive/dists/bookworm/Release").read_text()
    assert "Components: main contrib\n" in release
    assert "BEGIN PGP PUBLIC KEY" in (tmp_path / "apt/archive/archive-keyring.asc").read_text()


def test_init_refuses_a_folder_with_an_instance(idle: Instance) -> None:
    before = idle.config.read_text()
    done = ctl("init", idle.root)
    assert (done.returncode, idle.config.read_text()) == (2, before)
    assert "holds an instance already" in done.stderr


def test_init_tells_every_fault_and_makes_nothing(tmp_path: Path) -> None:
    done = ctl("init", tmp_path / "apt", "--suite", "a b", "--arch", "any", "--component", "../x")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 3, done.stderr
    assert not (tmp_path / "apt").exists()


def test_init_signs_with_a_key_of_the_callers_own(tmp_path: Path, keys: Keys) -> None:
    key = keys.make("Archive Owner")
    done = ctl("init", tmp_path / "apt", "--signing-key", key, home=keys.home)
    assert done.returncode == 0, done.stderr
    verify = ["gpgv", "--keyring", tmp_path / "apt/archive/archive-keyring.gpg", "--status-fd", "1"]
    said = subprocess.run([*verify, tmp_path / "apt/archive/dists/stable/InRelease"], capture_output=True, text=True)
    assert f"VALIDSIG {key}" in said.stdout


def test_init_says_what_to_do_where_the_signing_key_is_not_there(tmp_path: Path, keys: Keys) -> None:
    done = ctl("init", tmp_path / "apt", "--signing-key", "A" * 40, home=keys.home)
    assert done.returncode == 4
    assert "has no secret key" in done.stderr
    assert not (tmp_path / "apt/incomingd.toml").exists()


# -- the configuration ------------------------------------------------------------------------------------------------


def test_every_error_of_the_configuration_is_told_at_once(idle: Instance) -> None:
    assert idle.run("incomingd", "--check-config").returncode == 0
    idle.set("publish", batch="many")
    idle.set("incoming.default", speed=3)
    done = idle.run("incomingd", "--check-config")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2
    for line, key in zip(sorted(done.stderr.splitlines()), ("speed", "batch"), strict=True):
        assert str(idle.config) in line
        assert key in line
    for command in (("incomingd", "--once"), ("incomingctl", "list", "stable"), ("incomingctl", "fsck")):
        assert idle.run(*command).returncode == 2
    # The status folder says by itself how uploads stand: an operator's typo takes that from nobody.
    status = idle.run("incomingctl", "status")
    assert status.returncode == 0
    assert "the status is read from" in status.stderr


def test_the_configuration_is_found_where_the_manual_says(idle: Instance) -> None:
    command = [BIN / "incomingctl", "status", "--json"]
    here = subprocess.run(command, cwd=idle.root, capture_output=True, env={})
    named = subprocess.run(command, cwd="/", capture_output=True, env={"INCOMINGD_CONFIG": str(idle.config)})
    assert here.returncode == named.returncode == 0
    nowhere = subprocess.run(command, cwd="/", capture_output=True, env={}, text=True)
    assert nowhere.returncode == 2
    assert "incomingctl init DIR" in nowhere.stderr


# -- one upload, seen from outside ------------------------------------------------------------------------------------


def test_a_ci_job_waits_for_its_upload(instance: Instance, builder: Builder) -> None:
    name = builder.upload().send_directory(instance.incoming)
    done = instance.ctl("wait", name)
    assert done.returncode == 0
    assert f"{name}: SUCCEEDED: published in stable generation 2" in done.stdout
    assert instance.ctl("status", name).returncode == 0
    (only,) = json.loads(instance.ctl("wait", name, "--json").stdout)
    assert only == json.loads(instance.ctl("status", name, "--json").stdout) == instance.status(name)


def test_a_ci_job_learns_why_its_upload_failed(instance: Instance, builder: Builder) -> None:
    good = builder.upload("good").send_directory(instance.incoming)
    bad = builder.upload("bad", key=None, distribution="nowhere").send_directory(instance.incoming)
    done = instance.ctl("wait", good, bad)
    assert done.returncode == 1
    assert f"{good}: SUCCEEDED" in done.stdout
    assert re.search(rf"^{bad}: FAILED.*\n  .*\[unsigned\]$", done.stdout, re.MULTILINE), done.stdout
    assert instance.ctl("status", bad).returncode == 1
    assert "[unsigned]" in instance.ctl("show", bad).stdout


def test_all_problems_are_told_together_wherever_one_looks(instance: Instance, builder: Builder) -> None:
    """In the status file, in the daemon's log, and by wait and show; each with what was found, expected and to do."""
    upload = builder.upload(
        "hello", fields={"Depends": "libc6 (2.36)"}, distribution="nowhere", edit=lambda text: f"Closes: soon\n{text}"
    )
    name = upload.send_directory(instance.incoming)
    assert set(instance.failed(name)) == {"bad-relation", "unknown-distribution", "bad-closes"}
    problems = (instance.status(name) or {})["problems"]
    places = (instance.log(), instance.ctl("wait", name).stdout, instance.ctl("show", name).stdout)
    for problem in problems:
        assert all(f"{problem['file']}: {problem['message']} [{problem['code']}]" in place for place in places)
    (message,) = (problem["message"] for problem in problems if problem["code"] == "unknown-distribution")
    assert message == (
        'Distribution has "nowhere", which no suite takes (stable takes stable); name one of these in the '
        "changelog, or in incomingctl submit --suite; or have the operator add the word to the suite's accepts"
    )


def test_a_verb_that_is_misspelt(instance: Instance) -> None:
    near = instance.ctl("statsu")
    assert (near.returncode, near.stdout) == (2, "")
    assert 'There is no verb "statsu". Did you mean "status"?' in near.stderr
    assert "Did you mean" not in instance.ctl("frobnicate\x1b[31m").stderr
    assert "\x1b" not in instance.ctl("frobnicate\x1b[31m").stderr


@pytest.mark.parametrize(
    ("name", "code"), [("job 1", 1), ("jöb", 1), ("index", 0), ("hello_1.0-1_amd64.changes", 0)], ids=str
)
def test_waiting_for_one_whose_name_is_odd(instance: Instance, builder: Builder, name: str, code: int) -> None:
    """Of these, none has a status file of the name that was given; all end, and must not be waited for for ever."""
    builder.upload("hello", "1.0-1").send_directory(instance.incoming, name)
    waited = instance.ctl("wait", name)
    assert waited.returncode == code, waited.stdout + waited.stderr
    assert ("[bad-upload-name]" in waited.stdout) == (code == 1)
    for verb in ("status", "show"):
        assert name in instance.ctl(verb, name).stdout
    assert "it is published already" in (late := instance.ctl("cancel", name)).stderr or code == 1, late


def test_waiting_for_what_never_comes_ends_in_time(instance: Instance) -> None:
    done = instance.ctl("wait", "nothing", "--timeout", "0.2")
    assert done.returncode == 3
    assert "nothing: unknown so far" in done.stderr
    assert instance.ctl("status", "nothing").returncode == 1


def test_the_status_of_an_older_upload_is_not_taken_for_the_new_one(idle: Instance, builder: Builder) -> None:
    first, second = builder.upload("hello", "1.0-1"), builder.upload("hello", "1.0-2")
    first.send_directory(idle.incoming, "job")
    assert idle.run("incomingd", "--once").returncode == 0
    second.send_directory(idle.incoming, "job")
    assert idle.ctl("wait", "job", "--timeout", "0.2").returncode == 3
    idle.start()
    assert idle.ctl("wait", "job").returncode == 0
    assert "1.0-2" in idle.ctl("status", "job").stdout


def test_whoever_waits_never_gets_the_answer_of_an_older_upload(instance: Instance, builder: Builder) -> None:
    versions = [f"1.{number}" for number in range(15)]
    uploads = [builder.upload("hello", version) for version in versions]
    for version, upload in zip(versions, uploads, strict=True):
        upload.send_directory(instance.incoming, "job")
        (ended,) = json.loads(instance.ctl("wait", "job", "--json").stdout)
        assert ended["changes"][0]["version"] == version


def test_a_halted_service_is_told_by_the_exit_code(idle: Instance, builder: Builder) -> None:
    idle.set("archive", signing_keys=["A" * 40])
    assert idle.run("incomingd", "--once").returncode == 4
    idle.start()
    name = builder.upload().send_directory(idle.incoming)
    done = idle.ctl("wait", name)
    assert done.returncode == 4
    assert "no usable signing key" in done.stderr
    shown = idle.ctl("status")
    assert shown.returncode == 4
    assert "halted" in shown.stdout
    assert "A" * 40 in shown.stdout


def test_once_tells_whether_something_was_rejected(idle: Instance, builder: Builder) -> None:
    assert idle.run("incomingd", "--once").returncode == 0
    builder.upload("good").send_directory(idle.incoming)
    assert idle.run("incomingd", "--once").returncode == 0
    builder.upload("bad", key=None).send_directory(idle.incoming)
    assert idle.run("incomingd", "--once").returncode == 1
    assert idle.run("incomingd", "--once").returncode == 0


def test_a_second_daemon_is_refused(instance: Instance) -> None:
    done = instance.run("incomingd")
    assert done.returncode == 4
    assert "another incomingd runs" in done.stderr


def test_a_daemon_that_died_is_told_from_one_that_was_stopped(idle: Instance) -> None:
    idle.start()
    assert idle.ctl("status").returncode == 0
    idle.kill()
    died = idle.ctl("status")
    assert (died.returncode, "died" in died.stdout) == (1, True)
    idle.start()
    assert idle.stop() == 0
    stopped = idle.ctl("status")
    assert (stopped.returncode, "stopped" in stopped.stdout) == (0, True)


# -- what is in the archive -------------------------------------------------------------------------------------------


def test_what_is_in_a_suite_and_where_it_came_from(instance: Instance, builder: Builder, builder_key: str) -> None:
    names = [builder.upload("hello", version, source="native").name for version in ("1.0", "1.1")]
    for name in names:
        (builder.folder / name).rename(instance.incoming / name)
        assert instance.ctl("wait", name).returncode == 0
    listed = json.loads(instance.ctl("list", "stable", "--json").stdout)
    assert {(one["name"], one["version"], one["architecture"]) for one in listed} == {
        ("hello", "1.1", "amd64"),
        ("hello", "1.1", "source"),
    }
    assert re.search(r"stable +main +hello +1\.1 +amd64", instance.ctl("list").stdout)
    assert instance.ctl("list", "--package", "other*").stdout == ""
    shown = instance.ctl("show", "hello").stdout
    assert f"upload {names[0]}#1, signed by {builder_key}" in shown
    assert "pool/main/h/hello/hello_1.1_amd64.deb" in shown
    history = instance.ctl("history", "stable").stdout
    assert f"hello [amd64, source]: 1.0 → 1.1  ({names[1]}#2)" in history
    entries = json.loads(instance.ctl("history", "--package", "hello", "--json").stdout)
    assert [entry["generation"] for entry in entries] == [3, 2]
    uploads = json.loads(instance.ctl("list", "--uploads", "--json").stdout)
    assert [upload["name"] for upload in uploads] == names[::-1]


def test_what_is_not_there_is_said_so(idle: Instance) -> None:
    assert idle.ctl("show", "nothing").returncode == 1
    unknown = idle.ctl("list", "sid")
    assert (unknown.returncode, "there are stable" in unknown.stderr) == (2, True)


def test_who_may_upload_is_changed_while_the_daemon_runs(instance: Instance, builder: Builder, keys: Keys) -> None:
    new = keys.make("New Packager")
    early = builder.upload("early", key=new).send_directory(instance.incoming)
    assert instance.failed(early) == ["unknown-key"]
    assert new in instance.ctl("trust", keys.public(new)).stdout
    instance.succeeded(builder.upload("timely", key=new).send_directory(instance.incoming))
    assert instance.ctl("untrust", new).returncode == 0
    late = builder.upload("late", key=new).send_directory(instance.incoming)
    assert instance.failed(late) == ["unknown-key"]
    assert instance.ctl("untrust", new).returncode == 1


def test_a_key_file_that_is_none_is_refused(idle: Instance, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("not a key")
    done = idle.ctl("trust", tmp_path / "key")
    assert done.returncode == 1
    assert "no OpenPGP public key" in done.stderr


def test_a_key_by_which_nothing_can_be_uploaded_is_told(idle: Instance, keys: Keys) -> None:
    revoked, certificate = keys.make_revoked()
    keys.revoke(certificate)
    expected = {
        keys.make_expired(): "it expired on 2020-01-02",
        revoked: "it is revoked or disabled",
        keys.make("Chief", usage="cert"): "none of its keys is one for signing",
    }
    for key, fault in expected.items():
        done = idle.ctl("trust", keys.public(key))
        assert done.returncode == 0
        assert f"trusted: {key}" in done.stdout
        assert f"warning: {key}: {fault}, so no upload" in done.stderr
        (facts,) = json.loads(idle.ctl("trust", keys.public(key), "--json").stdout)
        assert (facts["fingerprint"], facts["fault"]) == (key, fault)
    good = idle.ctl("trust", keys.public(keys.make("Good")))
    assert (good.returncode, good.stderr) == (0, "")


def test_the_archives_own_key_among_the_uploaders_is_told(tmp_path: Path, keys: Keys, idle: Instance) -> None:
    assert "warning: " in idle.ctl("trust", idle.keyring).stderr
    own = keys.make("Joan")
    done = ctl("init", tmp_path / "own", "--signing-key", own, "--trust", keys.public(own), home=keys.home)
    assert done.returncode == 0, done.stderr
    assert f"warning: {own}: it is the archive's own signing key" in done.stderr


# -- fsck -------------------------------------------------------------------------------------------------------------

DEB = "archive/pool/main/h/hello/hello_1.0-1_amd64.deb"
PACKAGES = "archive/dists/stable/main/binary-amd64/Packages.gz"


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def scribble(file: Path) -> None:
    """Behind the header of gzip, where zlib itself finds that nothing of it can be read."""
    data = file.read_bytes()
    file.write_bytes(data[:10] + b"\xff" * (len(data) - 10))


BY_HASH = "archive/dists/.generations/stable/by-hash"


def superseded(root: Path) -> Path:
    """An index that the current generation does not list any more."""
    current = [line.split() for line in (root / "archive/dists/stable/InRelease").read_text().splitlines()]
    listed = {words[0] for words in current if words[-1:] and words[-1].startswith("main/binary-amd64/")}
    return next(p for p in (root / BY_HASH).glob("main/binary-amd64/SHA256/*") if p.name not in listed)


DAMAGES = {
    "a pool file is cut": (lambda root: truncate(root / DEB), "", r"hello_1.0-1_amd64.deb: has \d+ bytes"),
    "a pool file is gone": (lambda root: (root / DEB).unlink(), "", "hello_1.0-1_amd64.deb: is missing"),
    "a bit of a pool file": (lambda root: flip(root / DEB), "--deep", "its bytes are not those"),
    "a stray in the pool": (lambda root: (root / DEB).with_name("stray").touch(), "", "stray: is in the pool and"),
    "an index is cut": (lambda root: truncate(root / PACKAGES), "", r"Packages.gz: has \d+ bytes"),
    "a bit of an index": (lambda root: flip(root / PACKAGES), "--deep", "Packages.gz: its bytes"),
    "an index of nothing known": (lambda root: scribble(root / PACKAGES), "--deep", "Packages.gz: cannot be unpacked"),
    "an index by hash is cut": (
        lambda root: truncate(next((root / BY_HASH).glob("main/source/SHA256/*"))),
        "",
        r"/by-hash/SHA256/[0-9a-f]+: has \d+ bytes",
    ),
    "a superseded index is gone": (lambda root: superseded(root).unlink(), "", "is missing, and a client"),
    "a bit of a superseded index": (lambda root: flip(superseded(root)), "--deep", "not those that were published"),
    "a stray under by-hash": (
        lambda root: (root / BY_HASH / "main/source/SHA256/stray").touch(),
        "",
        "stray: lies under by-hash and the journal does not know it",
    ),
    "another InRelease": (
        lambda root: flip(root / "archive/dists/stable/InRelease"),
        "",
        "InRelease: is not the one that was published",
    ),
    "the suite's link": (lambda root: (root / "archive/dists/stable").unlink(), "", "does not lead to generation 2"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_fsck_finds(damage: str, idle: Instance, builder: Builder) -> None:
    act, option, line = DAMAGES[damage]
    builder.upload().send_directory(idle.incoming)
    assert idle.run("incomingd", "--once").returncode == 0
    clean = idle.ctl("fsck", "--deep")
    assert (clean.returncode, clean.stdout) == (0, "")
    act(idle.root)
    done = idle.ctl("fsck", *filter(None, [option]))
    assert done.returncode == 1
    assert re.search(line, done.stdout), done.stdout


def test_fsck_beside_a_busy_daemon_is_clean(instance: Instance, builder: Builder) -> None:
    uploads = [builder.upload(f"pkg{number}") for number in range(12)]
    names = []
    for upload in uploads:
        names.append(upload.send_directory(instance.incoming))
        assert instance.ctl("fsck").stdout == ""
    until(lambda: all((instance.status(name) or {"state": 0})["state"] == 2 for name in names))
    assert instance.ctl("fsck", "--deep").returncode == 0

"""The attacks are made on a daemon that has the rights of the packaged unit, and by accounts that have none."""

from collections.abc import Callable
from pathlib import Path

from tests.support.accounts import DAEMON, MALLORY, Guarded, run_as, unit_setting
from tests.support.keys import Keys
from tests.support.uploads import Builder


def test_the_daemon_is_the_units_user_with_its_capabilities(guarded: Callable[..., Guarded]) -> None:
    instance = guarded()
    instance.start()
    assert instance.daemon is not None
    status = Path(f"/proc/{instance.daemon.pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    assert fields["Uid"].split() == [str(DAEMON)] * 4
    numbers = {"CAP_DAC_OVERRIDE": 1, "CAP_FOWNER": 3, "CAP_LEASE": 28}
    wanted = sum(1 << numbers[name] for name in unit_setting("AmbientCapabilities").split())
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == wanted


def test_another_account_uploads_and_its_upload_says_whose_it_is(
    guarded: Callable[..., Guarded], keys: Keys, work: Path
) -> None:
    key = keys.make("Mallory")
    instance = guarded([keys.public(key)])
    instance.start()
    upload = Builder(folder=work / "built", keys=keys, key=key).upload("hello", "1.0-1")
    sent = run_as(
        MALLORY,
        f"cp -r {upload.folder} {instance.incoming}/.{upload.name} && "
        f"mv -T {instance.incoming}/.{upload.name} {instance.incoming}/{upload.name}",
    )
    assert sent.returncode == 0, sent.stderr
    instance.succeeded(upload.name)

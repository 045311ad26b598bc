"""The daemon as a package installs it, run by a private systemd: this project's unit, user, places and configuration.

Only the programs are those of this checkout, by a drop-in.
"""

import io
import json
import re
import sys
import tarfile
from pathlib import Path
from typing import Any

from tests.support.instance import until
from tests.support.private_systemd import NEEDED, PROJECT, PrivateSystemd
from tests.support.uploads import Upload

UNIT = "incomingd.service"
INCOMING = "/srv/incomingd/incoming"
CONFIG = "/etc/incomingd/incomingd.toml"
SIGNING = "/var/lib/incomingd/gnupg/signing"
#: Any account of this machine that uploads: it has no name, and is in the group of the uploaders.
UPLOADER = "12345"
_BIN = Path(sys.prefix) / "bin"
#: Tests start and kill it more often than an operator would, and do not wait for it.
_DROP_IN = """\
[Unit]
StartLimitIntervalSec=0
[Service]
ExecStart=
ExecStart={bin}/incomingd --config {config}
ExecReload=
ExecReload={bin}/incomingctl --config {config} reload
RestartSec=0
{visible}
"""


class Packaged:
    """One installation, made anew: nothing is left in its places of one before it."""

    def __init__(self, systemd: PrivateSystemd, keyfile: Path | None) -> None:
        """``keyfile`` is trusted; None: nothing but what the package brings is there, and no key of the archive."""
        self.systemd = systemd
        systemd.run(
            "rm", "-rf", "/srv/incomingd", "/var/lib/incomingd", "/etc/incomingd", f"/etc/systemd/system/{UNIT}.d"
        )
        self._install()
        if keyfile is None:
            return
        self.configure(f'signing_keys = ["{self._make_key()}"]')
        trust = [_BIN / "incomingctl", "--config", CONFIG, "trust", "-"]
        systemd.run(*trust, user="incomingd", data=keyfile.read_bytes())

    def _install(self) -> None:
        source = PROJECT / "systemd"
        self.systemd.write("/etc/sysusers.d/incomingd.conf", (source / "incomingd.sysusers").read_text())
        self.systemd.write("/etc/tmpfiles.d/incomingd.conf", (source / "incomingd.tmpfiles").read_text())
        self.systemd.run("systemd-sysusers", "incomingd.conf")
        self.systemd.run("systemd-tmpfiles", "--create", "incomingd.conf")
        self.systemd.write(CONFIG, (PROJECT / "conf/incomingd.toml").read_text())
        self.systemd.write(f"/etc/systemd/system/{UNIT}", (source / UNIT).read_text())
        visible = "\n".join(f"BindReadOnlyPaths={folder}" for folder in NEEDED)
        # It hides /root as before, but not what is bound below it.
        visible += "\nProtectHome=tmpfs" if visible else ""
        self.drop_in("programs", _DROP_IN.format(bin=_BIN, config=CONFIG, visible=visible))

    def _make_key(self) -> str:
        """By the command that the configuration tells."""
        home = ("gpg", "--homedir", SIGNING, "--batch")
        make = ("--passphrase", "", "--quick-gen-key", "Example archive", "ed25519", "sign", "never")
        self.systemd.run(*home, *make, user="incomingd")
        listed = self.systemd.run(*home, "--with-colons", "--list-secret-keys", user="incomingd").stdout.decode()
        self.systemd.run("gpgconf", "--homedir", SIGNING, "--kill", "all", user="incomingd")
        return next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))

    # -- what an operator does ----------------------------------------------------------------------------------------

    def drop_in(self, name: str, text: str) -> None:
        """As ``systemctl edit`` does."""
        self.systemd.write(f"/etc/systemd/system/{UNIT}.d/{name}.conf", text)
        self.systemd.systemctl("daemon-reload")

    def configure(self, line: str) -> None:
        """Put one line in the place of its key, whether that is commented or not."""
        key = line.split(" =")[0]
        text, count = re.subn(rf"^(# )?{key} = .*$", line, self.config(), count=1, flags=re.MULTILINE)
        assert count, key
        self.systemd.write(CONFIG, text)

    def config(self) -> str:
        """The text of the configuration."""
        return self.path(CONFIG).read_text()

    def start(self) -> None:
        """Returns when it is ready."""
        self.systemd.systemctl("start", UNIT)

    def stop(self) -> None:
        """Returns when it has ended."""
        self.systemd.systemctl("stop", UNIT)

    def kill(self, signal: str) -> None:
        """A signal for the daemon itself."""
        self.systemd.systemctl("kill", f"--signal={signal}", "--kill-who=main", UNIT)

    def show(self, key: str) -> str:
        """One property of ``systemctl show``."""
        return self.systemd.systemctl("show", "--value", "--property", key, UNIT).strip()

    def restarted(self) -> bool:
        """Started anew by systemd itself, and ready."""
        return int(self.show("NRestarts")) > 0 and self.show("ActiveState") == "active"

    def log(self) -> str:
        """Its lines in systemd's journal, since it was last started by hand."""
        self.systemd.run("journalctl", "--sync")
        return self.systemd.run("journalctl", "--unit", UNIT, "--output=cat", "--no-pager").stdout.decode()

    # -- what an uploader does ----------------------------------------------------------------------------------------

    def send(self, upload: Upload, how: str = "", *, user: str = UPLOADER, groups: str = "incomingd") -> str:
        """Upload as another account. ``how`` is a shell script whose working directory holds the files."""
        name = upload.name
        how = how or f"cp -r . {INCOMING}/.{name} && mv {INCOMING}/.{name} {INCOMING}/{name}"
        script = f"set -e; umask 022; cd $(mktemp -d); tar -x --no-same-owner; {how}"
        self.systemd.run("sh", "-c", script, data=tarred(upload), user=user, groups=groups)
        return name

    def path(self, path: str) -> Path:
        """A path in there, as it is reached from outside."""
        return Path(f"/proc/{self.systemd.pid}/root{path}")

    def status(self, name: str) -> dict[str, Any]:
        """Its status file; empty where there is none yet."""
        try:
            found: dict[str, Any] = json.loads(self.path(f"/srv/incomingd/status/{name}.json").read_bytes())
        except FileNotFoundError:
            return {}
        return found

    def ended(self, name: str) -> dict[str, Any]:
        """The status of an upload when it has ended."""
        try:
            until(lambda: self.status(name).get("state", 0) >= 2, f"the end of {name}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.status(name)}\n{self.show('StatusText')}\n{self.log()}") from None
        return self.status(name)

    def succeeded(self, name: str) -> dict[str, Any]:
        """As :meth:`ended`; it must have been published."""
        found = self.ended(name)
        assert found["state_name"] == "SUCCEEDED", found["problems"]
        return found


def tarred(upload: Upload) -> bytes:
    """Its files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for file in upload.files:
            archive.add(file, file.name)
    return out.getvalue()

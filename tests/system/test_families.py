"""Where other families of packages land: debug symbols in the debug component, udebs in the installer's index."""

from pathlib import Path

import pytest

from tests.support import packages
from tests.support.apt import Apt
from tests.support.instance import Instance
from tests.support.uploads import Builder, Upload

SYMBOLS = {"Auto-Built-Package": "debug-symbols", "Section": "debug"}


def upload(builder: Builder, folder: str = "hello", version: str = "1.0-1") -> Upload:
    """A program, its debug symbols, those of its library as Ubuntu calls them, and the installer's small edition."""
    where = builder.folder / folder
    where.mkdir(parents=True)

    def made(name: str, ending: str = "deb", **fields: str) -> Path:
        deb = packages.binary(where, name, version, source=None if name == "hello" else "hello", fields=fields)
        return deb.rename(deb.with_suffix(f".{ending}"))

    files = [
        made("hello"),
        made("hello-dbgsym", **SYMBOLS),
        made("libhello-dbgsym", "ddeb", **SYMBOLS),
        made("hello-udeb", "udeb", Section="debian-installer"),
    ]
    return builder.sign(where, [*files, *packages.source(where, "hello", version, form="quilt")])


def where(found: dict[str, object]) -> dict[str, str]:
    """The pool's component of each published binary."""
    files = found["published"]["files"]  # type: ignore[index]
    return {Path(file).name.partition("_")[0]: file.split("/h/")[0] for file in files if file.endswith("deb")}


def client(instance: Instance, root: Path, components: str) -> Apt:
    """An apt that looks for binaries only: there are no sources for the installer."""
    apt = Apt(root, f"file://{instance.archive}", instance.keyring, components=components)
    sources = root / "etc/archive.sources"
    sources.write_text(sources.read_text().replace("deb deb-src", "deb"))
    apt.update()
    return apt


@pytest.mark.parametrize("debug", ["debug", "main/debug"])
def test_debug_symbols_have_a_component_of_their_own(
    idle: Instance, builder: Builder, tmp_path: Path, debug: str
) -> None:
    idle.set("suites.stable", components=["main", debug], debug_component=debug)
    idle.start()
    found = idle.succeeded(upload(builder).send_directory(idle.incoming))
    assert where(found) == {
        "hello": "pool/main",
        "hello-dbgsym": f"pool/{debug}",
        "libhello-dbgsym": f"pool/{debug}",
        "hello-udeb": "pool/main",
    }
    plain, with_debug = client(idle, tmp_path / "plain", "main"), client(idle, tmp_path / "debug", f"main {debug}")
    assert [plain.candidate(name) for name in ("hello", "hello-dbgsym", "hello-udeb")] == ["1.0-1", "", ""]
    assert with_debug.candidate("hello-dbgsym") == with_debug.candidate("libhello-dbgsym") == "1.0-1"
    with_debug.install("hello-dbgsym")


def test_without_one_they_go_where_their_section_says(instance: Instance, builder: Builder, tmp_path: Path) -> None:
    found = instance.succeeded(upload(builder).send_directory(instance.incoming))
    assert set(where(found).values()) == {"pool/main"}
    assert client(instance, tmp_path / "apt", "main").candidate("hello-dbgsym") == "1.0-1"


@pytest.mark.parametrize("debug", ["debug", "main/debug"])
def test_what_went_to_main_leaves_it_when_the_component_comes(
    idle: Instance, builder: Builder, tmp_path: Path, debug: str
) -> None:
    idle.start()
    idle.succeeded(upload(builder).send_directory(idle.incoming))
    idle.stop()
    idle.set("suites.stable", components=["main", debug], debug_component=debug)
    idle.start()
    idle.succeeded(upload(builder, "newer", "2.0-1").send_directory(idle.incoming))
    assert client(idle, tmp_path / "main", "main").candidate("hello-dbgsym") == ""
    assert client(idle, tmp_path / "debug", debug).candidate("hello-dbgsym") == "2.0-1"


def test_udebs_are_for_the_installer_alone(instance: Instance, builder: Builder, tmp_path: Path) -> None:
    instance.succeeded(upload(builder).send_directory(instance.incoming))
    installer = client(instance, tmp_path / "installer", "main/debian-installer")
    assert [installer.candidate(name) for name in ("hello-udeb", "hello")] == ["1.0-1", ""]
    installer.run("download", "hello-udeb")


def test_a_debug_component_has_to_be_one_of_the_suites(idle: Instance) -> None:
    idle.set("suites.stable", debug_component="debug")
    done = idle.run("incomingd", "--check-config")
    assert done.returncode == 2
    assert 'debug_component: is "debug"; must be one of its components: main' in done.stderr

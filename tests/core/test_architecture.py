"""The house as it is drawn in incomingd/__init__.py: who may import whom, and who alone may do what."""

import ast
from pathlib import Path

import pytest

import incomingd

ROOT = Path(incomingd.__file__).parent
VOCABULARY = {"", "model", "states", "errors", "config", "codec", "places", "rules", "rights", "backoff"}
#: Room to the rooms that it may import, besides the vocabulary.
MAY_IMPORT = {
    **dict.fromkeys(VOCABULARY, VOCABULARY),
    "client": set(),
    "fsio": set(),
    "sandbox": set(),
    "journal": set(),
    "intake": {"fsio", "journal"},
    "verify": {"fsio", "journal", "sandbox"},
    "publish": {"fsio", "journal"},
    "report": {"fsio", "journal"},
    "importing": {"fsio", "journal", "sandbox", "verify", "publish"},
    "fsck": {"fsio", "journal", "publish"},
    "recovery": {"fsio", "journal", "intake", "verify", "publish", "report"},
    "pipeline": {"fsio", "journal", "sandbox", "intake", "verify", "publish", "report", "recovery"},
    "daemon": {"fsio", "journal", "sandbox", "intake", "verify", "publish", "report", "recovery", "pipeline"},
    "cli": {
        "client",
        "fsio",
        "journal",
        "intake",
        "verify",
        "publish",
        "report",
        "recovery",
        "pipeline",
        "fsck",
        "daemon",
        "importing",
    },
}
MODULES = sorted(ROOT.rglob("*.py"))


def room_of(module: str) -> str:
    """incomingd.verify.changes -> verify; incomingd -> ''."""
    return module.split(".")[1] if "." in module else ""


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def calls(path: Path) -> set[str]:
    """Every ``name(…)`` and ``thing.name(…)`` of a module, as ``thing.name`` where ``thing`` is a plain name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else "?"
            found.add(f"{owner}.{node.func.attr}")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    module = ".".join(("incomingd", *path.relative_to(ROOT).with_suffix("").parts))
    room = room_of(module.removesuffix(".__init__"))
    own = {name for name in imports(path) if name == "incomingd" or name.startswith("incomingd.")}
    rooms = {room_of(name) for name in own} - {room}
    rooms = {r for r in rooms if (ROOT / r).exists() or (ROOT / f"{r}.py").exists()}
    if room == "client":  # an old machine has nothing but its one file
        assert not rooms & VOCABULARY, f"{module} may not import {rooms}"
    assert rooms - VOCABULARY <= MAY_IMPORT[room], f"{module} may not import {rooms - VOCABULARY - MAY_IMPORT[room]}"


def test_only_the_journal_speaks_sql() -> None:
    offenders = [p for p in MODULES if "sqlite3" in imports(p) and p.parent.name != "journal"]
    assert offenders == []


def test_only_fsio_renames_and_syncs() -> None:
    acts = {
        "os.rename",
        "os.replace",
        "os.fsync",
        "os.link",
        "os.symlink",
        "shutil.move",
        "?.symlink_to",
        "?.hardlink_to",
    }
    # The client's renames are on the sender's side.
    rooms = ("fsio", "client")
    offenders = {str(p): calls(p) & acts for p in MODULES if p.parent.name not in rooms and calls(p) & acts}
    assert offenders == {}


def test_only_the_sandbox_limits_processes() -> None:
    acts = {"resource.setrlimit", "resource.prlimit", "os.setns", "os.unshare", "?.prctl", "_libc.prctl"}
    offenders = {str(p): calls(p) & acts for p in MODULES if p.parent.name != "sandbox" and calls(p) & acts}
    assert offenders == {}


def test_nothing_runs_a_shell() -> None:
    for path in MODULES:
        text = path.read_text()
        assert "shell=True" not in text, path
        assert "os.system" not in text, path

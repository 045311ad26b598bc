"""Nothing rests on a private name of a library: such a name changes without a word, as tarfile's once did.

Two things are looked at. In the text: underscore names of anything that the module itself does not define. At run time:
what classes override of a library's classes, which has to be something that its documentation says is for that.
"""

import ast
import importlib
import io
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from watchdog.events import FileSystemEventHandler

import incomingd
from incomingd.intake import watch

ROOT = Path(incomingd.__file__).parent
MODULES = sorted(path for path in ROOT.rglob("*.py") if path.name != "__main__.py")
#: Documented all the same (docs.python.org/3/library/os.html#os._exit).
DOCUMENTED = {"os._exit"}
#: Attributes of a library's things that are set from outside, and why that is all right.
SET = {"intake/watch.py: getattr(importlib.import_module(module), name).delay": "documented in the class's docstring"}
#: What may be overridden, as each class's documentation says.
HOOKS: dict[type, set[str]] = {
    logging.Formatter: {"format", "formatMessage"},
    io.RawIOBase: {"readable", "readinto", "seekable", "seek"},
    click.Group: {"list_commands", "get_command", "resolve_command", "invoke"},
    ShellComplete: {"complete"},
    FileSystemEventHandler: {"on_any_event"},
    Mapping: {"__getitem__", "__iter__", "__len__"},
}


def is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def defined(tree: ast.Module) -> set[str]:
    """Every name that the module gives to something, as a variable, a function, a class or an attribute of self."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            found.add(node.attr)
    return found


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def private_names(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    own = defined(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if any(map(is_private, alias.name.split("."))))
        elif isinstance(node, ast.ImportFrom):
            parts = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            yield from (f"from {node.module} import {part}" for part in parts if is_private(part))
        elif isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            yield ast.unparse(node)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("attr"):
            words = [word.value for word in node.args if isinstance(word, ast.Constant)]
            yield from (ast.unparse(node) for word in words if isinstance(word, str) and is_private(word))


def set_from_outside(path: Path) -> Iterator[str]:
    """Assignments to an attribute of something imported."""
    tree = ast.parse(path.read_text())
    imported = {
        (alias.asname or alias.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del) and not is_self(node.value):
            names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
            if names & imported:
                yield f"{path.relative_to(ROOT)}: {ast.unparse(node)}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_private_name_is_used(path: Path) -> None:
    assert set(private_names(path)) - DOCUMENTED == set()


def test_nothing_of_a_library_is_replaced() -> None:
    assert {found for path in MODULES for found in set_from_outside(path)} == SET.keys()


def classes() -> Iterator[type]:
    for path in MODULES:
        module = importlib.import_module(
            ".".join(("incomingd", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        )
        yield from (one for one in vars(module).values() if isinstance(one, type) and one.__module__ == module.__name__)


def is_foreign(base: type) -> bool:
    return base.__module__.split(".")[0] not in ("incomingd", "builtins", "typing", "enum", "abc")


def test_only_what_is_documented_is_overridden() -> None:
    """Exceptions, enumerations, protocols and dataclasses apart, which have hooks of the language itself."""
    seen = 0
    for one in classes():
        for base in filter(is_foreign, one.__mro__[1:]):
            hooks = {name for kind, names in HOOKS.items() if issubclass(one, kind) for name in names}
            overridden = {name for name in vars(one) if hasattr(base, name) and callable(getattr(base, name))}
            of_the_language = {name for name in overridden if hasattr(object, name) or name.startswith("__")}
            assert overridden - of_the_language <= hooks, f"{one} overrides {base}"
            seen += 1
    assert seen > len(HOOKS), "it has looked at classes that inherit"


def test_these_tests_see_a_private_name(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    lines = (
        "import tarfile",
        "from gzip import _GzipReader",
        "class Mine(tarfile.TarInfo):",
        "    def _own(self): return self._own, self._proc_member, tarfile._Stream",
        "getattr(tarfile, '_Stream')",
    )
    file.write_text("\n".join(lines))
    assert sorted(private_names(file)) == [
        "from gzip import _GzipReader",
        "getattr(tarfile, '_Stream')",
        "self._proc_member",
        "tarfile._Stream",
    ]


def test_a_watchdog_without_its_delay_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watch._drop_grouping_delay()
    monkeypatch.setattr(watch, "_GROUPERS", (("watchdog.observers.none", "None"), ("watchdog.events", "Nothing")))
    assert not watch._drop_grouping_delay()

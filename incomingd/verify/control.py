"""What dpkg refuses in a binary package's control file, beyond the strict pass over its text (lib/dpkg/parse.c).

Such a package could be published, and nobody could install it.
"""

from collections.abc import Iterator

from incomingd import rules
from incomingd.model import Problem, is_index_field, plain
from incomingd.verify.deb822 import Stanza

#: Fields of dpkg's own status file.
_STATUS_ONLY = ("Status", "Config-Version", "Triggers-Pending", "Triggers-Awaited", "Conffiles")
#: Fields of one line (Debian Policy 5.1, "simple").
_SIMPLE = ("Package", "Version", "Architecture", "Section", "Priority", "Installed-Size")
#: What dpkg knows as priorities; another word is one, too, unless it begins with one of these.
_PRIORITIES = ("required", "important", "standard", "optional", "extra", "unknown")
_WORDS = {
    "Essential": ("yes", "no"),
    "Protected": ("yes", "no"),
    "Multi-Arch": ("same", "foreign", "allowed", "no"),
}


def faults(stanza: Stanza, text: bytes) -> Iterator[str]:
    """A sentence for each thing that dpkg does not read. ``text`` is what ``stanza`` was parsed from."""
    if not text.endswith(b"\n"):
        yield "the last line has no newline"
    elif not stanza.fields[-1][1]:
        yield f"the last field, {plain(stanza.fields[-1][0])}, is empty"
    for name, _ in stanza.fields:
        if len(name) == 1:
            yield f"{plain(name)} is too short for the name of a field"
    for name in _SIMPLE:
        if "\n" in stanza.get(name):
            yield f"{name} goes on over a second line"
    for name in _STATUS_ONLY:
        if name in stanza:
            yield f"{name} belongs into dpkg's status file only"
    priority = stanza.get("Priority").lower()
    if priority not in _PRIORITIES and priority.startswith(_PRIORITIES):
        yield f'Priority is "{plain(priority)}", and it can be {", ".join(_PRIORITIES)}'
    for name, words in _WORDS.items():
        if name in stanza and stanza.get(name).lower() not in words:
            yield f'{name} is "{plain(stanza.get(name))}", and it can be {", ".join(words)}'


def warnings(stanza: Stanza, file: str) -> Iterator[Problem]:
    """What of a control file or a .dsc is left out of the index, since the archive itself says it."""
    names = [name for name, _ in stanza.fields if is_index_field(name)]
    if names:
        fields = "the field" if len(names) == 1 else "the fields"
        yield rules.INDEX_FIELD.problem(f"it has {fields} {plain(', '.join(names))}", file=file)

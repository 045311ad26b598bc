"""The values of :mod:`incomingd.model` as JSON and back: for the journal, the status files and the check workers.

Reading is strict about types: what does not fit raises :class:`CodecError`, since a worker's answer is not trusted.
"""

import json
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import cattrs

_T = TypeVar("_T")


class CodecError(ValueError):
    """The text is not JSON, or not of the wanted type."""


def timestamp(at: datetime) -> str:
    """RFC 3339 in UTC with milliseconds, as status files have it: ``2026-01-02T03:04:05.678Z``."""
    if at.tzinfo is not UTC:
        at = at.astimezone(UTC)
    return f"{at.isoformat(timespec='milliseconds')[:-6]}Z"


def _strict(kind: type[Any]) -> Any:
    def structure(value: Any, _type: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(f"expected {kind.__name__}, found {type(value).__name__}")
        return value

    return structure


def _text(value: Any, _type: Any) -> str:
    if type(value) is not str:
        raise TypeError(f"expected str, found {type(value).__name__}")
    if not value.isascii():
        value.encode()  # half of a surrogate pair is valid JSON, and can be written nowhere: UnicodeEncodeError
    return value


def _bytes(value: Any, _type: Any) -> bytes:
    return b64decode(_text(value, str), validate=True)


def _time(value: Any, _type: Any) -> datetime:
    at = datetime.fromisoformat(value)
    if at.tzinfo is None:
        raise ValueError(f"the time {value} has no time zone")
    return at.astimezone(UTC)


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(unstruct_collection_overrides={frozenset: sorted, tuple: list})
    converter.register_structure_hook(str, _text)
    for kind in (int, bool):
        converter.register_structure_hook(kind, _strict(kind))
    # Before str's own hook, which would leave the member's value: "is" and match would then miss it.
    converter.register_structure_hook(StrEnum, lambda value, kind: kind(value))
    converter.register_unstructure_hook(bytes, lambda value: b64encode(value).decode("ascii"))
    converter.register_structure_hook(bytes, _bytes)
    converter.register_unstructure_hook(datetime, timestamp)
    converter.register_structure_hook(datetime, _time)
    converter.register_unstructure_hook(Path, str)
    converter.register_structure_hook(Path, lambda value, _: Path(value))
    return converter


_CONVERTER = _converter()


def prepare(*kinds: type[Any]) -> None:
    """Have ready what reads and writes values of these types; else the first of each makes it."""
    for kind in kinds:
        _CONVERTER.get_structure_hook(kind)
        _CONVERTER.get_unstructure_hook(kind)


def plain_data(value: Any) -> Any:
    """A model value as dicts, lists, strings and numbers."""
    return _CONVERTER.unstructure(value)


def dumps(value: Any) -> str:
    """A model value as compact JSON."""
    return json.dumps(plain_data(value), ensure_ascii=False, separators=(",", ":"))


def loads(text: str | bytes, kind: type[_T]) -> _T:
    """The model value of type ``kind`` that ``text`` holds. Raises :class:`CodecError`."""
    try:
        return _CONVERTER.structure(json.loads(text), kind)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, cattrs.BaseValidationError) as error:
        raise CodecError(f"not a {getattr(kind, '__name__', kind)}: {error}") from error

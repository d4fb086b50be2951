"""Frozen dataclasses from TOML and back: every member is checked against its annotation."""

from __future__ import annotations

import json
import tomllib
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from napari_histomil.errors import HistomilError, TrainingError

Kind = TypeVar("Kind")

_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    TrainingError
        If it cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read as TOML: {error}.") from error


def read_as(kind: type[Kind], path: Path) -> Kind:
    """Read a TOML file as a dataclass, see `build`.

    Raises
    ------
    TrainingError
        If the file cannot be read, or a member is missing, unknown or of the wrong kind.
    """
    raw = read_toml(path)
    try:
        made = build(kind, raw)
    except HistomilError as error:
        raise TrainingError(f"{path}: {error}") from error
    assert isinstance(made, kind)
    return made


def build(kind: type, raw: Any, where: str = "") -> Any:
    """Make a dataclass of a table.

    Parameters
    ----------
    kind
        The dataclass; its members may be dataclasses, tuples, mappings of texts, literals, texts,
        numbers, truth values, or any of these or None. Of several dataclasses each has a ``name``
        of its own, a literal.
    raw
        The table, as `tomllib` gives it.
    where
        Name of the table, for messages.

    Raises
    ------
    TrainingError
        If a member is missing, unknown or of the wrong kind.
    """
    if not isinstance(raw, Mapping):
        raise TrainingError(f"{where} must be a table.")
    hints = get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    prefix = f"{where}." if where else ""
    for name in raw:
        if name not in known:
            raise TrainingError(
                f"{prefix}{name} is unknown here: use one of {', '.join(sorted(known))}."
            )
    for name, f in known.items():
        required = f.default is MISSING and f.default_factory is MISSING
        if required and name not in raw:
            raise TrainingError(f"{prefix}{name} is missing.")
    return kind(**{name: _value(hints[name], raw[name], prefix + name) for name in raw})


def _value(hint: Any, raw: Any, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return build(hint, raw, where)  # type: ignore[arg-type]
    if origin is Literal:
        if not any(raw == word and type(raw) is type(word) for word in args):  # 1 is not true
            words = ", ".join(map(_word, args))
            raise TrainingError(f"{where} must be one of {words}, not {_word(raw)}.")
        return raw
    if origin in (Union, types.UnionType):  # "or nothing", which TOML does not have
        tables = [kind for kind in args if is_dataclass(kind)]
        return _value(_named(tables, raw, where) if tables else args[0], raw, where)
    if origin is tuple:
        if not isinstance(raw, list):
            raise TrainingError(f"{where} must be a list.")
        if args[-1] is not Ellipsis and len(raw) != len(args):
            raise TrainingError(f"{where} must hold {len(args)} values, not {len(raw)}.")
        kinds = [args[0]] * len(raw) if args[-1] is Ellipsis else list(args)
        pairs = zip(kinds, raw, strict=True)
        return tuple(_value(k, v, f"{where}[{n}]") for n, (k, v) in enumerate(pairs))
    if origin is dict:
        if not isinstance(raw, Mapping):
            raise TrainingError(f"{where} must be a table.")
        return {str(k): v if args[1] is Any else _value(args[1], v, where) for k, v in raw.items()}
    accepted = (int, float) if hint is float else (hint,)
    if not isinstance(raw, accepted) or (isinstance(raw, bool) and hint is not bool):
        raise TrainingError(f"{where} must be {_WORDS[hint]}, not {raw!r}.")
    return float(raw) if hint is float else raw


def _named(kinds: list[Any], raw: Any, where: str) -> Any:
    """Return which of some dataclasses a table is: its ``name`` says so, where there are more."""
    if len(kinds) == 1:
        return kinds[0]
    names = {get_args(get_type_hints(kind)["name"])[0]: kind for kind in kinds}
    name = raw.get("name") if isinstance(raw, Mapping) else None
    if name not in names:
        raise TrainingError(f"{where}.name must be one of {', '.join(names)}.")
    return names[name]


def _word(value: Any) -> str:
    """Return a value as a message names it: true and false as TOML does."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def plain(value: Any) -> dict[str, Any]:
    """Return a dataclass as a table of plain values, without what is as by default.

    `build` makes an equal dataclass of it.
    """
    table: dict[str, Any] = {}
    for f in fields(value):
        member = getattr(value, f.name)
        default = f.default if f.default_factory is MISSING else f.default_factory()
        if default is MISSING or member != default:
            table[f.name] = plain_member(member)
    return table


def plain_member(value: Any) -> Any:
    """Return a member of a dataclass as plain values, see `plain`."""
    if is_dataclass(value):
        return plain(value)
    if isinstance(value, (tuple, list)):
        return [plain_member(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): plain_member(v) for k, v in value.items()}
    return value


def write_text(table: Mapping[str, Any]) -> str:
    """Return a table as TOML text that `tomllib` reads back: single values, then tables.

    Tables inside a table of the file are written inline, on one line.
    """
    single = {k: v for k, v in table.items() if not _is_table(v) and not _is_tables(v)}
    lines = [f"{_key(name)} = {_inline(value)}" for name, value in single.items()]
    for name, value in table.items():
        if _is_tables(value):
            for one in value:
                lines += ["", f"[[{_key(name)}]]"]
                lines += [f"{_key(k)} = {_inline(v)}" for k, v in one.items()]
        elif _is_table(value):
            lines += ["", f"[{_key(name)}]"]
            lines += [f"{_key(k)} = {_inline(v)}" for k, v in value.items()]
    return "\n".join(lines).lstrip("\n") + "\n"


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_table, value))


def _key(name: str) -> str:
    bare = name and all(c.isascii() and (c.isalnum() or c in "_-") for c in name)
    return name if bare else _quoted(name)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(k)} = {_inline(v)}" for k, v in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)  # numbers; TOML writes inf and nan as Python does

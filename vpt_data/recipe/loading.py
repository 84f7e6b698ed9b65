"""Recipe files: found by name among the shipped ones or by path, merged with what they extend, overridden, resolved.

Once a recipe is resolved, every take has its own value of every rule (`k`, `edge`, `prompted`, ...).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from vpt_data.errors import UsageError, unknown_name
from vpt_data.recipe.decoding import decode
from vpt_data.recipe.key_reference import toml
from vpt_data.recipe.record import Recipe, resolved
from vpt_data.store import shipped


def names() -> list[str]:
    """The names of the shipped recipes, sorted."""
    return sorted(path.stem for path in shipped("recipes").glob("*.toml"))


def describe(name: str) -> str:
    """The description of a shipped recipe, in one line."""
    return str(_merged(name, Path(), ()).get("description", ""))


def load(name: str, overrides: Iterable[str] = ()) -> Recipe:
    """The resolved recipe `name` (a shipped name, or a path ending in .toml), with `key=value` overrides."""
    table = _merged(name, Path(), ())
    for override in overrides:
        _set(table, override)
    table.pop("extends", None)
    return resolved(decode(table, name))


def as_toml(recipe: Recipe) -> str:
    """A resolved recipe as the text of a recipe file; `load` makes the same recipe of it."""
    content = msgspec.to_builtins(recipe)
    takes = content.pop("take")
    parts = [_toml_lines(content), *(f"[take.{name}]\n{_toml_lines(take)}" for name, take in takes.items())]
    return "\n".join(parts)


def _toml_lines(table: dict[str, Any]) -> str:
    return "".join(f"{key} = {toml(value)}\n" for key, value in table.items())


def _locate(name: str, beside: Path) -> Path:
    if name.endswith(".toml"):
        path = beside / name
        if not path.is_file():
            raise UsageError(
                f"{path}: there is no such recipe file; give a path, or a name that `vpt-data recipes` lists."
            )
        return path
    sibling, own = beside / f"{name}.toml", shipped("recipes") / f"{name}.toml"
    if beside != Path() and sibling.is_file():
        return sibling
    if not own.is_file():
        raise unknown_name("recipe", name, names())
    return own


def _merged(name: str, beside: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    path = _locate(name, beside)
    if path.resolve() in seen:
        raise UsageError(f"{path}: `extends` leads back to the recipe itself; let one of them extend nothing.")
    table = read_table(path)
    table.setdefault("name", path.stem)
    excluded = table.get("exclude")
    if isinstance(excluded, str) and excluded:
        table["exclude"] = _place_of(excluded, path.parent)
    elif isinstance(excluded, list) and all(isinstance(each, str) and each for each in excluded):
        table["exclude"] = [_place_of(each, path.parent) for each in excluded]
    base_name = table.get("extends")
    if base_name is None:
        return table
    if not isinstance(base_name, str):
        raise UsageError(f'{path}: extends is {toml(base_name)}; expected one recipe, for instance "mixvrt_dino".')
    base = _merged(base_name, path.parent, (*seen, path.resolve()))
    takes = _merge_takes(base.get("take", {}), table.get("take", {}))
    return {**base, **table, "take": takes}


def _place_of(name: str, beside: Path) -> str:
    """The name of a shipped recipe, else the path of the file that a recipe in `beside` means by it."""
    found = _locate(name, beside)
    return name if found == shipped("recipes") / f"{name}.toml" else found.as_posix()


def _merge_takes(base: Any, own: Any) -> Any:
    if not (isinstance(base, Mapping) and isinstance(own, Mapping)):
        return own
    merged = {name: dict(take) if isinstance(take, Mapping) else take for name, take in base.items()}
    for name, take in own.items():
        both = isinstance(take, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = {**merged[name], **take} if both else take
    return merged


def read_table(path: Path) -> dict[str, Any]:
    """A TOML file, or one sentence on why it is none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML ({error}).") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}).") from error


def literal(text: str) -> Any:
    """The value that `--set key=TEXT` means: what TOML reads it as, else the text itself.

    >>> literal("1e-5"), literal("[1, 2]"), literal("union")
    (1e-05, [1, 2], 'union')
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def _set(table: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise UsageError(f"--set {override!r}: expected key=value, for instance take.gqa.count=1000.")
    if path == ["extends"]:
        raise UsageError(f"--set {override!r}: a recipe says in its own file what it extends; write it there.")
    value, place = literal(text), table
    for depth, part in enumerate(path[:-1]):
        if part not in place and depth == 1 and path[0] == "take":
            raise unknown_name("take", part, place)
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise UsageError(f"--set {override!r}: {'.'.join(path[: depth + 1])} is a value, not a table.")
    place[path[-1]] = value

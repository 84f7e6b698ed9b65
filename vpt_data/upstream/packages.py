"""Sources of other packages: installed packages that have an entry point in the group `vpt_data.sources`.

The name of the entry point is that of the source, its value a `vpt_data.sources.base.Source`. The package keeps a
`sources.toml` beside the module of the value, with the same tables as manifests/sources.toml.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vpt_data.errors import UsageError

#: The name of the group; written in two parts because it imports nothing from there.
GROUP = ".".join(("vpt_data", "sources"))


@functools.cache
def installed() -> Mapping[str, EntryPoint]:
    """The entry points by the name of their source; UsageError where two packages offer the same one."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        if point.name in found and point.value != found[point.name].value:
            raise UsageError(
                f"{origin(point)} and {origin(found[point.name])} both offer a source {point.name!r}; uninstall one."
            )
        found[point.name] = point
    return MappingProxyType(found)


def origin(point: EntryPoint) -> str:
    """The package of an entry point, for a message."""
    return f"package {point.dist.name}" if point.dist is not None else f"entry point {point.value}"


def load(point: EntryPoint) -> Any:
    """The object of an entry point; UsageError where it cannot be imported."""
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        why = f"source {point.name} cannot be loaded ({error}); install the package again."
        raise UsageError(f"{origin(point)}: {why}") from error


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    """What each package says of its sources: who that is, and the tables of its sources.toml."""
    read: set[Path] = set()
    for point in installed().values():
        path = _manifest(point)
        if path in read:
            continue
        read.add(path)
        try:
            yield origin(point), tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(
                f"{origin(point)}: {path} cannot be read ({error.strerror}); it says where the files of source "
                f"{point.name} belong."
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{origin(point)}: {path}: not valid TOML ({error}).") from error


def _manifest(point: EntryPoint) -> Path:
    try:
        spec = find_spec(point.module)
    except ImportError:
        spec = None
    if spec is None or spec.origin is None:
        raise UsageError(f"{origin(point)}: there is no module {point.module}; install the package again.")
    return Path(spec.origin).with_name("sources.toml")

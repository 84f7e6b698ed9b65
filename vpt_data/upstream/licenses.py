"""What a licence allows, and which rows and images a `--license-policy` keeps out.

manifests/licenses.toml gives each licence a class; a policy is a set of classes, and a licence without terms that
are known is kept out by every policy but `any`. docs/licenses.md says it in words.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterable
from typing import Literal, get_args

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data.store import shipped
from vpt_data.upstream.catalog import image_set

Class = Literal["commercial", "research", "unknown"]
Redistribution = Literal["allowed", "forbidden", "unstated"]
Policy = Literal["any", "research", "commercial"]
POLICIES: tuple[Policy, ...] = get_args(Policy)

#: The classes that a policy lets in, the freest first.
_ALLOWED: dict[Policy, tuple[Class, ...]] = {
    "any": ("commercial", "research", "unknown"),
    "research": ("commercial", "research"),
    "commercial": ("commercial",),
}


class License(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One entry of manifests/licenses.toml; the file's head says what the keys mean."""

    name: str
    kind: Class = msgspec.field(name="class")
    redistribution: Redistribution
    attribution: bool
    note: str
    url: str = ""


class _Licenses(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    license: dict[str, License]


@functools.cache
def licenses() -> dict[str, License]:
    """manifests/licenses.toml, decoded strictly; keys are SPDX ids or `LicenseRef-...`."""
    path = shipped("manifests") / "licenses.toml"
    return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _Licenses).license


@functools.cache
def _by_lower_case() -> dict[str, License]:
    return {name.lower(): entry for name, entry in licenses().items()}


def find(license_id: str | None) -> License | None:
    """What is known of a licence, None for no licence or one that is not in the list; case does not matter (SPDX)."""
    return None if license_id is None else _by_lower_case().get(license_id.lower())


def class_of(license_id: str | None) -> Class:
    """The class of a licence; `unknown` for no licence or one that is not in the list.

    >>> class_of("CC-BY-4.0"), class_of("LicenseRef-receipts")
    ('commercial', 'unknown')
    """
    known = find(license_id)
    return "unknown" if known is None else known.kind


def redistribution_of(license_id: str | None) -> Redistribution:
    """Whether copies may be handed on; `unstated` for no licence or one that is not in the list.

    >>> redistribution_of("CC-BY-4.0"), redistribution_of("LicenseRef-receipts")
    ('allowed', 'unstated')
    """
    known = find(license_id)
    return "unstated" if known is None else known.redistribution


def strictest(license_ids: Iterable[str | None]) -> Class:
    """What holds for rows under all these licences together; `commercial` for none at all."""
    order = _ALLOWED["any"]
    return max((class_of(each) for each in license_ids), key=order.index, default="commercial")


def allows(policy: Policy, license_id: str | None) -> bool:
    """Whether a policy lets in what is under this licence.

    `any` lets in everything, `research` what is known to allow research (commercial licences included),
    `commercial` what is known to allow any use. No licence, and unknown terms, pass under `any` only.
    """
    return class_of(license_id) in _ALLOWED[policy]


def refusal(policy: Policy, license_id: str | None) -> str:
    """Why a policy keeps a licence out: the detail of a drop.

    >>> refusal("commercial", "CC-BY-NC-4.0")
    'CC-BY-NC-4.0 is of class research, and the licence policy is commercial'
    """
    return f"{license_id or 'no licence'} is of class {class_of(license_id)}, and the licence policy is {policy}"


def refused(paths: pa.Array, policy: Policy) -> pa.Array:
    """For each canonical image path the licence of its image set if the policy keeps it out, else null: string[N].

    An image of no known set is own data, and under the licence of its take: it is never refused here. Null paths
    are null.
    """
    if policy == "any":
        return pa.nulls(len(paths), pa.string())
    folders = pc.replace_substring_regex(paths, r"(^|/)[^/]*$", "").dictionary_encode()
    sets = [image_set(folder) for folder in folders.dictionary.to_pylist()]
    ids = [found[1].license if found is not None else None for found in sets]
    kept_out = [license_id if license_id and not allows(policy, license_id) else None for license_id in ids]
    return pa.array(kept_out, pa.string()).take(folders.indices)

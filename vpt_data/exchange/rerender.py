"""The same corpus for another encoder, or prompted instead of free choice and back.

Shards keep their names, order and row groups, and image bytes are copied as they are, so that the way back
gives the same bytes again. As in a build the manifest is written last: until then there is no corpus.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
from collections.abc import Iterator
from typing import Any

import msgspec
from tqdm import tqdm

from vpt_data import recipe as recipes
from vpt_data import store
from vpt_data.corpus import fingerprint, manifest, shards
from vpt_data.corpus.card import render_card
from vpt_data.corpus.manifest import Manifest, RecipeRecord, SplitRecord
from vpt_data.corpus.reader import Shard, open_corpus
from vpt_data.dialogue.retarget import retarget
from vpt_data.dialogue.templates import TEMPLATES
from vpt_data.dialogue.tokens.reencode import encoder_named
from vpt_data.errors import CorpusError, UsageError
from vpt_data.exchange.out_folder import TABLES, finish, settle
from vpt_data.recipe import Recipe
from vpt_data.schema import SCHEMA_VERSION
from vpt_data.sources import SOURCES
from vpt_data.store import AnyPath, sha256

#: In an output folder while it is being written: says whose files these are.
_MARK = ".render.json"


def rerender(corpus: AnyPath, out: AnyPath, encoder: str | None, prompted: bool | None) -> Manifest:
    """Write the rows of `corpus` to `out` for `encoder`, with or without prompt sentences (None: as is).

    A folder that an interrupted run of the same kind left behind is started again. Raises CorpusError if the
    corpus is not finished or damaged, UsageError if none of its rows could change, OutputError if `out` holds anything
    else.
    """
    opened = open_corpus(corpus)
    made = opened.manifest
    if made.schema_version != SCHEMA_VERSION:
        raise CorpusError(f"{corpus}: schema version {made.schema_version}, expected {SCHEMA_VERSION}; build it again.")
    recipe = retargeted(made, encoder, prompted)
    forms = [TEMPLATES[take.template] for take in recipe.take.values()]
    if not any(form.look or form.first_encoder for form in forms):
        raise UsageError(
            f"{corpus}: none of its rows looks twice or calls an encoder; there is nothing to render again."
        )
    settle(out, _MARK, "the rendered corpus")
    change = functools.partial(
        retarget, encoder=encoder, prompted=prompted,
        conversations=frozenset(name for name, source in SOURCES.items() if source.conversations),
    )  # fmt: skip
    reports: dict[str, list[shards.ShardReport]] = {}
    for shard in tqdm(opened.shards(), desc="writing", disable=None, unit="file"):
        _verify(corpus, shard)
        report = shards.rewrite_shard(shard, out / shard.name, change)
        reports.setdefault(shard.split, []).append(report)
    for name in TABLES:
        _copy(corpus / name, out / name)
    result = _account(made, recipe, reports)
    manifest.write_text(out / "README.md", render_card(result, recipe))
    manifest.write(result, out)
    finish(out, _MARK)
    return result


def retargeted(made: Manifest, encoder: str | None, prompted: bool | None) -> Recipe:
    """The recipe of a corpus after rendering: every take that has an encoder gets this one.

    Where a shipped recipe asks for just that (mixvrt_dino for clip is mixvrt_clip) it is that recipe, and the
    manifest is that of a build. Else the name stays, and the description says what was done.
    """
    try:
        recipe = manifest.recipe_of(made)
    except UsageError as error:
        found = str(error).rstrip(".")
        raise CorpusError(
            f"manifest.json: its recipe is not one of this version ({found}); build the corpus again."
        ) from error
    if prompted is not None and manifest.imported(recipe):
        raise CorpusError(
            f"{recipe.name}: its rows were imported, and their prompts stay as they were published; leave out "
            "--prompted and --free-choice."
        )
    changed: dict[str, Any] = {} if prompted is None else {"prompted": prompted}
    takes = {
        name: msgspec.structs.replace(take, **changed, **_encoder(take.encoder, encoder))
        for name, take in recipe.take.items()
    }
    result = msgspec.structs.replace(recipe, take=takes, **changed, **_encoder(recipe.encoder, encoder))
    if result == recipe:
        return recipe
    same = [shipped for shipped in _shipped() if _unnamed(shipped) == _unnamed(result)]
    if same:
        return same[0]
    how = [] if encoder is None else [f"for the encoder {encoder}"]
    how += [] if prompted is None else ["prompted" if prompted else "free choice"]
    return msgspec.structs.replace(result, description=f"Rows of recipe {recipe.name}, rendered {', '.join(how)}.")


def _shipped() -> Iterator[Recipe]:
    for name in recipes.names():
        # A base that leaves the encoder to those who extend it is no recipe of any corpus.
        with contextlib.suppress(UsageError):
            yield recipes.load(name)


def _unnamed(recipe: Recipe) -> Recipe:
    return msgspec.structs.replace(recipe, name="", description="", notes=[])


def _encoder(there: str | None, wanted: str | None) -> dict[str, Any]:
    if wanted is not None:
        encoder_named(wanted)
    return {} if there is None or wanted is None else {"encoder": wanted}


def _verify(corpus: AnyPath, shard: Shard) -> None:
    """A shard must have the bytes that the manifest says: a new manifest must not bless damage."""
    name, path, record = shard.name, shard.path, shard.record
    if not path.is_file():
        raise CorpusError(f"{name}: this shard of {corpus} is not there; build the corpus again.")
    if record is None or path.stat().st_size != record.bytes or sha256(path) != record.sha256:
        raise CorpusError(f"{name}: not the bytes that the manifest of {corpus} names; build the corpus again.")


def _copy(source: AnyPath, target: AnyPath) -> None:
    if not source.is_file():
        raise CorpusError(f"{source}: this table of the corpus is not there; build the corpus again.")
    with source.open("rb") as read, store.creating(target) as written:
        shutil.copyfileobj(read, written, 4 << 20)


def _account(made: Manifest, recipe: Recipe, reports: dict[str, list[shards.ShardReport]]) -> Manifest:
    splits = {
        split: SplitRecord(part.rows, [report.record for report in reports.get(split, [])])
        for split, part in made.splits.items()
    }
    written = [report for parts in reports.values() for report in parts]
    return msgspec.structs.replace(
        made,
        tool=manifest.tool(),
        recipe=RecipeRecord(recipe.name, recipe.digest(), msgspec.to_builtins(recipe), made.recipe.exclude_sha256),
        splits=splits,
        fingerprint=fingerprint.fingerprint([report.run() for report in written]),
    )

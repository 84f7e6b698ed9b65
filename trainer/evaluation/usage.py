"""Options of `python -m trainer.evaluate` that nothing would use; whoever gives one would take it for used."""

from __future__ import annotations

from typing import Final

import click
from click.core import ParameterSource

from vpt_data.errors import UsageError

_OF_OUR_MODELS: Final = ("workers", "device", "dtype")
#: Where options have no effect: whether a parameter of the command is there or not, and which options these are.
_NO_EFFECT: Final = (
    ("with --predictions", "file", True, ("max_new_tokens", "expand", "longest", "batch", *_OF_OUR_MODELS)),
    ("with --server", "server", True, _OF_OUR_MODELS),
    ("without --predictions", "file", False, ("missing_as_wrong",)),
    ("without --judge", "judge", False, ("judge_as_published", "judge_workers")),
)


def check_used(command: click.Context) -> None:
    """UsageError for the first option that is given and has no effect beside the others."""
    values = command.params
    given = {name for name in values if command.get_parameter_source(name) is not ParameterSource.DEFAULT}
    for where, other, there, names in _NO_EFFECT:
        if (values[other] is not None) is there and (unused := [name for name in names if name in given]):
            raise UsageError(f"--{unused[0].replace('_', '-')} has no effect {where}; leave it out.")
    if values["file"] is not None and "protocol" in given and values["protocol"] != "paper":
        raise UsageError(f"--protocol {values['protocol']} has no effect with --predictions; leave it out.")

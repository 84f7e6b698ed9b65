"""Recipes: what a corpus is made of, written as TOML, decoded strictly, checked as a whole before anything is read.

record    the recipe itself; what a take may say is in `vpt_data.take`
key_reference  every key with its type, default, example and meaning, for messages and for the docs
decoding  a table as TOML has it -> a recipe, or one sentence on what is wrong and what to write instead
checks    what types cannot say: names, ranges, and takes that could never give a row
loading   shipped and own files, `extends`, `--set`, and a recipe as TOML again
"""

from vpt_data.recipe.decoding import decode
from vpt_data.recipe.loading import as_toml, describe, literal, load, names, read_table
from vpt_data.recipe.record import Recipe

__all__ = ["Recipe", "as_toml", "decode", "describe", "literal", "load", "names", "read_table"]

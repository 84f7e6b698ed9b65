"""Imported by a process that pushes: its cards are those of `undrawn`."""

from helpers.undrawn import undraw

undraw(setattr)

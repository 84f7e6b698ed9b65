"""The loss curve as a small picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

_FEW = 50  # steps that get a mark each; one alone has no line


def draw(losses: Sequence[float], path: Path, held: Mapping[int, float] | None = None) -> None:
    """Write a PNG of 720 x 400 pixels with the losses of all steps, on a logarithmic axis.

    `held` has those on rows that are not trained on, by step.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter, MaxNLocator

    figure = Figure((7.2, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss")
    axes.semilogy(range(1, len(losses) + 1), losses, color="#0072B2", marker="." if len(losses) < _FEW else "")
    if held:
        axes.semilogy(list(held), list(held.values()), color="#D55E00", marker="o", label="rows not trained on")
        axes.legend()
    axes.set_xlim(0, len(losses) + 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(LogFormatter())
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
    axes.grid(which="both", alpha=0.3)
    figure.savefig(path, dpi=100)

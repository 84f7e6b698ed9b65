"""Statistics of a small corpus under other names, for what draws them."""

from __future__ import annotations

import msgspec

from vpt_data.inspect.stats import Statistics

#: Markup, control characters, a mark that turns text around, TeX, letters that the font of plots lacks.
HOSTILE = "</svg></style><script>document.title = 'ran'</script>&\x00\x1b[31m\u202e$\\frac{1}{0}$ 你好 #1a1b1c"


def renamed(found: Statistics, take: str, name: str) -> Statistics:
    """The same statistics, with this name for one take, all sources, all splits and the recipe."""
    return msgspec.structs.replace(
        found,
        recipe=name,
        takes={name if other == take else other: values for other, values in found.takes.items()},
        sources=[
            msgspec.structs.replace(part, take=name if part.take == take else part.take, source=name, dataset=name)
            for part in found.sources
        ],
        row_groups=[msgspec.structs.replace(group, split=name) for group in found.row_groups],
    )

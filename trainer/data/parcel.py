"""Tensors of all kinds in one piece of memory: one copy between processes, and one to a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

_ALIGNED = 8  # bytes; every tensor begins at a multiple, or it could not be read as its type


@dataclass(frozen=True)
class _Place:
    """Where a tensor is among the bytes."""

    start: int
    dtype: torch.dtype
    shape: torch.Size


@dataclass(frozen=True)
class Parcel:
    """A tree of lists, dictionaries and named tuples, whose tensors are in `data`, uint8[B]; a plain tuple has none."""

    data: Tensor
    tree: Any

    @classmethod
    def of(cls, tree: Any) -> Parcel:
        """Pack the tensors of a tree; whatever else is in it stays as it is."""
        parts: list[Tensor] = []
        size = 0

        def packed(leaf: Any) -> Any:
            nonlocal size
            if not isinstance(leaf, Tensor):
                return leaf
            place = _Place(size, leaf.dtype, leaf.shape)
            # Not view(-1): of a single number it may keep a stride that forbids to see its bytes.
            data = leaf.contiguous().as_strided((leaf.numel(),), (1,)).view(torch.uint8)
            parts.extend((data, data.new_empty(-len(data) % _ALIGNED)))
            size += len(data) + len(parts[-1])
            return place

        found = _mapped(packed, tree)
        return cls(torch.cat(parts) if parts else torch.empty(0, dtype=torch.uint8), found)

    def pin_memory(self) -> Parcel:
        """The same in page-locked memory."""
        return replace(self, data=self.data.pin_memory())

    def opened(self, device: torch.device | str = "cpu") -> Any:
        """The tree with its tensors on a device, without waiting for it if the memory is page-locked."""
        data = self.data.to(device, non_blocking=True)

        def unpacked(leaf: Any) -> Any:
            if not isinstance(leaf, _Place):
                return leaf
            size = leaf.shape.numel() * leaf.dtype.itemsize
            return data[leaf.start : leaf.start + size].view(leaf.dtype).view(leaf.shape)

        return _mapped(unpacked, self.tree)


def _mapped(change: Callable[[Any], Any], tree: Any) -> Any:
    if isinstance(tree, list):
        return [_mapped(change, each) for each in tree]
    if isinstance(tree, dict):
        return {key: _mapped(change, each) for key, each in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(_mapped(change, each) for each in tree))
    return change(tree)

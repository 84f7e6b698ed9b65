"""The frozen extra encoders: DINOv2 and SAM. `clip` is the model's own vision tower and needs none."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vpt_data.errors import UsageError


class Tower(nn.Module):
    """An encoder of transformers that gives features for a projector; `kind` is dino or sam."""

    def __init__(self, kind: str, encoder: nn.Module) -> None:
        super().__init__()
        self.kind, self.encoder = kind, encoder

    @property
    def features(self) -> int:
        """Width of its features."""
        config: Any = self.encoder.config
        return int(config.hidden_size if self.kind == "dino" else config.output_channels)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pictures [n, 3, H, W] -> dino: features [n, N, width] without CLS; sam: maps [n, width, H/16, W/16]."""
        states: Tensor = self.encoder(pixel_values=pixels).last_hidden_state
        return states[:, 1:] if self.kind == "dino" else states


def make_tower(kind: str, config: dict[str, Any] | None = None, pretrained: str | None = None) -> Tower:
    """A tower from the numbers of a configuration (random weights) or from a folder or Hub name."""
    from transformers import Dinov2Config, Dinov2Model, SamVisionConfig, SamVisionModel

    if kind not in ("dino", "sam"):
        raise UsageError(f"Encoder {kind!r} has no tower, expected dino or sam")
    if kind == "dino":
        dino = Dinov2Model.from_pretrained(pretrained) if pretrained else Dinov2Model(Dinov2Config(**(config or {})))
        return Tower(kind, dino)
    sam = (
        SamVisionModel.from_pretrained(pretrained) if pretrained else SamVisionModel(SamVisionConfig(**(config or {})))
    )
    return Tower(kind, sam)

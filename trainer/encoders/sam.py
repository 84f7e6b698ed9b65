"""SAM: the whole picture on a padded square, as a map of features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor, nn

from trainer.encoders.kind import Input, Kind, Tower
from trainer.encoders.projector import Projector

if TYPE_CHECKING:
    from trainer.data.vision import Vision


class SamProjector(Projector):
    """Projector of a feature map: LN over channels, then a 4x4 convolution with stride 4."""

    def make_features(self, features: int, width: int) -> None:
        """Add the modules of the feature side."""
        self.layernorm_feature = nn.LayerNorm(features)
        self.conv_feature = nn.Conv2d(features, width, kernel_size=4, stride=4)

    def project(self, features: Tensor) -> Tensor:
        """Maps [n, features, H, W] -> f [n, H/4 * W/4, width], row by row."""
        normed = self.layernorm_feature(features.movedim(1, -1)).movedim(-1, 1)
        return self.conv_feature(normed).flatten(2).transpose(1, 2)


class SamTower(Tower):
    """Maps [n, width, H / 16, W / 16]."""

    @staticmethod
    def classes() -> tuple[Any, Any]:
        """Those of SAM's image encoder."""
        from transformers import SamVisionConfig, SamVisionModel

        # The folder on the Hub has a whole SamModel, and each weight of its rest would be reported.
        rest = ["^(prompt_encoder|mask_decoder|shared_image_embedding)"]
        return type("SamEncoder", (SamVisionModel,), {"_keys_to_ignore_on_load_unexpected": rest}), SamVisionConfig

    @property
    def width(self) -> int:
        """Channels of a map."""
        return self.encoder.config.output_channels


def _tokens(vision: Vision) -> int:
    return (vision.sam // vision.sam_stride) ** 2


def _picture(vision: Vision, image: Image.Image) -> Image.Image:
    scale = vision.sam / max(image.size)
    width, height = (max(1, int(side * scale + 0.5)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _pixels(vision: Vision, scaled: Tensor) -> Tensor:
    # SAM pads what is normalised already: the border is the mean colour.
    padding = (0, vision.sam - scaled.shape[2], 0, vision.sam - scaled.shape[1])
    return torch.nn.functional.pad(scaled, padding)


KIND = Kind(SamProjector, 16, SamTower, Input(_tokens, _picture, _pixels, limit=lambda vision: vision.sam))

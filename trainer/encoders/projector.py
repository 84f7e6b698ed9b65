"""Projectors: features of another encoder into the width of the language model, steered by a control vector."""

from __future__ import annotations

from torch import Tensor, nn


class Projector(nn.Module):
    """f = W_f LN(x), c = W_c LN(h), out = f + (f . c) c; without a control vector out = f.

    x is a feature of width `features`, h the `control_tokens` control vectors of a look, each of width `width`, one
    after the other. There is no softmax and no scaling. Names of parameters are those of the published checkpoints.
    """

    def __init__(self, features: int, width: int, control_tokens: int = 1) -> None:
        super().__init__()
        self.layernorm_condition = nn.LayerNorm(control_tokens * width)
        self.linear_condition = nn.Linear(control_tokens * width, width)
        self.make_features(features, width)
        for layer in self.children():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def make_features(self, features: int, width: int) -> None:
        """Add the modules of the feature side."""
        self.layernorm_feature = nn.LayerNorm(features)
        self.linear_feature = nn.Linear(features, width)

    def project(self, features: Tensor) -> Tensor:
        """Features of n pictures [n, N, features] -> f [n, N, width]."""
        return self.linear_feature(self.layernorm_feature(features))

    def steer(self, projected: Tensor, control: Tensor, lengths: Tensor) -> Tensor:
        """Steer f [M, width] of n pictures, one after the other, `lengths` int64[n] of them, by h [n, s, width]."""
        vectors = self.linear_condition(self.layernorm_condition(control.flatten(1)))
        vector = vectors.repeat_interleave(lengths, dim=0, output_size=len(projected))
        return projected + (projected * vector).sum(-1, keepdim=True) * vector

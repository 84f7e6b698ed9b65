"""The model's own vision tower as an extra encoder: pictures as for the model, features of the right width."""

from __future__ import annotations

from torch import Tensor

from trainer.encoders.kind import Kind
from trainer.encoders.projector import Projector


class ClipProjector(Projector):
    """Projector of the model's own vision features, which have the right width already: f = x."""

    def make_features(self, features: int, width: int) -> None:
        """Add nothing; the reference has two modules here that it never calls."""

    def project(self, features: Tensor) -> Tensor:
        """Return the features as they are."""
        return features


KIND = Kind(ClipProjector, patches=4)

"""Build, check and publish training data for Visual Perception Tokens (arXiv 2502.17425)."""

__version__ = "0.1.0"

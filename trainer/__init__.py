"""A small trainer for Visual Perception Tokens that reads the shards of `vpt-data build`."""

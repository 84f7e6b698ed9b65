"""Depth maps to depth tokens: what AURORA's recipes need besides the owners' annotations.

maps       a depth map from a file, as one byte a pixel, higher is closer
tokenizer  a depth map to 10 x 10 codes and back, and the identity that travels with the codes
points     which points of an image are asked about, and the markers that are drawn on it
prepare    folders of images and depth maps to the files that the source `aurora_depth` reads
"""

"""The JSON files that the authors of VPT published."""

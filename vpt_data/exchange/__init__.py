"""Other forms of a corpus.

published  the JSON files that the authors of VPT published
rerender   the rows of a corpus for another encoder, or for free choice
"""

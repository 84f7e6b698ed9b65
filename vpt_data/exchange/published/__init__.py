"""The JSON files that the authors of VPT published.

lint         check every row of such a file
items        the rows of such a file as a page shows them
importing    a corpus of the rows of such a file
rows         its rows -> rows of a corpus
paths        its paths -> paths relative to a raw root
shown        what its placeholders show: crops out of paths
crops        crops against the tokens that name them
grid_repair  cells beyond the grid, put right without the image
"""

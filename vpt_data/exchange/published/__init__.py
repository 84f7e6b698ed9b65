"""The JSON files that the authors of VPT published.

lint   check every row of such a file
items  the rows of such a file as a page shows them
crops  crops against the tokens that name them
"""

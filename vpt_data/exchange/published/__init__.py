"""The JSON files that the authors of VPT published.

lint   check every row of such a file
crops  crops against the tokens that name them
"""

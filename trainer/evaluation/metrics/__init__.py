"""Scores of answers, regions and calls for a look: pure functions over columns.

answers     short answers: VQA accuracy, ANLS, exact match, relaxed accuracy, word overlap
assignment  pairs with the largest sum
captions    CIDEr-D
choices     multiple choice
yes_no      yes or no, POPE
regions     the cells that a model names, against boxes
looks       the looks that an answer asks for
table       which metric scores which evaluation split
"""

"""How good the answers of a model are; nothing here imports torch.

metrics     scores of answers, regions and calls for a look
statistics  intervals over images, paired comparisons, repeated seeds
"""

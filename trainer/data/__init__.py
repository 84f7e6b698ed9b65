"""From shards to micro-batches.

corpus   row groups of a corpus and their rows in a seeded order
encode   a row of a shard: token ids, labels, looks, control tokens
encoded  the record of that, which the model reads
vision   pictures for the vision encoders: how many tokens one takes, and its pixels
packing  which samples of a step go through the model together
loader   micro-batches from worker processes, resumed at any position
"""

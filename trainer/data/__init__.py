"""From shards to micro-batches.

corpus   row groups of a corpus and their rows in a seeded order
sample   the record that data and model share: token ids, labels, slots of pictures, control tokens
encode   a row of a shard as such a sample
vision   pictures for the vision encoders: how many tokens one takes, and its pixels
parcel   tensors of all kinds in one copy
packing  which samples of a step go through the model together
loader   micro-batches from worker processes, resumed at any position
"""

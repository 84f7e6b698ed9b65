"""A run: from a configuration to a trained model.

base        tokenizer, shapes and pictures of a base model, or as a run has kept them
setup       from a configuration, or the folder of a run, to a model
loop        the training loop
parallel    how processes share a run
sums        what micro-batches and ranks add up to
checkpoint  checkpoints, complete or not there
run_folder  what the folder of a run holds besides weights
flops       floating point operations of a batch
plot        the loss curve
"""

"""The model and its weights.

vpt         the VPT model: a stock vision-language model, extra encoders, projectors
phases      how a batch of samples is cut into phases
adapter     every touch point with the internals of transformers
attention   attention over samples and pictures that stand one after the other
shapes      sizes of the real models and of the tiny ones
tiny        the offline default
weights     weights from files
"""

"""A build: stages that leave files, and engines that run them. `build.py` is the pipeline on one screen.

plan           what a build will read and write
prepared       the files that pass 1 leaves of an input
workspace      the work folder of a build in progress
engines        who runs the tasks: processes, ranks, Ray
reading        pass 1: one input in, annotations and an index out
open_files     what pass 1 left, read back by partition or by position
quotas         the hash up to which each quota reaches; partitions decided
writing        pass 2: shards out of what was read
sealing        counts, drops, origins, manifest and card of a build
output_folder  whose the output folder is, and what of it can be kept
rebuild        shards of a finished corpus made again, to compare
build          the stages in order
"""

"""Who runs the tasks of a build; engines only schedule, and cannot show in the result.

task   what a task is, and what an engine has to do
local  this process, or a pool of processes on this machine
ranks  independent processes that see one output folder (Slurm)
ray    a Ray cluster
start  the engine of a name
"""

"""What papers print, and how our figures compare with it.

tables    the tables of a paper, read from `vpt.toml` and `aurora.toml`
verdicts  within, above or below a published value, or not comparable and why
"""

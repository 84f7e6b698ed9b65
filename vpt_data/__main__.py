"""`python -m vpt_data`: the command line."""

from vpt_data.cli.main import main

main(prog_name="vpt-data")

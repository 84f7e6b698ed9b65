"""The command line: a file for each group of commands. Heavy modules are imported where they are used.

main       the group of all commands; errors become one sentence and an exit code
common     what the commands share: options, the raw root, how they end
output     progress bars, and the table that ends a build
build      build
corpus     check, stats, render, drops
upstreams  sources, sample, recipes
depth      depth
download   download
exchange   import, diff, export
publish    push-to-hub
view       view, show
"""

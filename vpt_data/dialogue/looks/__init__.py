"""Second looks: what the model says to get one, the turn that shows it, and which pixels that turn shows.

look      the parts of a second look, and the boxes that looks at a region start from
region    region tokens on a grid, answered by the crop of their cells
textbox   four numbers as text, answered by the crop of that box
reencode  a call of another vision encoder, answered by the whole image through it
"""

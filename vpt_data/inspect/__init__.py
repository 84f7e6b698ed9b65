"""Looking at raw roots and corpora; nothing is written into them.

check       hashes, counts and row rules of a corpus
row_rules   what must hold in every row
drops       the records that are not in a corpus, and why
stats       what is in a corpus, as numbers
tally       what is kept of each take while a corpus is read for them
stats_tables  the numbers as tables of text
stats_text  the same for the terminal
plots       the numbers as plots with their tables
figures     how a plot is drawn, as SVG and as PNG
overlap     images of one or two corpora that are the same or look alike
phash       perceptual hashes for that
raw_files   which files of which upstream are under a raw root
raw_images  which images its annotations name, and which of them are there
picture     the picture of one row
overlay     its images, under boxes, grid and cells
lettering   its text
view        a page with the rows of a corpus: pictures, boxes, cells, crops, dialogues
"""

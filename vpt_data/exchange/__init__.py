"""Other forms of a corpus.

hub         publish corpora on the Hugging Face Hub
published   the JSON files that the authors of VPT published
comparison  two corpora, or a corpus and a published file, row by row
exporters   corpora in the forms that other trainers read
rerender    the rows of a corpus for another encoder, or for free choice
out_folder  an output folder that one run fills from beginning to end
"""

"""The folder that comes out of a build: shards, manifest, card.

shards         Parquet files of samples, written and read
row_groups     which rows are written together, and their images
rescale        boxes of rows whose image is a resized copy
fingerprint    hashes of samples; one value for a whole corpus
manifest       manifest.json: what went in and what came out
image_counts   how many images rows show, and under which licences
accounts       what became of the records of each take, as text
reader         a corpus as its users read it: from a folder, an object store or the Hub
card           the dataset card
card_head      its head, which the Hub reads
card_licenses  its parts on licences and citation
"""

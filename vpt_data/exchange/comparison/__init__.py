"""Two corpora, or a corpus and a published file, compared row by row.

side        one of the two: its rows as samples, whatever they are stored as
signatures  of each row a few hashes, by which it is found again and compared
pairs       which row of one side is which of the other
difference  what is not the same, counted, with examples
page        the examples as a page
"""

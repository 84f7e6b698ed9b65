"""What people see of a corpus: rows with their pictures, boxes, cells, crops and dialogues.

item      the structs that the page shows, and how a row becomes one
turns     messages taken apart into text, tokens and placeholders
signals   what may be wrong with rows, and the numbers that they are sorted by
index     one line for each row of a corpus
where     a filter on rows as an SQL condition
choose    which rows a page shows
flat      boxes on nothing
pictures  small copies of images and crops as data URIs
dropped   records that are in no shard, read again from the raw root
document  all of it together: the document of a page
browse    any rows of a whole corpus, filtered and sorted
serve     the page of a whole corpus on 127.0.0.1
terminal  one row in a terminal
page      the document as one HTML file; its template, style and scripts are in the folder web
stats_page  the plots of a corpus as one HTML file
"""

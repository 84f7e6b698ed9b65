"""What people see of a corpus: rows with their pictures, boxes, cells, crops and dialogues.

item   the structs that the page shows, and how a row becomes one
page   the document as one HTML file; its template, style and scripts are in the folder web
turns  messages taken apart into text, tokens and placeholders
"""

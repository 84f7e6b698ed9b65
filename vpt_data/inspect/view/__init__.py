"""What people see of a corpus: rows with their pictures, boxes, cells, crops and dialogues.

item   the structs that the page shows, and how a row becomes one
turns  messages taken apart into text, tokens and placeholders
"""

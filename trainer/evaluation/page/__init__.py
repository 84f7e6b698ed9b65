"""The report as one HTML file: the tables of `trainer.evaluation.report`, plots of them, and rows that were asked.

render    results and examples as HTML; its template and style are in the folder web
plots     figures with their intervals as forest plots
examples  rows with their pictures: where the model looked, what it said, what was right
"""

"""How good the answers of a model are; nothing here imports torch.

items        the rows of a corpus that are asked
asking       who answers: questions by protocol, a model of the trainer, one behind a server
endpoint     a server with the interface of OpenAI, for models and judges, with repeated attempts
predictions  what a model made of them
paper        a row as the published program scores it
records      every score of every row
scoring      from records to results
results      figures of records with intervals; what decides whether they can be compared
arms         interventions: the same rows with another look, compared with the model as it is
comparing    a run beside others, on the rows that they share
published    tables of papers, and verdicts on our figures beside them
report       results as tables
page         results and examples as one HTML file
folder       what an evaluation writes, and reads back
metrics      scores of answers, regions and calls for a look
judge        a language model as the judge of answers
statistics   intervals over images, paired comparisons
usage        options of the command that nothing would use
"""

"""From annotations to dialogues: pure functions of tables, no file is opened.

tokens         the perception tokens: strings, order, reading them back
prompts        every sentence that a model is shown or taught
rule           a resolved take: all that rendering needs to know of it
regions        what the boxes of a record ask for
conversations  source conversations taken apart and put together
templates      annotations to samples, template by template
retarget       samples to another encoder, or to free choice
"""

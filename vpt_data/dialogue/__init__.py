"""From annotations to dialogues: pure functions of tables, no file is opened.

tokens         the perception tokens: strings, order, reading them back
prompts        every sentence that a model is shown or taught
regions        what the boxes of a record ask for
ask            questions in a recipe's own words
conversations  source conversations taken apart and put together
looks          second looks: a file for each kind
reasoning      what is perceived is written down before the answer
counting       how many there are, with and without boxes
plurals        the plural of a category's name
templates      the table of templates: what each needs, shows, asks and says
rule           a resolved take: all that rendering needs to know of it
render         annotations to samples
retarget       samples to another encoder, or to free choice
"""

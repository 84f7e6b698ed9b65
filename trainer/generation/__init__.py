"""A trained model answers, and looks again where it asks for it.

dialog         what is asked, how it is decoded, and the record of what becomes of it; without torch
paper          looks as the published evaluation program reads them
policy         what an intervention may change
vocabulary     the tokens that mean more than text
session        keys and values of rows under generation
rounds         a batch: looks and answers, round by round
opening        a trained model, ready to be asked
answers        rows in, records out
interventions  policies that show or say something else
"""

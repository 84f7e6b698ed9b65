"""A trained model answers, and looks again where it asks for it.

dialog   a question, how it is decoded, and the answer
session  keys and values of rows under generation
rounds   looks and answers, round by round
"""

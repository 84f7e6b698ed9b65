"""A trained model answers, and looks again where it wants to.

dialog   what is asked, how, and what comes of it
session  keys and values of rows under generation
rounds   looks and answers, round by round
"""

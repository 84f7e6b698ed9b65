"""Publish corpora on the Hugging Face Hub.

ready           whether a corpus is fit to be published
layout          where each corpus is located in a repository
card            what people see of a repository
samples         which rows its cards show
pictures        the pictures in them
croissant       the data set for machines
responsible     the part of it on responsible AI
content         which files a repository shall hold
remote          what it holds now, and which of it is not ours
redistribution  whether the images may become public
plan            the difference, and what is refused
push            carry it out: uploads, one commit, the tag
overview        what it would do, or has done, as text and for JSON
answers         what the Hub refuses, as sentences
"""

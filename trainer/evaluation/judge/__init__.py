"""A language model as the judge of answers, as the paper scores all of its sets.

prompt     what it is asked, and how its reply is read
server     where it is
cache      replies that are known already
panel      many answers at the same time; the judge that needs no network
agreement  how far two judges agree
"""

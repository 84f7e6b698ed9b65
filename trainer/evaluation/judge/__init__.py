"""A language model as the judge of answers, as the paper scores all of its sets.

prompt     what it is asked, and how its reply is read
endpoint   a server with the interface of OpenAI, with repeated attempts
cache      replies that are known already
panel      many answers at the same time; the judge that needs no network
agreement  how far two judges agree
"""

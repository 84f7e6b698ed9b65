"""A Hub on 127.0.0.1 that `huggingface_hub`, `datasets` and the `hf` command talk to as to the real one.

accounts.py       who may do what: users, organizations, tokens
repositories.py   what is stored: repositories, commits, references, pull requests
answers.py        requests and answers, and the Hub's refusals
reading.py        routes that change nothing
writing.py        routes that make and change repositories, upload and commit
discussions.py    routes of pull requests
faults.py         what goes wrong at which request, and the log
server.py         HTTP, and `HubServer`, which tests use
client.py         processes that talk to the server
"""

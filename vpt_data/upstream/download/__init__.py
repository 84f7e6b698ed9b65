"""`vpt-data download`: the owners' files into a raw root, whole and checked, or not at all.

entries    what there is to download, from manifests/sources.toml or a manifest of the user's own
lockfile   what is under RAW/.vpt-data: the lock file, the accepted licences
sniff      whether bytes are what the name of their file promises
addresses  which addresses may be asked
http       one file over HTTP: resume, retry, size, sha256
hub        one file from the Hugging Face Hub
unpack     archives, safely
session    a source as a whole: fetch, check, verify
"""

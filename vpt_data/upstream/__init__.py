"""What the owners of data sets publish, under which terms, and how to get it.

packages     sources that other installed packages offer
catalog      upstreams, image folders and downloads: the schema of manifests/sources.toml
licenses     what a licence allows, and what a licence policy keeps out
rawfile      a raw file: plain or gzipped, whole or in windows, hashed while it is read
json_border  where one record of a JSON array ends and the next begins
download     the files of the owners into a raw root
"""

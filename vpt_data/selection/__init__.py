"""Which records get in: pure functions of columns, no work file is opened.

bad_records  what makes a record unusable whatever the recipe
index        all that selection needs to know of each record
take_counts  what each take read, repaired, dropped and kept
pool         the records that takes of one pool see
select       duplicates, exclusion, claims and quotas
"""

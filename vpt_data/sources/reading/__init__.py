"""What the readers of `sources` share: files in, columns of annotations out.

json_records   JSON lines or one JSON array, as typed records; says which file is read in which way
json_lines     JSON lines
json_feed      blocks of a JSON file, and the recovery behind a damaged record
json_array     one JSON array
json_brackets  where strings and brackets of a JSON text are
tabular        rows of a CSV, TSV, JSON or Parquet file
entries        one record of such a file, cell by cell
annotations    the columns of an ANNOTATION table
"""

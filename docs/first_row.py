"""Print the first row of a corpus with images, as `datasets` reads it: the last step of `make demo`.

python docs/first_row.py corpora/sample
"""

from __future__ import annotations

import sys

import datasets


def main(corpus: str) -> None:
    """Load the corpus in a folder and show rows[0]."""
    datasets.disable_progress_bars()
    rows = datasets.load_dataset("parquet", data_files=f"{corpus}/data/*.parquet", split="train")
    row = rows[0]
    print(f"\nrows[0] of {len(rows):,}, loaded with datasets: {row['id']}")
    for message in row["messages"]:
        print(f"  {message['role']:9} {message['content']!r}")
    print(f"  its image: {row['images'][0]}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

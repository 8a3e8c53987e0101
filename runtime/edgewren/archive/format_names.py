"""Names of the formats that any table may have, for command lines that offer them; `formats` has the formats."""

TABLES = ("csv", "csv-semicolon", "csv-pipe", "tsv", "jsonl", "parquet")

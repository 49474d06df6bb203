"""`make bench-columnar`: grouped sums, joins and word counts beside engines of columns, Polars and DuckDB.

`__main__` runs everybody in turn; each of them is a process that `child` keeps, or the engine's own benchmark. A module
for each system knows how to write the workloads in it.
"""

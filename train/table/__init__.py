"""Grids of runs, and tables of them such as Table 3 of the paper."""

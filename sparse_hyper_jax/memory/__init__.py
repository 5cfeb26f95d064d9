"""Tables of which a call reads a few rows: where it has learned to, or where a word's rows lie.

::

    addresses (k, r)    grid.py        grid_shares    2**r corners, global and local cells
         |                                            (k, r) -> rows (k, q), shares (k, q)
    words (b,)          words.py       word_reads     hash_rows at first
         |                                            (b,) -> rows (b, k), shares (b, k)
    reads               reads.py       read_rows      (n, d) -> (b, d)
         |                                 grid_read: addresses to vectors; embed: words to vectors
    vectors                            their cotangent
         |              gains.py       row_gains      the best c of m rows for every word
         |              relocate.py    relocate_rows  the least important row of a word goes
    slopes of rows      lazy_rows.py   lazy_rows, update_rows: what is not read stays as it is

Between the cells of a grid a read interpolates, so an address has a slope: neighbours are to be
alike. Rows of a word have no such order: they are chosen by exact gains, not moved by gradients. A
read costs its points, however many cells there are; :func:`usage` tells how many are in use. What
else holds for all functions is on the page Rules of the documentation.
"""

from sparse_hyper_jax.memory.gains import RowGains, row_gains
from sparse_hyper_jax.memory.grid import EVALUATIONS, grid_read, grid_shares
from sparse_hyper_jax.memory.lazy_rows import lazy_rows, update_rows
from sparse_hyper_jax.memory.reads import Reads, read_rows
from sparse_hyper_jax.memory.relocate import relocate_rows, row_importance
from sparse_hyper_jax.memory.usage import Usage, usage
from sparse_hyper_jax.memory.words import WordRows, embed, hash_rows, word_reads

__all__ = [
    "EVALUATIONS",
    "Reads",
    "RowGains",
    "Usage",
    "WordRows",
    "embed",
    "grid_read",
    "grid_shares",
    "hash_rows",
    "lazy_rows",
    "read_rows",
    "relocate_rows",
    "row_gains",
    "row_importance",
    "update_rows",
    "usage",
    "word_reads",
]

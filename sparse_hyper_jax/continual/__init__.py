"""Many tasks in one network, one after the other, without forgetting any.

::

    fresh weights ---> train what is free ---> prune ---> masks of the task ---> frozen for ever
                         freezing.py         search.py      packing.py              |
            ^                                                                       |
            '------------------------- next task <----------------------------------'

``efficient_packnet`` learns one task: it trains with all weights in use, of which the old ones stay
as they are, and then keeps the fewest weights, old or new, with which the task is still solved well
enough. ``packnet`` prunes a fixed share of the new ones and trains again. Parameters that have no
masks (biases, normalisation, the output layer) belong to one task each. So an old task gives the
same outputs ever after, bit for bit. See also the page Rules of the documentation.
"""

from sparse_hyper_jax.continual.freezing import freeze_entries, freeze_updates
from sparse_hyper_jax.continual.learn import Train, efficient_packnet, packnet
from sparse_hyper_jax.continual.packing import (
    PackedNetwork,
    Task,
    add_task,
    empty_network,
    redraw_free,
    share_used,
    task_weights,
)
from sparse_hyper_jax.continual.search import Search, search_sparsity

__all__ = [
    "PackedNetwork",
    "Search",
    "Task",
    "Train",
    "add_task",
    "efficient_packnet",
    "empty_network",
    "freeze_entries",
    "freeze_updates",
    "packnet",
    "redraw_free",
    "search_sparsity",
    "share_used",
    "task_weights",
]

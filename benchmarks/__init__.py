"""The benchmarks: one file per claim, its lines in ``results/``, its tables on a page.

    python -m benchmarks                    list them
    python -m benchmarks NAME               measure what has no line yet, print the table
    python -m benchmarks NAME --table       only print the table
    python -m benchmarks NAME --draw        only print the table and draw the figure
    python -m benchmarks NAME --tiny        run every program once, in small; nothing is kept

A measurement is named by its facts (setting, size, seed), and goes through one function to its
line, which says where, when and by which commit it was made::

    settings x seeds -> facts -> measure -> line -> results/NAME.jsonl -> table, figure
    NAME.py                      programs/NAME.py or recipes.py           NAME.py

Lines of before lines named commits have ``recorded_in`` instead: the commit that added them to the
repository, which is the one that they measured or a later one. A new benchmark is a file with a
``BENCHMARK``, and its name in ``PAGES``; a test compares its table with that page.
"""

PAGES = {
    "docs/results.md": (
        "sort",
        "identity",
        "free_values",
        "sparse_backprop_accuracy",
        "sparse_backprop_speed",
    ),
    "docs/sorting.md": (
        "sort_scale",
        "sort_quantiles",
        "sort_quality",
        "sort_ablation",
        "learning_to_rank",
    ),
    "docs/from_softjax_and_ott.md": ("sort_peers",),
    "docs/glimpses.md": (
        "glimpse",
        "glimpse_step",
        "glimpse_table",
        "glimpse_headline",
        "antialiasing",
    ),
    "docs/scale.md": ("stages", "scaling", "multiply", "shard", "gpu"),
    "docs/powerprop.md": (
        "powerprop_prune",
        "sparse_training",
        "packnet",
        "powerprop_step",
        "masked_multiply",
    ),
    "docs/estimators.md": (
        "gradient_picture",
        "univariate",
        "vae",
        "unbiased",
        "experts",
        "routing",
        "matrix_game",
        "estimators",
    ),
    "docs/lags.md": ("lags_files", "lags_quality"),
    "docs/recurrent.md": ("tbptt", "recurrent_memory", "online_rules"),
    "docs/remat.md": ("remat",),
    "docs/conv.md": ("lags_speed", "delays", "delay_methods", "spoken_delays"),
    "docs/local.md": ("associated",),
    "docs/spiking.md": ("spiking",),
    "docs/lag_attention.md": ("lag_attention",),
    "docs/pointers.md": ("pointers", "characters"),
    "docs/graphs.md": ("wiring", "citations"),
    "docs/memory.md": ("memory",),
}
"""Benchmarks by the page that shows them."""

NAMES = tuple(name for names in PAGES.values() for name in names)

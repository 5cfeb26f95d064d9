"""Labelled images from disk, and random batches of them drawn inside ``jit``.

The flow, one file per arrow::

    files or bundled digits -> Dataset -> Splits -> ClassIndex -> Sequences -> augmented images
       idx, mnist, digits      dataset    splits        sequences                augment
          cluttered_file                                 `-> ClutteredImages: search a canvas
                                                           cluttered, rotated_clutter

Everything up to ``Splits`` is numpy on the host, done once: the files are checked before they are
trusted, pixels become float32 in ``[0, 1]``, and the held-out images are cut off. From
:class:`ClassIndex` on the images are resident on the device, and every batch is a pure function of
a key, so that a training loop can draw its data inside ``lax.scan``::

    splits = load_splits("digits", None, seed=0)
    index = index_by_class(splits.train)            # once
    batch = make_sequences(key, index, batch=64, length=10)   # inside jit, index an argument

Series of numbers have no labels: :func:`make_series` draws one whose true lags are known,
:func:`make_canvas` reads a canvas row by row, :func:`read_table` reads columns of your own file.
:func:`make_recall` asks for what was said at lags that are not told. :func:`load_spoken` gives
recordings of digits as energies of bands, :func:`load_events` and :func:`moving_discs` what an
event camera saw.

Importing this package reads nothing and needs no extra; scikit-learn is imported by
:func:`load_digits` alone, and only :func:`download_mnist` touches the network.
"""

from sparse_hyper_jax.train.data.augment import augment, draw_affine, warp
from sparse_hyper_jax.train.data.cluttered import ClutteredImages, make_cluttered
from sparse_hyper_jax.train.data.cluttered_file import load_cluttered
from sparse_hyper_jax.train.data.dataset import Dataset, Splits, make_dataset
from sparse_hyper_jax.train.data.digits import load_digits
from sparse_hyper_jax.train.data.events import EventSamples, load_events, moving_discs
from sparse_hyper_jax.train.data.idx import load_idx, read_header, read_idx
from sparse_hyper_jax.train.data.mnist import download_mnist, load_mnist
from sparse_hyper_jax.train.data.recall import Recall, make_recall
from sparse_hyper_jax.train.data.rotated_clutter import make_rotated_cluttered
from sparse_hyper_jax.train.data.sequences import (
    ClassIndex,
    Sequences,
    distinct_numbers,
    index_by_class,
    make_sequences,
    render,
)
from sparse_hyper_jax.train.data.series import (
    LaggedSeries,
    LagSystem,
    draw_system,
    make_canvas,
    make_series,
    run_system,
)
from sparse_hyper_jax.train.data.splits import cut_stratified, load_splits, split_dataset
from sparse_hyper_jax.train.data.spoken import Spoken, load_spoken
from sparse_hyper_jax.train.data.table_file import Table, read_table
from sparse_hyper_jax.train.data.time_parts import (
    SeriesPart,
    SeriesParts,
    cut_in_time,
    standardise,
)

__all__ = [
    "ClassIndex",
    "ClutteredImages",
    "Dataset",
    "EventSamples",
    "LagSystem",
    "LaggedSeries",
    "Recall",
    "Sequences",
    "SeriesPart",
    "SeriesParts",
    "Splits",
    "Spoken",
    "Table",
    "augment",
    "cut_in_time",
    "cut_stratified",
    "distinct_numbers",
    "download_mnist",
    "draw_affine",
    "draw_system",
    "index_by_class",
    "load_cluttered",
    "load_digits",
    "load_events",
    "load_idx",
    "load_mnist",
    "load_splits",
    "load_spoken",
    "make_canvas",
    "make_cluttered",
    "make_dataset",
    "make_recall",
    "make_rotated_cluttered",
    "make_sequences",
    "make_series",
    "moving_discs",
    "read_header",
    "read_idx",
    "read_table",
    "render",
    "run_system",
    "split_dataset",
    "standardise",
    "warp",
]

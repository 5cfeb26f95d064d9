"""Rows of the room ``sort``."""

import numpy as np

from sparse_hyper_jax import sort
from tests.table.columns import Table
from tests.table.examples import distinct, eighths, integers
from tests.table.row import Room, Row

KEYS = distinct(5, seed=1)
FOUR = distinct(4, seed=2)
PAYLOAD = eighths(5, 2, seed=3)
LABELS = np.array([3, 1, 4, 0, 2], np.float32)
LISTS = integers(0, 1, 0, 1, 0)
SHARES = eighths(4, low=0.125, high=1.0, seed=4)
TARGETS = eighths(4, low=0.125, high=1.0, seed=5)
NUMBERED = integers(0, 1, 0, 1, 1)
LEVELS = np.array([0.125, 0.625], np.float32)
WEIGHTS = eighths(5, low=0.5, high=2.0, seed=7)
GAINS = np.array([3, 1, 0.5, 7, 2], np.float32)
WITH_LISTS = {
    "outside": "segments are names, any integer is one",
}


def there_and_back(keys, payload, weights):
    permutation = sort.soft_argsort(keys, certainty=2.0, weights=weights, descending=True)
    moved = sort.apply_permutation(permutation, payload)
    return moved, sort.apply_permutation(permutation, payload, transpose=True)


def weighted(keys, weights):
    options = {"certainty": 2.0, "weights": weights}
    return sort.soft_ranks(keys, **options), sort.soft_top_k(keys, 2, **options)


def straight_through(keys, payload):
    options = {"certainty": 2.0, "straight_through": True}
    shares = sort.soft_top_k(keys, 2, **options)
    return sort.soft_sort(keys, payload, **options), sort.soft_ranks(keys, **options), shares


def ends(keys):
    options = {"certainty": 2.0}
    middle = sort.soft_median(keys, **options)
    least, most = sort.soft_min(keys, **options), sort.soft_max(keys, **options)
    return middle, least, most, sort.soft_largest(keys, 2, **options)


def numbered(keys, ids):
    options = {"certainty": 2.0, "segment_ids": ids, "num_segments": 2}
    return sort.soft_quantile(keys, 0.375, **options), sort.soft_largest(keys, 1, **options)


def gained(keys, gains, lists):
    options = {"k": 2, "segment_ids": lists, "certainty": 2.0}
    return sort.ndcg_loss(keys, gains, **options)


def moved_and_back(key, keys, payload):
    keys, payload, split = sort.half_split(key, keys, payload, num_candidates=2, certainty=1.0)
    return keys, sort.apply_split(split, payload), sort.reverse_split(split, payload)


def quicksort(key, keys, payload):
    done = sort.quicksort(key, keys, payload, num_candidates=2, num_near=1, certainty=1.0)
    return done.payload, done.keys


def ranks_in_lists(keys, lists):
    options = {"certainty": 2.0, "segment_ids": lists}
    return sort.soft_ranks(keys, **options), sort.soft_top_k(keys, 1, **options)


def losses_in_lists(keys, labels, lists):
    return [f(keys, labels, segment_ids=lists) for f in (sort.order_loss, sort.rank_loss)]


def loss(key, keys, payload, target):
    done = sort.quicksort(key, keys, payload, num_candidates=2, certainty=1.0, target=target)
    return sort.sort_loss(done, target, kind="means")


def draw(key, keys):
    payload = np.arange(4)
    return tuple(sort.draw_sort(key, keys, payload, num_candidates=2, certainty=1.0))[::2]


ROWS = [
    Row("standardise", sort.standardise, (KEYS,), wide=False),
    Row(
        "standardise, in lists",
        lambda keys, lists: sort.standardise(keys, segment_ids=lists),
        (KEYS, LISTS),
        wide=False,
        skips=WITH_LISTS,
    ),
    Row("neural_sort", sort.neural_sort, (KEYS,)),
    Row(
        "soft_sort",
        lambda keys, payload: sort.soft_sort(keys, payload, certainty=2.0),
        (KEYS, PAYLOAD),
        wide=False,
    ),
    Row(
        "soft_sort, in lists",
        lambda keys, payload, lists: sort.soft_sort(keys, payload, segment_ids=lists),
        (KEYS, PAYLOAD, LISTS),
        wide=False,
        skips=WITH_LISTS,
    ),
    Row(
        "soft_sort, hard",
        lambda keys, payload: sort.soft_sort(keys, payload, hard=True),
        (KEYS, PAYLOAD),
        wide=False,
        dropped={0: "a NaN goes last"},
    ),
    Row("soft_argsort, apply_permutation", there_and_back, (KEYS, PAYLOAD, WEIGHTS), wide=False),
    Row("soft_ranks, soft_top_k, weighted", weighted, (KEYS, WEIGHTS)),
    Row(
        "soft_sort, soft_ranks, soft_top_k, straight-through",
        straight_through,
        (KEYS, PAYLOAD),
        exact=False,
        dropped={0: "a NaN goes last"},
        skips={
            "float16": "the sorted payload is in 16 bits, ranks and shares are in 32",
            "bfloat16": "as for float16",
        },
    ),
    Row(
        "soft_quantile",
        lambda keys, levels, weights: sort.soft_quantile(
            keys, levels, weights=weights, certainty=2.0
        ),
        (KEYS, LEVELS, WEIGHTS),
    ),
    Row("soft_median, soft_min, soft_max, soft_largest", ends, (KEYS,)),
    Row("soft_quantile, soft_largest, in lists", numbered, (KEYS, NUMBERED), outside={1: (2,)}),
    Row("ndcg_loss", gained, (KEYS, GAINS, LISTS), skips=WITH_LISTS),
    Row("ndcg", sort.ndcg, (KEYS, GAINS)),
    Row("spearman", sort.spearman, (KEYS, LABELS), exact=False),
    Row("soft_ranks", lambda keys: sort.soft_ranks(keys, certainty=2.0), (KEYS,)),
    Row("soft_top_k", lambda keys: sort.soft_top_k(keys, 2, certainty=2.0), (KEYS,)),
    Row("soft_ranks, soft_top_k, in lists", ranks_in_lists, (KEYS, LISTS), skips=WITH_LISTS),
    Row(
        "order_loss",
        lambda keys, labels: sort.order_loss(keys, labels, certainty=2.0),
        (KEYS, LABELS),
    ),
    Row(
        "order_loss, rank_loss, in lists", losses_in_lists, (KEYS, LABELS, LISTS), skips=WITH_LISTS
    ),
    Row(
        "half_split, apply_split, reverse_split",
        moved_and_back,
        (FOUR, SHARES),
        keyed=True,
        redraws=True,
        wide=False,
    ),
    Row("quicksort", quicksort, (FOUR, SHARES), keyed=True, redraws=True, wide=False),
    Row(
        "quicksort, hard",
        lambda keys, payload: sort.quicksort(None, keys, payload, hard=True).payload,
        (KEYS, PAYLOAD),
        wide=False,
        dropped={0: "a NaN goes last"},
    ),
    Row(
        "sort_loss",
        loss,
        (FOUR, SHARES, TARGETS),
        keyed=True,
        redraws=True,
        skips={"second": "of the sort, which has a row"},
    ),
    Row("draw_sort", draw, (FOUR,), keyed=True, redraws=True),
    Row("cross_entropy", sort.cross_entropy, (SHARES, TARGETS)),
    Row("squared_error", sort.squared_error, (SHARES, TARGETS)),
    Row("element_match", sort.element_match, (KEYS, LABELS), exact=False),
    Row(
        "exact_match",
        sort.exact_match,
        (KEYS, LABELS),
        exact=None,
        dropped="the output is a truth value",
    ),
]

EXCEPTIONS = {
    "Drawn": "a type",
    "HalfPermutation": "a type",
    "SoftPermutation": "a type",
    "Sorted": "a type",
}


class TestSort(Table):
    room = Room(sort, ROWS, EXCEPTIONS)

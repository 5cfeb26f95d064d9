"""Calls of ``sort``."""

from dataclasses import replace

import numpy as np

from sparse_hyper_jax import sort
from tests.fuzz import draw
from tests.fuzz.wrong import Call, array, choice, count, flag, function, key, number, thing, tree

N = 5


def keys(rng, **options):
    return array(draw.distinct(rng, N) + 0.5, "floats", **options)


def lists():
    return array([0, 1, 0, 1, 1], "integers", optional=True)


def certainty():
    return number(2.0, -1.0, 0.0, np.float32(-1), float("inf"))


def payload(rng):
    """A tree of arrays, and what is none."""
    good = draw.reals(rng, (N, 2))
    bad = [good[1:], good.sum(), {"a": good[1:]}, "text", ["a", "b"], good.astype(int), 3, object()]
    return tree(good, *bad, family="payload")


def soft_sort(rng):
    arguments = {"keys": keys(rng), "payload": payload(rng), "certainty": certainty()}
    arguments |= {"segment_ids": lists(), "hard": flag(False), "weights": weights()}
    arguments |= {"descending": flag(True), "straight_through": flag(False)}
    return Call("sort.soft_sort", sort.soft_sort, arguments, 2)


def weights():
    """Numbers or flags, one for every element: keys may stand in their place."""
    return replace(array(np.ones(N), optional=True), family="array")


def mask():
    return array(np.ones(N, bool), "flags", optional=True)


def permutations(rng):
    if rng.random() < 0.5:
        arguments = {"keys": keys(rng), "certainty": certainty(), "segment_ids": lists()}
        arguments |= {"weights": weights(), "descending": flag(False), "hard": flag(False)}
        return Call("sort.soft_argsort", sort.soft_argsort, arguments, 1)
    found = sort.soft_argsort(np.arange(N, dtype=np.float32))
    bad = [found._replace(order=None), found._replace(decays=found.decays[1:]), tuple(found)]
    arguments = {"permutation": thing(found, *bad, family="permutation"), "payload": payload(rng)}
    arguments |= {"transpose": flag(False), "straight_through": flag(True)}
    return Call("sort.apply_permutation", sort.apply_permutation, arguments, 2)


def quantiles(rng):
    name = draw.pick(rng, "soft_quantile", "soft_median", "soft_min", "soft_max", "soft_largest")
    arguments = {"keys": keys(rng)}
    if name == "soft_quantile":
        arguments["q"] = tree(0.5, -0.5, 1.5, "text", None, [2.0], 1j, {"a": 0.5}, family="q")
    if name == "soft_largest":
        arguments["k"] = count(2, 1)
    first = len(arguments)
    arguments |= {"certainty": certainty(), "weights": weights(), "hard": flag(False)}
    arguments |= {"straight_through": flag(False)}
    if rng.random() < 0.5:
        # Lists and their number go together.
        arguments["segment_ids"] = array([0, 1, 0, 1, 1], "integers")
        arguments["num_segments"] = count(2, 1)
    return Call(f"sort.{name}", getattr(sort, name), arguments, first)


def ranked(rng):
    name = draw.pick(rng, "ndcg", "ndcg_loss", "spearman")
    other = "labels" if name == "spearman" else "gains"
    floats = name == "ndcg_loss"
    numbers = array(draw.distinct(rng, N), "floats" if floats else "real")
    labels = replace(array(np.arange(N) / 2), family=numbers.family)
    arguments = {"keys": numbers, other: labels, "segment_ids": lists(), "mask": mask()}
    if name != "spearman":
        arguments["k"] = count(2, 1, optional=True)
    if floats:
        arguments["certainty"] = certainty()
    return Call(f"sort.{name}", getattr(sort, name), arguments, 2)


def soft_places(rng):
    if rng.random() < 0.5:
        arguments = {"keys": keys(rng)}
        function_, name = sort.soft_ranks, "sort.soft_ranks"
    else:
        arguments = {"keys": keys(rng), "k": count(2)}
        function_, name = sort.soft_top_k, "sort.soft_top_k"
    first = len(arguments)
    arguments |= {"certainty": certainty(), "segment_ids": lists(), "hard": flag(False)}
    return Call(name, function_, arguments, first)


def order_losses(rng):
    name = draw.pick(rng, "order_loss", "rank_loss")
    # Labels are any real numbers, and so are keys.
    labels = replace(array(draw.distinct(rng, N)), family=keys(rng).family)
    arguments = {"keys": keys(rng), "labels": labels}
    arguments |= {"certainty": certainty(), "segment_ids": lists()}
    return Call(f"sort.{name}", getattr(sort, name), arguments, 2)


def standardise(rng):
    return Call(
        "sort.standardise", sort.standardise, {"keys": keys(rng, ranks=False, lengths=False)}, 1
    )


def neural_sort(rng):
    arguments = {
        "keys": array(draw.distinct(rng, N), lengths=False),
        "temperature": number(1.0, -1.0, 0.0),
    }
    return Call("sort.neural_sort", sort.neural_sort, arguments, 1)


def splitting(rng):
    arguments = {"key": key(), "keys": keys(rng), "payload": payload(rng)}
    name = draw.pick(rng, "half_split", "quicksort", "draw_sort")
    arguments |= {"num_candidates": count(3, 1), "certainty": certainty()}
    if name != "draw_sort":
        arguments |= {"num_near": count(1, 0, 2), "hard": flag(False)}
    if name == "half_split":
        arguments["level"] = count(1, 0, 3)
    if name == "quicksort":
        target = np.ones((N, 2), np.float32)
        arguments["target"] = tree(
            target, target[1:], np.ones((), np.float32), "text", {"a": target[1:]}, family="payload"
        )
    if name == "draw_sort":
        good = np.arange(N, dtype=np.int32)
        arguments["payload"] = tree(
            good, good[1:], good.sum(), "text", {"a": good[1:]}, object(), family="payload"
        )
    return Call(f"sort.{name}", getattr(sort, name), arguments, 3)


def half_of():
    n = np.arange(N, dtype=np.int32)
    return sort.HalfPermutation(*np.stack([[n, n], [n, n]]), np.full((2, N), 0.5, np.float32))


def moving(rng):
    name = draw.pick(rng, "apply_split", "reverse_split")
    arguments = {"split": thing(half_of(), family="split"), "payload": payload(rng)}
    return Call(f"sort.{name}", getattr(sort, name), arguments, 2)


def sort_loss(rng):
    target = draw.reals(rng, (N, 2))
    done = sort.Sorted(target, np.arange(N, dtype=np.float32), (target,) * 4, (target,) * 4)
    bad = [target[1:], target[:, 0], {"a": target}, target * 1j, "text"]
    arguments = {
        "result": thing(done, family="result"),
        "target": thing(target, *bad, family="payload"),
    }
    arguments |= {
        "kind": choice("plain"),
        "distance": function(sort.squared_error, lambda *_: None),
    }
    return Call("sort.sort_loss", sort.sort_loss, arguments, 2)


def losses(rng):
    name = draw.pick(rng, "cross_entropy", "squared_error")
    one, two = "output", "target"
    if rng.random() < 0.5:
        name, one, two = draw.pick(rng, "element_match", "exact_match"), "keys", "labels"
    arguments = {one: array(np.full((3, 4), 0.5)), two: array(np.full((3, 4), 0.25))}
    return Call(f"sort.{name}", getattr(sort, name), arguments, 2)


CALLS = (
    permutations,
    quantiles,
    ranked,
    soft_sort,
    soft_sort,
    soft_places,
    order_losses,
    standardise,
    neural_sort,
    splitting,
    splitting,
    splitting,
    moving,
    sort_loss,
    losses,
)

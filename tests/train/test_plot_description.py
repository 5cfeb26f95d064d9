import numpy as np
import pytest
from matplotlib.collections import PathCollection

from sparse_hyper_jax.explain import Description
from sparse_hyper_jax.train import plots


@pytest.mark.parametrize("rank", [1, 2])
def test_a_description_shows_what_is_worth_most(rank):
    positions, worth = np.arange(3)[:, None] * np.array([2, 1])[:rank], np.array([0.5, 2.0, 1.0])
    flags = np.array([True, True, False])
    described = Description(
        positions, np.zeros((3, rank)), worth, worth, flags, ~flags, np.array([1, 2, 0])
    )
    ax = plots.plot_description(described).axes[0]
    (marks,) = [part for part in ax.collections if isinstance(part, PathCollection)]
    np.testing.assert_array_equal(marks.get_facecolors()[2], np.ones(4))
    offsets = np.asarray(marks.get_offsets())
    if rank == 1:
        np.testing.assert_allclose(offsets, np.stack([positions[:, 0], worth], -1))
    else:
        np.testing.assert_array_equal(offsets, positions[:, ::-1])
        assert np.argmax(marks.get_sizes()) == 1
    with pytest.raises(ValueError, match="rank 3"):
        plots.plot_description(described._replace(positions=np.zeros((3, 3), int)))

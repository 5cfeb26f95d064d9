import gc
import os
import signal
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from tests import compiling, sampling

# Linux kills a process with more than 65,530 maps of memory; every compiled program takes some.
MANY_MAPS = 30_000


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full",
        action="store_true",
        help="compile every case on its own, with all of XLA's passes and without a cache",
    )
    parser.addoption(
        "--notebooks", action="store_true", help="run the notebooks too; so does --full"
    )
    parser.addoption(
        "--part",
        metavar="K/N",
        type=sampling.part_of,
        default=(1, 1),
        help="run the K-th of N parts, which together are the suite",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what trains for minutes unless it is asked for, and what is in other parts."""
    minutes = config.getoption("--notebooks") or config.getoption("--full")
    part = config.getoption("--part")

    def is_run(item: pytest.Item) -> bool:
        wanted = minutes or not item.get_closest_marker("minutes")
        return bool(wanted) and sampling.belongs(item, part)

    config.hook.pytest_deselected(items=[item for item in items if not is_run(item)])
    items[:] = filter(is_run, items)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name bytes by their number: what compressors write may differ from process to process."""
    return f"{len(val)}-bytes" if isinstance(val, bytes) else None


def pytest_configure(config: pytest.Config) -> None:
    """Set JAX up before a test file imports it, for this process and for those that tests start."""
    # A shell starts what runs in its background with SIGINT ignored; tests of Ctrl-C need it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    full = config.getoption("--full")
    settings = compiling.FULL if full else compiling.cheap_settings()
    os.environ |= {name.upper(): str(value) for name, value in settings.items()}
    if not full:
        os.environ["XLA_FLAGS"] = compiling.with_cheap_flags(os.environ, version("jaxlib"))
    cache = settings.get("jax_compilation_cache_dir")
    if cache and not hasattr(config, "workerinput"):
        compiling.trim(Path(cache).parent)

    import jax

    from tests import folding

    folding.apart = full
    # What is traced is millions of objects, few of them garbage; Python looks for it all the time.
    gc.set_threshold(50_000, 20, 10)
    # Stricter than a user's session: keys must be typed, and a 64-bit type that would silently
    # become a 32-bit one is an error. Several devices on one CPU, for tests of sharded layers.
    strict = {"jax_legacy_prng_key": "error", "jax_explicit_x64_dtypes": "error"}
    for name, value in (settings | strict | {"jax_num_cpu_devices": 8}).items():
        jax.config.update(name, value)


def pytest_collection_finish() -> None:
    """Modules and tests stay to the end: the garbage collector need not look at them."""
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def forget_compiled_programs() -> Iterator[None]:
    """Drop all programs at the end of a test file, once they are many: see MANY_MAPS."""
    yield
    maps = Path("/proc/self/maps")
    if not maps.exists() or maps.read_bytes().count(b"\n") > MANY_MAPS:
        import jax

        jax.clear_caches()
        gc.collect()

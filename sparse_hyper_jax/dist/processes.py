"""Several processes that compute together, each with its own devices.

All of them run the same program on the same data; ``jax.devices()`` then lists the devices of all,
and a mesh of these spans the processes. What belongs to the run as a whole, such as writing a file
or looking at the clock, is left to the first process.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import check_function


def join_processes(
    coordinator: str | None, rank: int, num_processes: int, *, timeout: int = 300
) -> None:
    """Join the other processes of a run; call it before anything else that computes.

    The first process listens at the coordinator's address and the others connect to it. On a CPU
    arrays are exchanged by gloo, the default of JAX.

    Args:
        coordinator: ``"host:port"`` of the first process, the same for all; None for a run of one
            process, which has nobody to join.
        rank: number of this process, counted from 0.
        num_processes: how many there are.
        timeout: seconds to wait for all of them.

    Raises:
        ValueError: an address that is none, a rank outside of the count, or several processes
            without an address.
        RuntimeError: JAX has computed something before.
    """
    rank = checks.check_count("rank", rank)
    count = checks.check_count("num_processes", num_processes, least=1)
    timeout = checks.check_count("timeout", timeout, least=1)
    checks.require(
        rank < count,
        f"rank={rank} of num_processes={count}",
        f"a rank from 0 to {count - 1}",
        "count ranks from 0",
    )
    if coordinator is None:
        checks.require(
            count == 1,
            f"num_processes={count} without a coordinator",
            "the address at which the first process listens",
            'pass for instance "127.0.0.1:12345", the same to all processes',
        )
        return
    _check_address(coordinator)
    if jax.distributed.is_initialized():
        _check_joined(rank, count)
        return
    jax.distributed.initialize(coordinator, count, rank, initialization_timeout=timeout)


def is_first() -> bool:
    """Tell whether this is the process that writes and prints."""
    return jax.process_index() == 0


def first_says(flag: bool) -> bool:
    """Give the first process's flag to all: for what depends on its clock or its files.

    Args:
        flag: what this process would say; every process has to ask.

    Raises:
        ValueError: no flag.
    """
    flag = checks.check_flag("flag", flag)
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.broadcast_one_to_all(np.int32(flag)))


def first_does(action: Callable[[], Any]) -> None:
    """Run an action in the first process, while the others wait for its end.

    Args:
        action: a function without arguments, such as one that writes a file.

    Raises:
        ValueError: no function.
        Exception: whatever it raises in the first process; ``OSError`` in the others.
    """
    check_function("action", action, "a function without arguments, not its result")
    failure: Exception | None = None
    if is_first():
        try:
            action()
        except Exception as error:  # the others have to hear of it, whatever it is
            failure = error
    failed = first_says(failure is not None)
    if failure is not None:
        raise failure
    if failed:
        raise OSError(
            "found a failure of process 0; expected it to open the run's files;"
            " see the message of that process"
        )


def _check_address(coordinator: Any) -> None:
    host, colon, port = coordinator.rpartition(":") if isinstance(coordinator, str) else ("",) * 3
    checks.require(
        bool(host and colon) and port.isascii() and port.isdigit() and 0 < int(port) < 2**16,
        f"coordinator={coordinator!r}",
        "host:port",
        'pass for instance "127.0.0.1:12345", the same to all processes',
    )


def _check_joined(rank: int, count: int) -> None:
    now = (jax.process_index(), jax.process_count())
    checks.require(
        (rank, count) == now,
        f"rank={rank} of num_processes={count} in process {now[0]} of {now[1]}",
        "the same numbers, because a process joins once",
        "start a new process",
    )

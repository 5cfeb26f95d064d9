"""The table has a file for every room, and every room of the package has a file."""

import importlib
import pkgutil

import sparse_hyper_jax
import tests.table
from tests.table.columns import Table

# Extras, which nothing else imports; its functions are of files and runs, not of arrays.
WITHOUT_TABLE = {"sparse_hyper_jax.train"}


def modules_of(package):
    return [
        importlib.import_module(found.name)
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
        if found.name not in WITHOUT_TABLE
    ]


def test_every_module_with_a_list_of_public_names_has_a_table():
    """Rooms are packages; modules of the ground floor may have a table too."""
    rooms = {one.__name__ for one in modules_of(sparse_hyper_jax) if hasattr(one, "__all__")}
    tables = [
        value.room.module.__name__
        for module in modules_of(tests.table)
        if module.__name__ != __name__
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Table) and value is not Table
    ]
    assert rooms <= set(tables)
    assert len(tables) == len(set(tables))

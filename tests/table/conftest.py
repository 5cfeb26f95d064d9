from tests.table.columns import COLUMNS, ONLY_WITH_FULL, applies


def pytest_generate_tests(metafunc):
    """Every row of a room under every column that applies to it."""
    if "row" in metafunc.fixturenames:
        full = metafunc.config.getoption("--full", default=False)
        columns = [*COLUMNS, *(ONLY_WITH_FULL if full else ())]
        rows = metafunc.cls.room.rows
        pairs = [(row, column) for row in rows for column in columns if applies(row, column)]
        names = [f"{row.name}-{column}" for row, column in pairs]
        metafunc.parametrize(("row", "column"), pairs, ids=names)

from tests.table.columns import COLUMNS, applies


def pytest_generate_tests(metafunc):
    """Every row of a room under every column that applies to it."""
    if "row" in metafunc.fixturenames:
        rows = metafunc.cls.room.rows
        pairs = [(row, column) for row in rows for column in COLUMNS if applies(row, column)]
        names = [f"{row.name}-{column}" for row, column in pairs]
        metafunc.parametrize(("row", "column"), pairs, ids=names)

import json

import pytest

from sparse_hyper_jax.train.json_files import read_json, replace_text, to_plain, write_json


def test_values_unknown_to_json_are_named():
    with pytest.raises(ValueError, match="of type function; expected numbers"):
        to_plain({"loss": read_json})


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises(UnicodeEncodeError):
        replace_text(path, "\ud800")
    assert json.loads(path.read_text()) == read_json(path, change="") == {"a": 1}


def test_what_the_system_refuses_keeps_its_kind(tmp_path):
    with pytest.raises(IsADirectoryError, match=r"found .*cannot be read .*; expected .*; go home"):
        read_json(tmp_path, change="go home")
    with pytest.raises(FileNotFoundError, match="go home"):
        read_json(tmp_path / "none", change="go home")

"""Config files that are no mappings of options: bombs, other encodings, nothing."""

import pytest

from trainer_ext.cli import main
from trainer_ext.cli.parse import read_yaml
from trainer_ext.errors import ConfigError

LAUGHS = "a0: &a0 [ha, ha]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(LAUGHS, "more than 10,000 values when its aliases", id="a billion laughs"),
        pytest.param("prompts: &p [*p]", "more than 10,000 values", id="a list of itself"),
        pytest.param("prompts: " + "[" * 5000, "cannot be read", id="a deep list"),
        pytest.param("prompts: ['a\ufffecat'", "cannot be read", id="no YAML"),
        pytest.param("- a\n- b", "holds no options", id="a list"),
        pytest.param("", "holds no options", id="nothing"),
    ],
)
def test_a_file_that_holds_something_else(tmp_path, content, message):
    file = tmp_path / "run.yaml"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as raised:
        read_yaml(file)
    assert len(str(raised.value)) < 1000


def test_a_file_in_another_encoding(tmp_path, capsys):
    (tmp_path / "run.yaml").write_bytes("prompts: [a café]".encode("latin-1"))
    assert main(["train", "--config", str(tmp_path / "run.yaml")]) == 2
    assert "run.yaml cannot be read: 'utf-8' codec can't decode byte 0xe9" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_file_is_read_as_utf_8(tmp_path, encoding):
    """Also with the mark that some editors put at its beginning."""
    (tmp_path / "run.yaml").write_text("prompts: [a café]", encoding=encoding)
    assert read_yaml(tmp_path / "run.yaml") == {"prompts": ["a café"]}

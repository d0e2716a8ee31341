"""What the report has, and what lies beside its results."""

import pytest

from experiments.compose import ROOT, names
from experiments.errors import UserError
from reproduce import entries as contents
from reproduce import report
from reproduce.entries import Entry, entries, read_notes


def test_a_copy_of_a_figure_does_not_take_its_place(monkeypatch):
    """A figure of one's own, made by copying fig09.yaml, comes after the report's."""
    files = {**{n: contents.load("figure", n) for n in names("figure")}, "a_copy": contents.load("figure", "fig09")}
    monkeypatch.setattr(contents, "names", lambda group: sorted(files))
    monkeypatch.setattr(contents, "load", lambda group, name: files[name])
    found = {e.name: e for e in entries()}
    assert found["fig09"].panels == ["fig09a", "fig09b"]
    assert found["a_copy"] == Entry("a_copy", "a_copy", [], files["a_copy"])
    assert found["a_copy"].claims == []
    assert found["fig03b"].label == "Figure 3b"
    assert found["fig09"].label == "Figure 9"


def test_a_file_that_cannot_be_read_is_named_and_left_out(monkeypatch):
    load, said = contents.load, list[str]()
    monkeypatch.setattr(contents, "load", lambda group, name: {"title": "x"} if name == "fig14" else load(group, name))
    found = {e.name: e for e in entries(said.append)}
    assert found["fig14"].figure is None and found["fig14"].panels and found["fig15"].figure
    assert len(said) == 1 and "conf/figure/fig14.yaml: " in said[0]
    with pytest.raises(UserError, match=r"conf/figure/fig14\.yaml"):
        entries()


def test_odd_files_beside_the_summaries(tmp_path):
    assert read_notes(tmp_path) == {}
    for wrong in ("- a list\n", "fig09: [1, 2]\n", "fig09: 'open\n"):
        (tmp_path / "notes.yaml").write_text(wrong)
        with pytest.raises(UserError, match="a text for each figure"):
            read_notes(tmp_path)
    (tmp_path / "notes.yaml").write_bytes(b"fig09: na\xefve\n")
    with pytest.raises(UserError, match="a text for each figure"):
        read_notes(tmp_path)
    (tmp_path / "notes.yaml").write_text("# nothing yet\n")
    assert read_notes(tmp_path) == {}


def test_a_note_on_what_there_is_not_is_named(tmp_path):
    (tmp_path / "notes.yaml").write_text("fig99: Agrees.\nfig09: The order is the report's.\n")
    said = list[str]()
    report.write(tmp_path, tmp_path / "figures", said.append)
    assert len(said) == 1 and said[0].startswith("notes.yaml has a text for 'fig99': did you mean 'fig09'")


@pytest.mark.parametrize(("name", "note"), read_notes(ROOT / "results").items())
def test_a_note_is_a_few_sentences_and_the_numbers_behind_them(name, note):
    """Without the empty line between them, the page would show all numbers where it has the sentences."""
    lead, *numbers = note.split("\n")
    assert 300 < len(lead) < 700 and numbers and all(len(paragraph) < 1600 for paragraph in numbers)

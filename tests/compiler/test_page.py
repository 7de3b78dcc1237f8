"""Pages that need nothing else."""

import json

import pytest

from compiler.page import HERE, SHARED, write_page


def test_style_functions_and_data_are_in_the_page(tmp_path):
    template = tmp_path / "t.html"
    template.write_text("<style>\n/*STYLE*/\n</style><script>const DATA = /*DATA*/ null;\n/*HELPERS*/\n</script>")
    write_page(tmp_path / "page.html", template, {"name": "</script><b>"})
    text = (tmp_path / "page.html").read_text()
    assert text.count("</script>") == 1
    data = text.partition("const DATA = ")[2].partition(";\n")[0]
    assert json.loads(data) == {"name": "</script><b>"}
    assert all((HERE / name).read_text().rstrip() in text for name in SHARED.values())


def test_a_template_without_a_place_for_data_is_our_mistake(tmp_path):
    (tmp_path / "t.html").write_text("")
    with pytest.raises(AssertionError):
        write_page(tmp_path / "page.html", tmp_path / "t.html", {})

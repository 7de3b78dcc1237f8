from compiler.ir.location import UNKNOWN, FileLoc, FusedLoc, NameLoc, fused

A, B, C = NameLoc("a"), NameLoc("b"), FileLoc("f.py", 3, 4)


def test_fused_flattens_and_drops_repeats_and_unknowns():
    assert fused(A, fused(B, UNKNOWN, C), A) == FusedLoc((A, B, C))


def test_one_location_stays_plain():
    assert fused(A, UNKNOWN, A) == A
    assert fused() == UNKNOWN


def test_names_and_text():
    loc = fused(A, C, B)
    assert loc.names() == ["a", "b"]
    assert str(loc) == "a, f.py:3:4, b"

"""`check`: a sound file and a broken one."""

from tests.runtime_sim.check.programs import add_model, changed_model, toy_model


def test_check_of_sound_and_broken_files(tool):
    assert tool(toy_model(), "check")[:2] == (0, "sound: 7 nets, waits proved for 47 instructions\n")
    code, out, _ = tool(changed_model(add_model(), "tiu", 1, cmd_id_dep=0), "check")
    assert code == 1
    assert "nothing orders tiu 1 (ar.add) and dma 1" in out
    assert out.endswith("1 problem\n")

"""`check`: a sound file and a broken one."""

from tests.runtime_sim.check.cores import Y, core_program, model_of, sum_model
from tests.runtime_sim.check.programs import add_model, changed_model, toy_model


def test_check_of_sound_and_broken_files(tool):
    assert tool(toy_model(), "check")[:2] == (0, "sound: 7 nets, waits proved for 47 instructions\n")
    code, out, _ = tool(changed_model(add_model(), "tiu", 1, cmd_id_dep=0), "check")
    assert code == 1
    assert "nothing orders tiu 1 (ar.add) and dma 1" in out
    assert out.endswith("1 problem\n")


def test_check_of_several_cores_names_them(tool):
    assert tool(sum_model(), "check")[:2] == (0, "sound: 1 nets, waits proved for 30 instructions\n")
    race = model_of([core_program(0).streams(), core_program(1, messages=(28, 31, 32)).streams()])
    assert "net sum: the program never ends: " in tool(race, "check")[1]
    astray = core_program(1)
    astray.copy(0x8000, Y + 0x4000, (1, 1, 1, 16))
    _, out, _ = tool(model_of([core_program(0).streams(), astray.streams()]), "check")
    assert "net sum: core 1 dma 12 goes to bytes 0xa000006000 to 0xa000006020, outside the net's memories" in out


def test_no_launch_begins_with_a_message_that_a_core_may_still_wait_for(tool):
    code, out, _ = tool(sum_model(messages=(30, 31, 30)), "check")
    assert (code, out.splitlines()[0]) == (
        1,
        "net sum ends with message 30, with which net sum begins: a core may still wait for it",
    )

"""The program: a checkpoint through the front end, the passes and the simulator to a finished bmodel."""

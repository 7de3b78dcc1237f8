"""The commands of bmodel_tool.py, one per file."""

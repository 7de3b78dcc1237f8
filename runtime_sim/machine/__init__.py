"""The modelled chip: memories, and what each instruction does to them."""

"""What the vendor's runtime and its clients do with a bmodel: load it, launch nets, generate tokens."""

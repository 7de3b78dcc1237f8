"""Where the values of parameters come from: tensors as they are, codes in some packing, parts of others."""

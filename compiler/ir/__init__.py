"""The IR shared by every dialect: values, ops, types, text form, verification."""

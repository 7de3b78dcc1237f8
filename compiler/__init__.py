"""The machinery of the compiler: IR, chips, stored weights, the bmodel file. No op and no pass lives here."""

__version__ = "0.1.0"

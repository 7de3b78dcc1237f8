"""The machinery of the compiler: IR, rewriting, passes, frontend, container. No op and no pass lives here."""

__version__ = "0.1.0"

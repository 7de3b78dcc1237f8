"""How weights become codes: measured on tokens, before any is written."""

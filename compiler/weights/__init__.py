"""How weights are stored: codes with scales and zero points, packed in tiles."""

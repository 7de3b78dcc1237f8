"""What each op computes, in numpy, level by level: files and rules are named as in dialects."""

"""What a file will be, take and do, told before a weight is read."""
